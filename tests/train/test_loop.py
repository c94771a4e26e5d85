"""A run that is killed goes on as if nothing had been; what cannot go on says why."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from omnivox.errors import DataError
from omnivox.train.loop import Losses, Run, Schedule, prepared, train

SCHEDULE = Schedule(steps=6, lr=0.1, warmup=2, log_every=2)


@dataclass(frozen=True)
class Settings:
    seed: int = 3


def start(folder: Path, width: int = 4) -> Run:
    torch.manual_seed(0)
    return Run(folder, {"net": nn.Linear(width, 1)}, SCHEDULE, Settings())


def losses_of(run: Run, stop: int | None = None, bad: int | None = None):  # type: ignore[no-untyped-def]
    def losses(step: int) -> Losses:
        if step == stop:
            raise KeyboardInterrupt
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        loss = (run.modules["net"](x) - x.sum(1, keepdim=True)).square().mean()
        return {"loss": loss * (float("nan") if step == bad else 1.0)}

    return losses


def test_an_interrupted_run_ends_bit_for_bit_as_an_undisturbed_one(tmp_path: Path) -> None:
    whole = start(tmp_path / "whole")
    train(whole, losses_of(whole))
    broken = start(tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        train(broken, losses_of(broken, stop=3))
    resumed = start(tmp_path / "broken")
    assert resumed.step == 3
    train(resumed, losses_of(resumed))
    for name, value in whole.modules["net"].state_dict().items():
        assert torch.equal(value, resumed.modules["net"].state_dict()[name]), name


def test_sigterm_saves_before_it_ends(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    plain = losses_of(run)

    def losses(step: int) -> Losses:
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(step)

    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        train(run, losses)
    assert start(tmp_path / "run").step == 4
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    first, second = start(tmp_path / "run"), start(tmp_path / "run")
    plain = losses_of(first)

    def losses(step: int) -> Losses:
        if step == 2:
            with pytest.raises(DataError, match="another process is training here"):
                train(second, losses_of(second))
        return plain(step)

    train(first, losses)
    assert start(tmp_path / "run").step == 6


def test_batches_made_ahead_are_those_of_the_steps_to_come(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    run.step = 2
    batches = prepared(run, lambda step: torch.full((2,), step))
    assert [int(batch[0]) for batch in batches] == [2, 3, 4, 5]


def test_an_error_that_nobody_catches_ends_the_process_that_makes_batches(tmp_path: Path) -> None:
    """It ignores the signal by which multiprocessing would end it, and would be waited for without an end."""
    script = tmp_path / "script.py"
    script.write_text("from types import SimpleNamespace\nfrom omnivox.train.loop import Schedule, prepared\n"
                      "def main():\n"
                      "    batches = prepared(SimpleNamespace(step=0, schedule=Schedule(100, 0.1)), int)\n"
                      "    raise RuntimeError(f'after {next(batches)}')\n"
                      "if __name__ == '__main__':\n    main()\n")
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 1
    assert ended.stderr.strip().splitlines()[-1] == "RuntimeError: after 0"


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_what_was_learnt(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    with pytest.raises(DataError, match="loss of step 4 is nan"):
        train(run, losses_of(run, bad=4))
    resumed = start(tmp_path / "run")
    assert resumed.step == 4
    assert all(value.isfinite().all() for value in resumed.modules["net"].state_dict().values())


def test_a_gradient_that_is_no_number_is_not_applied(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    plain = losses_of(run)

    def losses(step: int) -> Losses:  # the root of zero: finite, with an infinite slope
        weight = run.modules["net"].weight
        return {"loss": plain(step)["loss"] + ((weight - weight.detach()).square().sum().sqrt() if step == 4 else 0)}

    with pytest.raises(DataError, match="gradient of step 4 has the norm nan"):
        train(run, losses)
    resumed = start(tmp_path / "run")
    assert resumed.step == 4
    assert all(value.isfinite().all() for value in resumed.modules["net"].state_dict().values())


def test_a_signal_during_an_update_leaves_it_whole(tmp_path: Path) -> None:
    whole = start(tmp_path / "whole")
    train(whole, losses_of(whole))
    broken = start(tmp_path / "broken")
    update, updates = broken.optimiser.step, []

    def interrupted() -> None:
        update()
        updates.append(broken.step)
        if len(updates) == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    broken.optimiser.step = interrupted  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        train(broken, losses_of(broken))
    resumed = start(tmp_path / "broken")
    assert resumed.step == 4
    train(resumed, losses_of(resumed))
    for name, value in whole.modules["net"].state_dict().items():
        assert torch.equal(value, resumed.modules["net"].state_dict()[name]), name


def test_a_checkpoint_of_other_sizes_is_refused(tmp_path: Path) -> None:
    start(tmp_path / "run").save()
    with pytest.raises(DataError, match=r"checkpoint\.pt: does not fit the recipe"):
        start(tmp_path / "run", width=5)


def test_the_log_has_a_line_for_each_interval_and_no_file_is_half_written(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    train(run, losses_of(run), lambda: {"score": 0.5})
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 6]
    assert lines[-1]["score"] == 0.5
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["checkpoint.pt", "config.json", "lock",
                                                                      "log.jsonl"]


def test_the_schedule_warms_up_and_comes_down() -> None:
    factors = [Schedule(steps=100, lr=1.0, warmup=10, final=0.1).factor(step) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == pytest.approx(1.0)
    assert factors[100] == pytest.approx(0.1)
    assert factors[10:] == sorted(factors[10:], reverse=True)
