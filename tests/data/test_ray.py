"""The stages on a Ray cluster of this machine's own: the files are those that one process writes."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from omnivox.data import ray as module
from omnivox.data.card import finish_dataset
from omnivox.data.filter import FilterStage
from omnivox.data.manifest import StageFolder
from omnivox.data.quantise import QuantiseStage
from omnivox.data.ray import on_ray
from omnivox.data.speak import SpeakStage
from omnivox.data.stage import Stage, run_stage
from omnivox.data.write import WriteStage
from omnivox.errors import ConfigError
from tests.data.speaking import ANSWERING, ASKING, rows, units_file, written

SHARDS, SHARD_ROWS = 6, 4
CLUSTER = """
import os, signal, sys
from pathlib import Path
import ray
from omnivox.data.card import finish_dataset
from omnivox.data.ray import on_ray
from omnivox.data.speak import SpeakStage
from omnivox.data.stage import run_stage
from tests.data.speaking import ANSWERING, ASKING
from tests.data.test_ray import stages_after_speech

class Dying(SpeakStage):
    def __init__(self, *args, mark):
        super().__init__(*args)
        self.mark = mark

    def apply(self, rows, build):
        for number, outcome in enumerate(super().apply(rows, build)):
            yield outcome
            if number == 1 and rows[0].id == self.victim:
                try:
                    os.close(os.open(self.mark, os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    continue
                os.kill(os.getpid(), signal.SIGKILL)  # in the middle of a shard, once

    def begin(self, build, rows):
        self.victim = list(rows)[8].id  # of the third shard

if __name__ == "__main__":
    build, units, mark, temporary = sys.argv[1:]
    ray.init(num_cpus=2, object_store_memory=80 * 2**20, include_dashboard=False, _temp_dir=temporary)
    after = "answer"
    for stage in [Dying(ASKING, ANSWERING, mark=mark), *stages_after_speech(Path(units))]:
        run_stage(stage, build, after, on_ray(2, cpus=0.5))
        after = stage.name
    finish_dataset(build)
    ray.shutdown()
"""


def stages_after_speech(units: Path) -> list[Stage]:
    """What follows the stage `speak`."""
    return [QuantiseStage(units), FilterStage(), WriteStage()]


def contents(build: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(build.rglob("*")):
        if path.is_file() and path.name != "lock":
            yield str(path.relative_to(build)), path.read_bytes()


@pytest.mark.slow
def test_a_worker_that_is_killed_changes_nothing(root: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("pyarrow") is None:
        pytest.skip("ray and pyarrow are not both installed: pip install '.[ray,data]'")
    some = rows(SHARDS * SHARD_ROWS)
    units = units_file(tmp_path / "units.safetensors")
    alone = written(tmp_path / "alone", some, SHARD_ROWS)
    after = "answer"
    for stage in [SpeakStage(ASKING, ANSWERING), *stages_after_speech(units)]:
        run_stage(stage, alone, after)
        after = stage.name
    finish_dataset(alone)

    together, mark = written(tmp_path / "together", some, SHARD_ROWS), tmp_path / "killed"
    temporary = tempfile.mkdtemp(prefix="ray")  # the path of a socket in it must be short
    # A token of this cluster's own, given so that Ray keeps none in the home directory; without "clusters of Windows or
    # OSX" it takes the loopback's address on any system, and listens to nobody else.
    env = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", "OMP_NUM_THREADS": "1",
                        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32),
                        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", CLUSTER, str(together), str(units), str(mark), temporary], cwd=root, env=env,
            capture_output=True, text=True, check=False, timeout=900)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert mark.exists()
    found, expected = dict(contents(together)), dict(contents(alone))
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    kept = [row.id for row in StageFolder(together, "write").rows()]
    rejected = [one["id"] for stage in ("speak", "quantise", "filter", "write")
                for one in StageFolder(together, stage).rejections()]
    assert sorted([*kept, *rejected]) == sorted(row.id for row in some)
    assert len(kept) > 5


@pytest.mark.parametrize("changes", [{"workers": 0}, {"workers": 1, "cpus": -1.0}, {"workers": 1, "gpus": -0.5}])
def test_numbers_that_make_no_sense(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="ray: found workers"):
        on_ray(**changes)  # type: ignore[arg-type]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "ray.data", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'omnivox\[ray,data\]'"):
        module.on_ray(2)
