"""A whole build killed again and again, text to Parquet: what stands at the end is what an undisturbed one writes."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pytest

from omnivox.data.stage import STAGES
from tests.data.speaking import units_file
from tests.data.test_command import SAMPLE
from tests.data.test_kill import finished, started


def contents(build: Path) -> dict[str, bytes]:
    """Every file that is there to stay."""
    return {str(path.relative_to(build)): path.read_bytes() for stage in STAGES
            for path in sorted((build / stage).rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_a_whole_build_killed_at_random_moments(tmp_path: Path) -> None:
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed")
    pytest.importorskip("pyarrow")
    units = units_file(tmp_path / "units.safetensors")
    flags = ("--question-voices", "flite:slt", "--quantiser", units, "--shard-rows", "3")
    began = time.monotonic()
    finished("build", SAMPLE, "--out", tmp_path / "calm", *flags)
    usual = time.monotonic() - began
    rng = random.Random(1)
    for _ in range(8):
        process = started("build", SAMPLE, "--out", tmp_path / "wild", *flags)
        time.sleep(rng.random() * usual)
        process.kill()
        process.communicate()
    finished("build", SAMPLE, "--out", tmp_path / "wild", *flags)
    assert contents(tmp_path / "wild") == contents(tmp_path / "calm")
