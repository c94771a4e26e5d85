"""How a stage runs: shard by shard over what the stage before wrote, from wherever it was stopped or killed.

A stage is a pure function of a row and of its own settings. It is given the rows of a shard at once, so that it may
batch or call concurrently, and gives one outcome for each, in order. What runs the shards is a function too (`in_turn`
here, others elsewhere): every way gives the same bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from omnivox.data.manifest import Manifest, ShardReport, StageFolder
from omnivox.data.records import Rejected, Row
from omnivox.progress import bars
from omnivox.writing import alone

STAGES = ("sources", "rewrite", "answer", "speak", "quantise", "filter", "write")
Outcome = Row | Rejected
Count = Callable[[int], None]
"""Told how many rows have been done since it was last told."""


class Stage(ABC):
    """One named step of the build. Picklable, if it is to run on other processes; open files and models lazily."""

    name: str  # one of STAGES, and the name of its folder

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """All that its output depends on, as JSON. Speed (concurrency, batch sizes, devices, keys) is not in it."""

    @abstractmethod
    def apply(self, rows: Sequence[Row], build: Path) -> Iterable[Outcome]:
        """One outcome for each row, in order; each depends on its row and the settings alone. May write files under
        `build`, whole or not at all, under names that depend on the row alone."""

    def begin(self, build: Path, rows: Iterable[Row]) -> None:  # noqa: B027
        """Once, before the shards, with every row of the input: for what one row must know of the others.
        What it keeps must depend on the rows alone; it is called again after a restart."""

    def close(self) -> None:  # noqa: B027
        """Once, after the shards, also when they failed or were stopped: let go of connections, models, processes."""


@dataclass(frozen=True)
class ShardTask:
    """The work of one shard, for whichever process: read it, apply the stage, write it whole."""

    stage: Stage
    build: Path
    after: str  # the stage whose shards are read

    def __call__(self, index: int, count: Count | None = None) -> ShardReport:
        before = StageFolder(self.build, self.after).read_shard(index)
        outcomes = self.stage.apply(before, self.build)
        folder = StageFolder(self.build, self.stage.name)
        return folder.write_shard(index, before, outcomes if count is None else _counted(outcomes, count))


Runner = Callable[[ShardTask, Sequence[int], Count], None]
"""Runs a task for each of the indices, in any order and anywhere, and counts their rows."""


def in_turn(task: ShardTask, indices: Sequence[int], count: Count) -> None:
    """One shard after another, in this process."""
    for index in indices:
        task(index, count)


def at_once(shards: int) -> Runner:
    """`shards` at a time, in threads: for stages that wait for a server, which would idle at each shard's end."""
    def run(task: ShardTask, indices: Sequence[int], count: Count) -> None:
        left = list(reversed(indices))
        pool = ThreadPoolExecutor(shards)
        try:
            going = set[Future[ShardReport]]()
            while left or going:
                while left and len(going) < shards:
                    going.add(pool.submit(task, left.pop(), count))
                done, going = wait(going, timeout=0.2, return_when=FIRST_COMPLETED)  # signals come in between
                for future in done:
                    future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    return run


def _counted(outcomes: Iterable[Outcome], count: Count) -> Iterator[Outcome]:
    for outcome in outcomes:
        yield outcome
        count(1)


def run_stage(stage: Stage, build: str | Path, after: str, run: Runner = in_turn) -> Manifest:
    """Run `stage` over what the stage `after` wrote in the folder `build`, or go on where it was stopped.

    Raises DataError: the stage before is not finished, or this one was begun with other settings or another input.
    """
    build = Path(build)
    before, folder = StageFolder(build, after), StageFolder(build, stage.name)
    source = before.complete()
    with alone(build, "building"):
        manifest = folder.claim(stage.settings(), source.digest)
        if manifest.complete:
            return manifest
        folder.sweep()
        missing = [index for index in range(len(source.shards)) if not folder.shard(index).exists()]
        if missing:
            stage.begin(build, before.rows())
            todo = sum(source.shards[index].rows for index in missing)
            with progress(stage.name, source.rows, source.rows - todo) as count:
                try:
                    run(ShardTask(stage, build, after), missing, count)
                finally:
                    stage.close()
        return folder.finish(manifest, [folder.report(index) for index in range(len(source.shards))])


@contextmanager
def progress(name: str, total: int | None, done: int = 0) -> Iterator[Count]:
    """A bar on stderr; what it yields moves it on."""
    with bars() as bar:
        task = bar.add_task(f"{name:9}", total=total, completed=done)
        yield partial(bar.advance, task)
