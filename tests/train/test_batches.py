"""Which rows make up a step: a function of the seed and the step, the same for one process and for many."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from omnivox.errors import ConfigError
from omnivox.train.batches import Batches, Share

LENGTHS = random.Random(1).choices(range(1, 100), k=50)


def test_an_epoch_has_every_row_once_and_is_filled_up() -> None:
    batches = Batches(LENGTHS, batch=8, seed=3, pool=2)
    assert batches.per_epoch == 7
    for epoch in range(2):
        rows = Counter(row for step in range(7) for row in batches.rows(7 * epoch + step))
        assert set(rows) == set(range(50))
        assert sum(rows.values()) == 56
        assert max(rows.values()) == 2


def test_a_step_depends_on_nothing_but_seed_and_step() -> None:
    asked = [Batches(LENGTHS, 8, seed=3).rows(step) for step in (12, 3, 12)]
    once = Batches(LENGTHS, 8, seed=3)
    assert [once.rows(12), once.rows(3), once.rows(12)] == asked
    assert Batches(LENGTHS, 8, seed=4).rows(12) != asked[0]
    assert once.rows(3) != once.rows(3 + once.per_epoch)


def test_rows_of_a_batch_are_about_as_long_as_each_other() -> None:
    def padding(pool: int) -> float:
        batches = Batches(LENGTHS, 5, seed=0, pool=pool)
        chosen = [[LENGTHS[row] for row in batches.rows(step)] for step in range(10)]
        return 1 - sum(map(sum, chosen)) / sum(5 * max(row) for row in chosen)

    assert padding(10) < 0.2 < padding(1)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_shares_of_all_processes_are_the_batch(world: int) -> None:
    rows = Batches(LENGTHS, 16, seed=3).rows(0)
    shares = [Share(2, rank, world).of(rows) for rank in range(world)]
    assert all(len(micro) == 2 for share in shares for micro in share)
    assert {len(share) for share in shares} == {16 // 2 // world}
    assert sorted(row for share in shares for micro in share for row in micro) == sorted(rows)


def test_fewer_rows_than_a_batch_are_repeated() -> None:
    assert Counter(Batches([1, 2, 3], 8).rows(0)).keys() == {0, 1, 2}


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"8 rows; expected a multiple of micro_batch x processes = 6"):
        Share(3, 0, 2).of(range(8))
