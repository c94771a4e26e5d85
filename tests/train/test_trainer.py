"""The loop of both stages: it goes on bit for bit, and whatever ends it leaves a state to go on from."""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from omnivox.errors import ConfigError, DataError
from omnivox.train.settings import TrainingSettings
from omnivox.train.trainer import Stopped, Task, learning_rate, train

SETTINGS = TrainingSettings(lr=0.05, batch=4, micro_batch=2, epochs=2, precision="float32", workers=0, log_every=1,
                            evaluate_every=100, save_every=2, max_bad=1, seed=5)


@dataclass
class Points:
    names: tuple[str, ...]
    x: Tensor
    bad: tuple[tuple[str, str], ...] = ()

    @property
    def count(self) -> int:
        return len(self.x)

    def to(self, device: torch.device | str) -> Points:
        return self


class Net(nn.Module):
    def __init__(self, drop: float = 0.2) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(4, 8)
        self.drop = nn.Dropout(drop)
        self.out = nn.Linear(8, 1)

    def forward(self, batch: Points) -> dict[str, Tensor]:
        found = self.out(self.drop(self.layer(batch.x)))
        return {"loss": (found - batch.x.sum(1, keepdim=True)).square().sum(), "half": torch.tensor(batch.count / 2)}


class Data:
    """Rows by their number. at: a row's doing."""

    def __init__(self, at: dict[int, str] | None = None) -> None:
        self.at, self.seen = at or {}, list[int]()

    def __call__(self, rows: Sequence[int]) -> Points:
        bad = []
        for row in rows:
            self.seen.append(row)
            match self.at.get(row):
                case "TERM":
                    os.kill(os.getpid(), signal.SIGTERM)
                case "INT":
                    os.kill(os.getpid(), signal.SIGINT)
                case "bad":
                    bad.append((str(row), "no sound"))
                case "shard":
                    raise DataError("part-3.parquet: cut short")
        x = torch.stack([torch.randn(4, generator=torch.Generator().manual_seed(row)) for row in rows])
        if any(self.at.get(row) == "nan" for row in rows):
            x = x * float("nan")
        return Points(tuple(f"row {row}" for row in rows), x, tuple(bad))


def run(folder: Path, data: Data | None = None, drop: float = 0.2, **changes: object) -> nn.Module:
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
    return train(Task(Net(drop), data or Data(), [float(i % 7) for i in range(18)]), settings, folder)


def losses(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def row_of_step(step: int) -> int:
    """A row that the undisturbed run sees at this step for the first time."""
    from omnivox.train.batches import Batches

    batches = Batches([float(i % 7) for i in range(18)], 4, 5, SETTINGS.pool)
    earlier = {row for i in range(step) for row in batches.rows(i)}
    return next(row for row in batches.rows(step) if row not in earlier and batches.rows(step).count(row) == 1)


@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_a_signal_ends_after_the_step_and_the_run_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match=rf"SIG{name}: stopped before step 3; the same command goes on"):
        run(tmp_path / "broken", Data({row_of_step(3): name}))
    assert signal.getsignal(signal.SIGTERM) is handler
    data = Data()
    assert equal(run(tmp_path / "broken", data), whole)
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "whole")) == 10
    assert len(data.seen) == 4 * 7  # nothing before step 3 is read again


def test_a_run_that_is_done_is_done(tmp_path: Path) -> None:
    whole, data = run(tmp_path / "run"), Data()
    assert equal(run(tmp_path / "run", data), whole)
    assert data.seen == []


def test_a_loss_that_is_no_number_keeps_the_state_before_it(tmp_path: Path) -> None:
    bad = row_of_step(3)
    with pytest.raises(DataError, match=rf"step 3 has the loss nan .*row {bad}.*--set stage1.skip=3"):
        run(tmp_path / "run", Data({bad: "nan"}))
    assert [path.name for path in (tmp_path / "run").glob("step-*")] == ["step-00000003"]
    run(tmp_path / "run", steps=5, skip=(3,))
    assert max(losses(tmp_path / "run")) == 5


def test_bad_rows_are_counted_up_to_a_limit(tmp_path: Path) -> None:
    run(tmp_path / "one", Data({1: "bad"}))
    log = (tmp_path / "one" / "log.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["bad_rows"] == 1
    with pytest.raises(DataError, match=r"2 rows cannot be used, more than max_bad allows \(1\); the first, row \d"):
        run(tmp_path / "two", Data({1: "bad", 2: "bad"}))
    assert list((tmp_path / "two").glob("step-*"))


def test_a_corrupt_shard_is_named_and_the_state_kept(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"part-3.parquet: cut short"):
        run(tmp_path / "run", Data({row_of_step(2): "shard"}))
    assert [path.name for path in (tmp_path / "run").glob("step-*")] == ["step-00000002"]


def test_a_full_disk_keeps_the_last_state(tmp_path: Path) -> None:
    run(tmp_path / "run", steps=2)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))  # the state takes more
    try:
        with pytest.raises(OSError, match=r"step-00000004: cannot be written .*step-00000002 is kept. Make"):
            run(tmp_path / "run", steps=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    assert {path.name for path in (tmp_path / "run").iterdir() if path.is_dir()} == {"step-00000002"}
    assert equal(run(tmp_path / "run", steps=4), run(tmp_path / "other", steps=4))


def test_a_state_of_another_model_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "run", steps=2)
    task = Task(nn.ModuleDict({"layer": nn.Linear(5, 8)}), Data(), [1.0] * 8)
    with pytest.raises(DataError, match=r"does not fit the recipe: layer.weight is .*8, 4.*expected .*8, 5"):
        train(task, SETTINGS, tmp_path / "run")


def test_a_cut_state_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "run", steps=2)
    state = tmp_path / "run" / "step-00000002" / "state.pt"
    state.write_bytes(state.read_bytes()[:500])
    with pytest.raises(DataError, match="cannot be gone on from"):
        run(tmp_path / "run", steps=4)


def test_micro_batches_add_up_to_the_batch(tmp_path: Path) -> None:
    whole, parts = (run(tmp_path / str(micro), micro_batch=micro, drop=0.0) for micro in (4, 1))
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value)
    assert list(losses(tmp_path / "1").values()) == pytest.approx(list(losses(tmp_path / "4").values()), rel=1e-4)
    with pytest.raises(ConfigError, match=r"expected a multiple of micro_batch x processes = 3"):
        run(tmp_path / "odd", micro_batch=3)


def test_loading_in_other_processes_changes_nothing(tmp_path: Path) -> None:
    assert equal(run(tmp_path / "here"), run(tmp_path / "there", workers=2))


def test_trackers_are_given_what_is_logged(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the tracker needs tensorboard")
    run(tmp_path / "run", steps=2, trackers=("tensorboard",))
    assert list((tmp_path / "run").rglob("events.out.tfevents*"))
    with pytest.raises(ConfigError, match="accelerate"):
        run(tmp_path / "other", steps=2, trackers=("abacus",))


@pytest.mark.slow
def test_weights_and_biases_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the tracker needs wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    run(tmp_path / "run", steps=2, trackers=("wandb",))
    assert list(tmp_path.rglob("*.wandb"))


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_learning_rates_rise_and_fall(schedule: str) -> None:
    settings = replace(SETTINGS, schedule=schedule, warmup=0.1, lr=1.0)  # type: ignore[arg-type]
    rates = [learning_rate(settings, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10] == pytest.approx(1.0)
    assert (rates[-1] < 0.02) == (schedule != "constant")
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
