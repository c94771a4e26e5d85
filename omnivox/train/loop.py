"""One training loop: steps that depend on (seed, step) alone, so that a run killed anywhere goes on from there.

A run's folder holds `checkpoint.pt` (modules, optimiser, step; replaced atomically), `config.json` and `log.jsonl`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset

from omnivox.errors import DataError
from omnivox.stopping import stoppable
from omnivox.train.progress import Bar
from omnivox.train.signals import Signals, batches_of, ignore_signals
from omnivox.writing import alone, atomic


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to `lr`, then a cosine to `final` times it."""

    steps: int
    lr: float
    warmup: int = 100
    final: float = 0.02
    weight_decay: float = 0.01
    clip: float = 1.0
    save_seconds: float = 60.0
    log_every: int = 50
    evaluate_every: int = 500

    def factor(self, step: int) -> float:
        """The learning rate of a step over the peak."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


@contextmanager
def fast_precision(fused_attention: bool = False) -> Iterator[None]:
    """Products in bfloat16 where the CPU has them (up to five times as fast), float32 elsewhere; weights and losses
    stay in float32. Attention by plain products: torch's fused one is slow backwards over short sequences."""
    backend = SDPBackend.FLASH_ATTENTION if fused_attention else SDPBackend.MATH
    with sdpa_kernel(backend), torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported()):
        yield


Batch = TypeVar("Batch")


class _Steps(Dataset[Batch]):
    def __init__(self, batch_of: Callable[[int], Batch], steps: int) -> None:
        self.batch_of, self.steps = batch_of, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        with torch.no_grad():
            return self.batch_of(step)


def prepared(run: Run, batch_of: Callable[[int], Batch]) -> Iterator[Batch]:
    """`batch_of(step)` from the run's step on, made ahead by a process of its own: on another core, that is free."""
    todo = range(run.step, run.schedule.steps)
    if not todo:
        return iter(())
    loader = DataLoader(_Steps(batch_of, run.schedule.steps), batch_size=None, sampler=todo, num_workers=1,
                        prefetch_factor=8, worker_init_fn=ignore_signals)
    return batches_of(loader)


Losses = Mapping[str, Tensor]
"""Named scalars of a step; "loss" is the one that is minimised."""


class Run:
    """The modules being trained, their optimiser, and where both are kept."""

    def __init__(self, folder: Path, modules: dict[str, nn.Module], schedule: Schedule, config: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.modules, self.schedule = folder, modules, schedule
        parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
        matrices = [p for p in parameters if p.ndim > 1]
        others = [p for p in parameters if p.ndim <= 1]
        self.parameters = parameters
        self.optimiser = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": schedule.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=schedule.lr, betas=(0.9, 0.98))
        self.step = 0
        settings = json.dumps(asdict(config), indent=1, default=str)
        self._resume(settings)

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def _resume(self, settings: str) -> None:
        if self._checkpoint.exists():
            saved = torch.load(self._checkpoint, weights_only=True)
            try:
                for name, module in self.modules.items():
                    module.load_state_dict(saved["modules"][name])
                self.optimiser.load_state_dict(saved["optimiser"])
            except (KeyError, RuntimeError, ValueError) as error:
                raise DataError(f"{self._checkpoint}: does not fit the recipe ({error}); "
                                "remove the folder to start again") from error
            self.step = saved["step"]
        with atomic(self.folder / "config.json") as path:
            path.write_text(settings)

    def save(self) -> None:
        """Replace the checkpoint by the present state."""
        state = {"modules": {name: module.state_dict() for name, module in self.modules.items()},
                 "optimiser": self.optimiser.state_dict(), "step": self.step}
        with atomic(self._checkpoint) as path:
            torch.save(state, path)

    def log(self, **values: float | int | str) -> None:
        """Append a line to the log."""
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": self.step, **values}) + "\n")


def train(run: Run, losses_of: Callable[[int], Losses], evaluate: Callable[[], dict[str, float]] | None = None) -> None:
    """Run the schedule to its end. `losses_of(step)` must depend on nothing but the step and the modules."""
    schedule = run.schedule
    saved, sums, count = time.monotonic(), dict[str, float](), 0
    with alone(run.folder, "training"), stoppable(), Bar(run.folder.name, schedule.steps, run.step) as bar:
        try:
            while run.step < schedule.steps:
                values = _step(run, losses_of(run.step))
                for name, value in values.items():
                    sums[name] = sums.get(name, 0.0) + value
                count += 1
                if run.step % schedule.log_every == 0:
                    means = {name: round(total / count, 4) for name, total in sums.items()}
                    run.log(**means, lr=run.optimiser.param_groups[0]["lr"], cpu=round(time.process_time(), 1))
                    bar.show(run.step, means["loss"])
                    sums, count = {}, 0
                bar.show(run.step)
                if evaluate and (run.step % schedule.evaluate_every == 0 or run.step == schedule.steps):
                    run.log(**evaluate())
                if time.monotonic() - saved > schedule.save_seconds:
                    run.save()
                    saved = time.monotonic()
        finally:
            run.save()


def _step(run: Run, losses: Losses) -> dict[str, float]:
    """One update; its losses as numbers."""
    loss = losses["loss"]
    values = {name: float(value.detach()) for name, value in losses.items()}
    if not math.isfinite(values["loss"]):
        raise DataError(f"{run.folder}: the loss of step {run.step} is {values['loss']}; the last checkpoint is kept")
    for group in run.optimiser.param_groups:
        group["lr"] = run.schedule.lr * run.schedule.factor(run.step)
    run.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = float(torch.nn.utils.clip_grad_norm_(run.parameters, run.schedule.clip))
    if not math.isfinite(norm):
        raise DataError(f"{run.folder}: the gradient of step {run.step} has the norm {norm}; it was not applied, and "
                        "the state before it is kept")
    with Signals() as signals:  # the weights and the count of their updates go together
        run.optimiser.step()
        run.step += 1
    if signals.name:
        raise KeyboardInterrupt(signals.name)
    return values
