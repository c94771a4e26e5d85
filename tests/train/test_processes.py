"""Two processes (gloo) under DDP and FSDP2: losses as of one, within rounding; stopped, they go on bit for bit."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import omnivox
from tests.train import processes, spoken
from tests.train.test_docs import tiny

pytestmark = pytest.mark.slow
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SCRIPT = Path(sys.executable).parent / "omnivox"


def launched(*words: str | Path) -> None:
    done = subprocess.run([*LAUNCH, *map(str, words)], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True,
                          text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one process, and of two: one launch for all, for it is the imports that take time."""
    out = tmp_path_factory.mktemp("runs")
    launched(processes.__file__, processes.parts(out / "parts"), out)
    processes.run(spoken.recipe_of(out / "parts", seed=3), out / "one")
    return out


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in log(folder) if "loss" in line]


def states(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("step-*"))


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_losses_are_those_of_one_process(runs: Path, parallel: str) -> None:
    assert len(losses(runs / "one")) == processes.STEPS
    assert losses(runs / parallel / "whole") == pytest.approx(losses(runs / "one"), rel=1e-4)
    held = [line["held_loss"] for folder in (runs / "one", runs / parallel / "whole") for line in log(folder)
            if "held_loss" in line]
    assert held[1] == pytest.approx(held[0], rel=1e-4)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_stopped_by_one_process_they_go_on_bit_for_bit(runs: Path, parallel: str) -> None:
    assert losses(runs / parallel / "broken") == losses(runs / parallel / "whole")
    whole, broken = (torch.load(runs / parallel / name / "weights.pt") for name in ("whole", "broken"))
    assert whole.keys() == broken.keys()
    assert all(torch.equal(value, broken[name]) for name, value in whole.items())


def test_bad_rows_are_counted_over_all_processes(runs: Path) -> None:
    recipe, bad = spoken.recipe_of(runs / "parts", seed=3), len(processes.BAD)
    processes.run(recipe, runs / "one-bad", data=processes.spoilt(), max_bad=bad)
    for folder in ("one-bad", "bad"):
        assert max(line.get("bad_rows", 0) for line in log(runs / folder)) == bad
    processes.refused(recipe, runs / "one-worse", data=processes.spoilt(), max_bad=bad - 1)
    for folder, ranks in (("one-worse", 1), ("worse", 2)):
        for rank in range(ranks):
            assert f"{bad} rows cannot be used" in (runs / folder / f"refused-{rank}.txt").read_text()
    assert states(runs / "worse") == states(runs / "one-worse") != []


def test_low_rank_additions_in_bfloat16_among_layers_that_are_shared_out(runs: Path) -> None:
    processes.run(spoken.recipe_of(runs / "parts", seed=3), runs / "one-lora", **processes.ROUNDED)
    assert losses(runs / "lora") == pytest.approx(losses(runs / "one-lora"), rel=1e-2)
    assert len(losses(runs / "lora")) == processes.STEPS


def test_one_process_goes_on_from_the_state_of_two(runs: Path) -> None:
    for parallel in ("ddp", "fsdp2"):
        processes.run(spoken.recipe_of(runs / "parts", seed=3), runs / parallel / "stopped")
        assert losses(runs / parallel / "stopped") == pytest.approx(losses(runs / "one"), rel=1e-4)
        samples = [(folder / "samples" / "step-00000004" / "0.txt").read_text()
                   for folder in (runs / "one", runs / parallel / "whole")]
        assert samples[0] == samples[1]


def test_the_command_runs_under_torchrun(tmp_path: Path) -> None:
    if not SCRIPT.exists():
        pytest.skip("the console script is not installed")
    spoken.recipe(tmp_path / "parts")
    data = spoken.write(tmp_path / "data", 6)
    for step, own in (("stage1", ["--set", "stage1.parallel=fsdp2"]), ("stage2", ["--set", "stage2.shard_rows=2"])):
        line = ["omnivox", "train", "llama-omni-1b", step, "--data", str(data), "--work", str(tmp_path / "run"), *own]
        words = tiny(shlex.join(line), tmp_path / "parts")
        launched("--no-python", SCRIPT, *[word.replace("micro_batch=2", "micro_batch=1") for word in words])
    *_, done = omnivox.load(tmp_path / "run" / "stage2" / "model").respond(
        spoken.conversation(0).turns[0].question, max_new_tokens=2, speak=False)
    assert isinstance(done, omnivox.Done)
    shards = sorted(path.name for path in (tmp_path / "run" / "states").rglob("*.safetensors"))
    assert shards[:3] == ["shard-00000.safetensors", "shard-00001.safetensors", "shard-00002.safetensors"]
