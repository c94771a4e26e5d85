"""The loop that trains either stage of any model, on one process or many.

Everything random in a step comes from (seed, step, process): a run that is killed anywhere goes on bit for bit from its
newest state, and needs to remember weights, optimiser and step alone. A run's folder:

    config.json      all settings, and what else whoever started it wants kept
    log.jsonl        losses, a line each `log_every` steps
    step-00000500    the newest state
    samples/         answers as they came to sound
"""

from __future__ import annotations

import json
import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from omnivox.errors import DataError
from omnivox.train.batches import Batches, Share
from omnivox.train.parallel import Processes, latest, load_state, save_state
from omnivox.train.progress import Bar
from omnivox.train.settings import TrainingSettings
from omnivox.train.signals import Signals, batches_of, ignore_signals
from omnivox.writing import alone, atomic

log = logging.getLogger(__name__)


class Batch(Protocol):
    """What a module learns from at once. count: of what its loss is a sum over; bad: rows left out, and why."""

    names: tuple[str, ...]
    bad: tuple[tuple[str, str], ...]

    @property
    def count(self) -> int:
        """Tokens or units."""

    def to(self, device: torch.device | str) -> Self:
        """On another device."""


Sums = Mapping[str, Tensor]
"""What a module gives for a batch: "loss", a sum that is differentiated; others over "name" and "name_of": their base.
"""


@dataclass
class Task:
    """What is to be learnt.

    module: batch → Sums. batch_of: rows → batch, in loading processes. lengths: of each row, for buckets.
    held: batches for the held-out loss. blocks: kinds of layers that FSDP2 gathers one by one.
    show: writes samples into a folder, every process taking part. watch: is given each step's means.
    """

    module: nn.Module
    batch_of: Callable[[Sequence[int]], Any]
    lengths: Sequence[float]
    held: Callable[[], Iterator[Any]] | None = None
    blocks: tuple[type[nn.Module], ...] = ()
    show: Callable[[Path], None] | None = None
    watch: Callable[[int, dict[str, float]], None] | None = None


class Stopped(KeyboardInterrupt):
    """A signal ended the run; its state is kept."""


def train(task: Task, settings: TrainingSettings, folder: Path, config: Any = None) -> nn.Module:
    """Train, or go on, to the end of the settings' steps; gives the module as it was shared out among processes.

    Raises DataError (a loss that is no number, too many bad rows), OSError (no room for a state) and Stopped; in each
    case the newest good state is in `folder`, and the same call goes on from there.
    """
    processes = Processes(settings, folder)
    if processes.main:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic(folder / "config.json") as path:
            path.write_text(json.dumps(asdict(config if config is not None else settings), indent=1) + "\n")
    processes.wait()
    with alone(folder, "training") if processes.main else nullcontext():
        return _Training(task, settings, folder, processes).run()


class _Training:
    """One call of `train`."""

    def __init__(self, task: Task, settings: TrainingSettings, folder: Path, processes: Processes) -> None:
        self.task, self.settings, self.folder, self.processes = task, settings, folder, processes
        self.batches = Batches(task.lengths, settings.batch, settings.seed, settings.pool)
        self.share = Share(settings.micro_batch, processes.rank, processes.world)
        self.micros = len(self.share.of(range(settings.batch)))
        self.steps = settings.steps or self.batches.per_epoch * settings.epochs
        torch.manual_seed(settings.seed)
        module = processes.prepare(task.module, task.blocks)
        self.module, self.optimiser = processes.with_optimiser(module, _optimiser(module, settings))
        self.step, self.bad = 0, dict[str, str]()
        self.signals = Signals()

    def run(self) -> nn.Module:
        """To the end."""
        if (state := latest(self.folder)) is not None:
            self.step = load_state(self.processes, state, self.module, self.optimiser)
        accelerator = self.processes.accelerator
        if self.settings.trackers:
            accelerator.init_trackers("omnivox", config=_flat(asdict(self.settings)))
        try:
            with self.signals, Bar(self.folder.name, self.steps, self.step, self.processes.main) as bar:
                self._loop(bar)
        finally:
            for tracker in accelerator.trackers:  # end_training would also end what the processes talk through
                tracker.finish()
        return self.module

    def _loop(self, bar: Bar) -> None:
        settings, sums, since = self.settings, dict[str, float](), time.monotonic()
        micros = self._micro_batches()
        while self.step < self.steps:
            batches, failure = self._next(micros)
            total = self._agree(batches, failure)
            for name, value in self._update(batches, total).items():
                sums[name] = sums.get(name, 0.0) + value
            self.step += 1
            if sums and (self.step % settings.log_every == 0 or self.step == self.steps):
                means = _means(sums)
                took = time.monotonic() - since
                self._log(**means, lr=self._lr(self.step - 1), targets_per_second=round(sums["loss_of"] / took, 1),
                          bad_rows=len(self.bad))
                if self.task.watch:
                    self.task.watch(self.step, means)
                bar.show(self.step, means["loss"])
                sums, since = {}, time.monotonic()
            bar.show(self.step)
            if self.step % settings.evaluate_every == 0 or self.step == self.steps:
                self._evaluate()
            if self.step % settings.save_every == 0 or self.step == self.steps:
                self._save()

    # -- one step -----------------------------------------------------------------------------------------------------

    def _micro_batches(self) -> Iterator[Any]:
        data = _Micros(self.task.batch_of, self.batches, self.share, self.micros)
        todo = range(self.step * self.micros, self.steps * self.micros)
        workers = self.settings.workers
        return batches_of(DataLoader(data, batch_size=None, sampler=todo, num_workers=workers, pin_memory=False,
                                     prefetch_factor=2 if workers else None,
                                     worker_init_fn=ignore_signals if workers else None))

    def _next(self, micros: Iterator[Any]) -> tuple[list[Any], Exception | None]:
        """This process's micro-batches of the step; what went wrong, to be told to the others first."""
        try:
            batches = [next(micros) for _ in range(self.micros)]
        except (DataError, OSError, RuntimeError, ValueError) as error:
            return [], error
        return batches, None

    def _agree(self, batches: list[Any], failure: Exception | None) -> float:
        """Targets of the step over all processes. Where one was stopped or failed, all keep the state and end."""
        bad = {name: why for batch in batches for name, why in batch.bad if name not in self.bad}
        counts = [float(sum(batch.count for batch in batches)), float(self.signals.name is not None),
                  float(failure is not None), float(len(bad))]
        total, stopped, failed, worse = self.processes.total(counts)
        if worse:
            self.bad |= self.processes.together(bad)
            if not failed and len(self.bad) > self.settings.max_bad:
                name, why = next(iter(self.bad.items()))
                failed, failure = 1.0, DataError(
                    f"{len(self.bad)} rows cannot be used, more than max_bad allows ({self.settings.max_bad}); the "
                    f"first, row {name}: {why}")
        if stopped or failed:
            self._save()
        if failed:
            raise failure if isinstance(failure, DataError) else DataError(
                f"step {self.step}: its rows cannot be read ({failure or 'in another process'}); the state is kept in "
                f"{self.folder}") from failure
        if stopped:
            raise Stopped(f"{self.signals.name or 'a signal'}: stopped before step {self.step}; the same command goes "
                          "on from there")
        return total

    def _update(self, batches: list[Any], total: float) -> dict[str, float]:
        """One step of the optimiser; sums over all processes."""
        processes, settings, sums = self.processes, self.settings, dict[str, float]()
        if self.step in settings.skip:
            return sums
        scale = processes.world / total  # undoes the mean of gradients
        _seed(settings.seed, self.step, processes.rank)
        self.module.train()
        for number, batch in enumerate(batches):
            with processes.only_last(self.module, number == len(batches) - 1):
                found = self.module(batch.to(processes.device))
                processes.backward(self.module, found["loss"] * scale)
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            sums["loss_of"] = sums.get("loss_of", 0.0) + batch.count
        names = sorted(sums)
        sums = dict(zip(names, processes.total([sums[name] for name in names]), strict=True))
        self._apply(sums, batches)
        return sums

    def _apply(self, sums: dict[str, float], batches: list[Any]) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self._lr(self.step)
        norm = math.nan
        if math.isfinite(sums["loss"]):
            norm = self.processes.apply(self.module, self.optimiser, self.settings.clip)
        if not math.isfinite(norm):
            self._save()
            rows = ", ".join(name for batch in batches for name in batch.names[:4])
            raise DataError(f"{self.folder}: step {self.step} has the loss {sums['loss'] / sums['loss_of']:.3g} and a "
                            f"gradient of norm {norm:.3g}, among the rows {rows}; it was not applied, and the state "
                            f"before it is kept. Go on with a lower learning rate (--set stage1.lr=...), or leave the "
                            f"step out (--set stage1.skip={self.step})")

    def _lr(self, step: int) -> float:
        return learning_rate(self.settings, step, self.steps)

    # -- between steps ------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        save_state(self.processes, self.folder, self.module, self.optimiser, self.step)

    @torch.no_grad()
    def _evaluate(self) -> None:
        self.module.eval()
        if self.task.held is not None:
            sums = dict[str, float]()
            for batch in self.task.held():  # on every process alike: few rows, and sharded layers need all of them
                found = self.module(batch.to(self.processes.device))
                for name, value in found.items():
                    sums[name] = sums.get(name, 0.0) + float(value)
                sums["loss_of"] = sums.get("loss_of", 0.0) + batch.count
            if sums:
                self._log(**{f"held_{name}": value for name, value in _means(sums).items()})
        if self.task.show and self.settings.samples:
            self.task.show(self.folder / "samples" / f"step-{self.step:08}")

    def _log(self, **values: float) -> None:
        if self.processes.main:
            with (self.folder / "log.jsonl").open("a") as file:
                file.write(json.dumps({"step": self.step, **values}) + "\n")
        if self.settings.trackers:
            self.processes.accelerator.log(values, step=self.step)


class _Micros(Dataset[Any]):
    """This process's micro-batches, counted from the beginning of training."""

    def __init__(self, batch_of: Callable[[Sequence[int]], Any], batches: Batches, share: Share, micros: int) -> None:
        self.batch_of, self.batches, self.share, self.micros = batch_of, batches, share, micros

    def __getitem__(self, number: int) -> Any:
        step, micro = divmod(number, self.micros)
        with torch.no_grad():
            return self.batch_of(self.share.of(self.batches.rows(step))[micro])


def learning_rate(settings: TrainingSettings, step: int, steps: int) -> float:
    """Of a step: linear warm-up, then a cosine or a line to nothing, or the same for ever."""
    warmup = max(1, round(settings.warmup * steps))
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    factor = {"cosine": 0.5 * (1 + math.cos(math.pi * progress)), "linear": 1 - progress, "constant": 1.0}
    return settings.lr * factor[settings.schedule]


def _optimiser(module: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    learnt = [p for p in module.parameters() if p.requires_grad]
    decayed = [p for p in learnt if p.ndim > 1]
    others = [p for p in learnt if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.lr,
                             betas=(0.9, settings.beta2))


def _means(sums: dict[str, float]) -> dict[str, float]:
    """Each sum over its own base, or over the loss's."""
    return {name: round(value / max(1e-9, sums.get(f"{name}_of", sums["loss_of"])), 6)
            for name, value in sums.items() if not name.endswith("_of")}


def _seed(*parts: int) -> None:
    torch.manual_seed(random.Random(" ".join(map(str, parts))).getrandbits(60))


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, int | float | str) else str(value) for name, value in values.items()}
