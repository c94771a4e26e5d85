"""Which rows make up which step: length-bucketed batches that depend on (seed, step) alone, whoever asks.

A batch is the same on one process and on many; each takes its share of it, one micro-batch after the other.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from omnivox.errors import ConfigError


@dataclass(frozen=True)
class Share:
    """Who reads: process `rank` of `world`, `micro` rows at a time."""

    micro: int
    rank: int = 0
    world: int = 1

    def of(self, rows: Sequence[int]) -> list[list[int]]:
        """This process's micro-batches of a batch. Neighbours in length fall to different processes."""
        group = self.micro * self.world
        if len(rows) % group:
            raise ConfigError(f"batch: {len(rows)} rows; expected a multiple of micro_batch x processes = {group}")
        return [list(rows[start : start + group][self.rank :: self.world]) for start in range(0, len(rows), group)]


@dataclass
class Batches:
    """Batches of `batch` rows out of `lengths`. Each epoch has every row once; its last batch is filled up with rows
    from its beginning. pool: how many batches are sorted together; more waste less padding, fewer mix better."""

    lengths: Sequence[float]
    batch: int
    seed: int = 0
    pool: int = 16
    _epoch: tuple[int, list[list[int]]] = field(default=(-1, []), repr=False)

    @property
    def per_epoch(self) -> int:
        """Steps."""
        return -(-len(self.lengths) // self.batch)

    def rows(self, step: int) -> list[int]:
        """The rows of a step, counted from the beginning of training."""
        epoch, place = divmod(step, self.per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = epoch, self._order(epoch)
        return self._epoch[1][place]

    def _order(self, epoch: int) -> list[list[int]]:
        rng = random.Random(f"{self.seed} {epoch}")
        order = list(range(len(self.lengths)))
        rng.shuffle(order)
        short = -len(order) % self.batch
        order += (order * (short // len(order) + 1))[:short]
        batches = []
        for start in range(0, len(order), self.pool * self.batch):
            pool = sorted(order[start : start + self.pool * self.batch], key=lambda row: (self.lengths[row], row))
            batches += [pool[at : at + self.batch] for at in range(0, len(pool), self.batch)]
        rng.shuffle(batches)
        return batches
