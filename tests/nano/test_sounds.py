"""Words by their sound: alike where they sound alike, apart where they do not."""

import shutil

import pytest
import torch

from omnivox.nano.sounds import sound_table
from omnivox.nano.words import SPECIAL

pytestmark = pytest.mark.skipif(shutil.which("flite") is None, reason="flite, which knows how words sound, is missing")
WORDS = [*SPECIAL, ".", "two", "too", "fifteen", "fourteen", "Paris", "paris", "kathmandu"]


@pytest.fixture(scope="module")
def alike() -> dict[tuple[str, str], float]:
    table = sound_table(WORDS, 64)
    table = table / table.norm(dim=1, keepdim=True)
    return {(a, b): float(table[i] @ table[j]) for i, a in enumerate(WORDS) for j, b in enumerate(WORDS)}


def test_what_sounds_the_same_is_the_same(alike: dict[tuple[str, str], float]) -> None:
    assert alike["two", "too"] == pytest.approx(1.0)
    assert alike["Paris", "paris"] == pytest.approx(1.0)


def test_what_sounds_alike_lies_closer(alike: dict[tuple[str, str], float]) -> None:
    assert 0.4 < alike["fifteen", "fourteen"] < 0.95
    assert abs(alike["fifteen", "kathmandu"]) < alike["fifteen", "fourteen"] - 0.2


def test_special_tokens_lie_apart(alike: dict[tuple[str, str], float]) -> None:
    assert all(abs(alike[a, b]) < 0.6 for a in (*SPECIAL, ".") for b in WORDS if a != b)


def test_the_same_words_give_the_same_table() -> None:
    assert torch.equal(sound_table(WORDS, 64), sound_table(WORDS, 64))
    assert not torch.equal(sound_table(WORDS, 64), sound_table(WORDS, 64, seed=1))
