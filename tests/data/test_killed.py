"""`kill -9` between and within the stages from speech on: the next run ends as one that was never killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.data.speaking import Reply, rows, serving, spoken, units_file, written
from tests.data.test_ray import contents

RUN = """
import sys
from pathlib import Path
from omnivox.data.card import finish_dataset
from omnivox.data.filter import FilterSettings, FilterStage
from omnivox.data.quantise import QuantiseStage
from omnivox.data.speak import SpeakStage
from omnivox.data.stage import run_stage
from omnivox.data.tts_server import SpeechServer
from omnivox.data.write import WriteStage

build, units, url = sys.argv[1:]
print("begin", flush=True)
speak = SpeakStage(SpeechServer(url, "tts", {"female": ("nova",), "male": ("onyx",)}),
                   SpeechServer(url, "tts", {"any": ("one",)}))
after = "answer"
for stage in [speak, QuantiseStage(units), FilterStage(FilterSettings(clipped=1.0)), WriteStage()]:
    run_stage(stage, build, after)
    after = stage.name
finish_dataset(build)
"""


@pytest.mark.slow
def test_killed_again_and_again(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install '.[data]'")
    some, units = rows(9), units_file(tmp_path / "units.safetensors")
    process: subprocess.Popen[bytes] | None = None
    fatal: set[int] = set()

    def answer(body: dict[str, Any], number: int) -> Reply:
        if number in fatal and process is not None:
            os.kill(process.pid, signal.SIGKILL)
        return spoken(body)

    def run(build: Path, url: str, seconds: float = 600) -> int:
        nonlocal process
        process = subprocess.Popen([sys.executable, "-c", RUN, str(build), str(units), url], cwd=root,
                                   env=os.environ | {"PYTHONPATH": str(root)}, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL)
        assert process.stdout is not None
        with process.stdout as output:
            output.readline()  # it has imported everything
            killer = threading.Timer(seconds, process.kill)
            killer.start()
            try:
                output.read()
                return process.wait()
            finally:
                killer.cancel()

    with serving(answer) as (url, api):
        assert run(written(tmp_path / "whole", some), url) == 0
        assert len(api.bodies) == 18
        api.bodies.clear()
        fatal |= {4, 13}  # in the middle of speaking, twice
        build = written(tmp_path / "killed", some)
        assert run(build, url) == -signal.SIGKILL
        assert run(build, url) == -signal.SIGKILL
        assert run(build, url, random.Random(os.getpid()).uniform(0.0, 0.5)) in (0, -signal.SIGKILL)  # anywhere
        assert run(build, url) == 0
        asked = [(body["input"], body["voice"]) for body in api.bodies]
        lost = 3 * 4  # at most: those under way at each kill
        assert 18 <= len(asked) <= 18 + lost
        assert len(set(asked)) == 18
    assert [name for name, _ in contents(build)] == [name for name, _ in contents(tmp_path / "whole")]
    assert dict(contents(build)) == dict(contents(tmp_path / "whole"))
