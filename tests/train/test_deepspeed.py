"""DeepSpeed, two processes on a CPU (gloo): losses as of one, states to go on from, weights complete; and its
configuration against the settings."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import omnivox
from omnivox.errors import ConfigError, DataError
from omnivox.train import zero
from omnivox.train.settings import TrainingSettings
from omnivox.train.trainer import Task, train
from tests.checkpoint import published
from tests.train import processes, spoken, zero_processes
from tests.train.test_docs import tiny
from tests.train.test_processes import log, losses, states

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--use_deepspeed", "--num_processes", "2",
          "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
installed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
ZERO = ["zero1", "zero2", "zero3"]


def config(path: Path, **changes: Any) -> Path:
    stage = {"stage": int(path.stem[-1])}
    if stage["stage"] == 3:
        stage["stage3_param_persistence_threshold"] = 0  # so that the tiny tensors are shared out too
    path.write_text(json.dumps({"zero_optimization": stage} | changes))
    return path


def launched(configuration: Path, *words: str | Path) -> None:
    done = subprocess.run([*LAUNCH, "--deepspeed_config_file", str(configuration), *map(str, words)],
                          env=os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}, capture_output=True,
                          text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one process, and of two under each ZeRO: one launch for all, for it is the imports that take time."""
    out = tmp_path_factory.mktemp("runs")
    first, *_ = [config(out / f"{name}.json") for name in ZERO]
    launched(first, zero_processes.__file__, processes.parts(out / "parts"), out)
    recipe = spoken.recipe_of(out / "parts", seed=3)
    processes.run(recipe, out / "one")
    processes.run(recipe, out / "one-skipped", skip=(processes.STOP,))
    processes.run(recipe, out / "one-lora", tune="lora", lora_rank=2)
    processes.run(recipe, out / "one-unclipped", clip=1e9)
    return out


@installed
@pytest.mark.slow
@pytest.mark.parametrize("name", ZERO)
def test_losses_and_rates_are_those_of_one_process(runs: Path, name: str) -> None:
    one, two = ([line for line in log(folder) if "lr" in line] for folder in (runs / "one", runs / name / "whole"))
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-4)
    assert [line["lr"] for line in two] == [line["lr"] for line in one]
    assert len({line["lr"] for line in two}) > 2
    assert losses(runs / "one-unclipped") != pytest.approx(losses(runs / "one"), rel=1e-3)  # so clipping is seen
    held = [line["held_loss"] for folder in (runs / "one", runs / name / "whole") for line in log(folder)
            if "held_loss" in line]
    assert held[1] == pytest.approx(held[0], rel=1e-4)


@installed
@pytest.mark.slow
def test_low_rank_additions_among_frozen_weights_that_are_shared_out(runs: Path) -> None:
    assert losses(runs / "lora") == pytest.approx(losses(runs / "one-lora"), rel=1e-4)


@installed
@pytest.mark.slow
@pytest.mark.parametrize("name", ZERO[1:])
def test_stopped_by_one_process_they_go_on_bit_for_bit(runs: Path, name: str) -> None:
    assert losses(runs / name / "broken") == losses(runs / name / "whole")
    whole, broken = (torch.load(runs / name / kind / "weights.pt") for kind in ("whole", "broken"))
    assert whole.keys() == broken.keys()
    assert all(torch.equal(value, broken[name]) for name, value in whole.items())


@installed
@pytest.mark.slow
@pytest.mark.parametrize("name", ZERO[1:])
def test_weights_are_whole_and_those_of_one_process(runs: Path, name: str) -> None:
    state = torch.load(next((runs / "one").glob("step-*/state.pt")), weights_only=True)["weights"]
    weights = torch.load(runs / name / "whole" / "weights.pt")
    assert state.keys() - weights.keys() <= {"llm.lm_head.weight"}  # where it is the embeddings
    for key, value in weights.items():
        torch.testing.assert_close(value, state[key], rtol=1e-3, atol=1e-5)


@installed
@pytest.mark.slow
@pytest.mark.parametrize("name", ZERO[1:])
def test_what_is_no_number_is_not_applied(runs: Path, name: str) -> None:
    for kind, loss in (("nan", "nan"), ("boundless", r"\d")):
        folder = runs / name / kind
        for rank in range(2):
            said = (folder / f"refused-{rank}.txt").read_text()
            assert re.search(rf"step {processes.STOP} has the loss {loss}.* of norm nan, .*was not applied", said), said
        assert losses(folder) == pytest.approx(losses(runs / "one-skipped"), rel=1e-4)


@installed
@pytest.mark.slow
def test_without_room_on_one_process_all_keep_the_last_state(runs: Path) -> None:
    for rank in range(2):
        said = (runs / "full" / f"refused-{rank}.txt").read_text()
        assert "cannot be written" in said
        assert f"step-{processes.STOP:08} is kept" in said
    assert losses(runs / "full")[-2:] == losses(runs / "zero3" / "whole")[-2:]


@installed
@pytest.mark.slow
@pytest.mark.parametrize("name", ZERO)
def test_bfloat16_follows_float32_and_learns_in_float32(runs: Path, name: str) -> None:
    found = losses(runs / name / "bfloat16")
    assert found == pytest.approx(losses(runs / "one"), rel=0.03)
    assert found != losses(runs / name / "whole")
    assert json.loads((runs / name / "bfloat16" / "dtypes.json").read_text()) == ["torch.float32"]


@installed
@pytest.mark.slow
def test_a_state_of_deepspeed_is_not_for_others(runs: Path) -> None:
    with pytest.raises(DataError, match="was written under DeepSpeed; go on as it was begun"):
        processes.run(spoken.recipe_of(runs / "parts", seed=3), runs / "zero2" / "stopped")


@installed
@pytest.mark.slow
def test_the_command_runs_under_accelerate(tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "omnivox"
    if not script.exists():
        pytest.skip("the console script is not installed")
    spoken.recipe(tmp_path / "parts")
    data, vocoder = spoken.write(tmp_path / "data", 12), published.unit_vocoder(tmp_path / "vocoder", spoken.UNITS)
    for step, precision in (("stage1", "float32"), ("stage2", "bfloat16")):
        line = ["omnivox", "train", "llama-omni-1b", step, "--data", str(data), "--work", str(tmp_path / "run"),
                "--set", f"{step}.parallel=deepspeed", "--set", f"{step}.precision={precision}"]
        line += ["--vocoder", str(vocoder)] if step == "stage2" else []
        words = tiny(shlex.join(line), tmp_path / "parts")
        launched(config(tmp_path / "zero3.json"), "--no_python", script,
                 *[word.replace("micro_batch=2", "micro_batch=1") for word in words])
    *_, done = omnivox.load(tmp_path / "run" / "stage2" / "model").respond(
        spoken.conversation(0).turns[0].question, max_new_tokens=2)
    assert isinstance(done, omnivox.Done)
    assert done.reply.sample_rate == 16_000
    assert list((tmp_path / "run" / "stage2" / "samples").rglob("*.txt"))
    assert states(tmp_path / "run" / "stage2") == ["step-00000002"]


# -- its configuration ------------------------------------------------------------------------------------------------

SETTINGS = TrainingSettings(batch=8, micro_batch=2, clip=0.5, precision="bfloat16", parallel="deepspeed", workers=0)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As accelerate's launcher leaves it for each of two processes."""
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("WORLD_SIZE", "2")


@installed
def test_the_settings_complete_the_configuration(asked: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auto = {"train_batch_size": "auto", "gradient_clipping": "auto", "bf16": {"enabled": "auto"},
            "zero_optimization": {"stage": 3, "reduce_bucket_size": "auto", "overlap_comm": False}}
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(config(tmp_path / "zero3.json", **auto)))
    found = zero.plugin_of(SETTINGS).deepspeed_config
    assert found["zero_optimization"] == {"stage": 3, "overlap_comm": False}
    assert (found["train_batch_size"], found["train_micro_batch_size_per_gpu"]) == (8, 2)
    assert (found["gradient_accumulation_steps"], found["gradient_clipping"]) == (2, 0.5)
    assert (found["bf16"]["enabled"], found["fp16"]["enabled"]) == (True, False)
    assert found["data_types"] == {"grad_accum_dtype": "fp32"}


@installed
@pytest.mark.parametrize(("said", "match"), [
    ({"train_batch_size": 16}, r"train_batch_size is 16, but batch makes it 8; write \"auto\" there"),
    ({"gradient_accumulation_steps": 4}, r"gradient_accumulation_steps is 4, but .* makes it 2"),
    ({"gradient_clipping": 1.0}, r"gradient_clipping is 1.0, but clip makes it 0.5"),
    ({"fp16": {"enabled": True}}, "fp16.enabled is True, but precision makes it False"),
    ({"bf16": {"enabled": False}}, "bf16.enabled is False, but precision makes it True"),
    ({"optimizer": {"type": "Adam"}}, "optimizer is given; expected none"),
    ({"scheduler": {"type": "WarmupLR"}}, "scheduler is given; expected none"),
    ({"bf16": {"enabled": True, "check_grad_overflow": False}}, "bf16.check_grad_overflow is false; expected true"),
    ({"zero_optimization": {"stage": 0}}, "zero_optimization.stage is 0; expected 1, 2 or 3"),
])
def test_a_configuration_that_contradicts_the_settings(asked: None, said: dict[str, Any], match: str, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(config(tmp_path / "zero2.json", **said)))
    with pytest.raises(ConfigError, match=match):
        zero.plugin_of(SETTINGS)


@installed
def test_a_configuration_that_cannot_be_read(asked: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(tmp_path / "none.json"))
    with pytest.raises(ConfigError, match=r"DeepSpeed's configuration: .*none.json"):
        zero.plugin_of(SETTINGS)


def test_deepspeed_has_to_be_launched(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="accelerate was launched without DeepSpeed; start it by `accelerate launch"):
        train(Task(torch.nn.Linear(1, 1), list, [1.0] * 8), SETTINGS, tmp_path)


def test_another_way_than_what_was_launched(asked: None, tmp_path: Path) -> None:
    settings = TrainingSettings(parallel="fsdp2")
    with pytest.raises(ConfigError, match="parallel: 'fsdp2', but accelerate was launched with DeepSpeed"):
        train(Task(torch.nn.Linear(1, 1), list, [1.0] * 8), settings, tmp_path)


def test_deepspeed_has_to_be_installed(asked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="launched with DeepSpeed, which is not installed; pip install deepspeed"):
        zero.plugin_of(SETTINGS)
