"""Greedy, temperature, nucleus and top-k, with random numbers that belong to the session."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from omnivox.errors import ConfigError
from omnivox.runtime.sampling import GREEDY, Sampler, SamplingSettings, uniform
from omnivox.streaming import Chunk, assign_rows

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -5.0])


def draw(count: int, settings: SamplingSettings, logits: Tensor = LOGITS) -> Tensor:
    sampler = Sampler()
    y, _ = sampler.step(Chunk.full(logits.expand(1, count, -1)), sampler.initial_state(1, settings))
    return y.data[0]


def shares(ids: Tensor) -> Tensor:
    return torch.bincount(ids, minlength=len(LOGITS)) / len(ids)


def test_greedy_takes_the_best_and_the_first_of_equals() -> None:
    assert draw(1, GREEDY).item() == 0
    assert draw(1, GREEDY, torch.tensor([0.0, 3.0, 3.0])).item() == LOGITS.new_tensor([0.0, 3.0, 3.0]).argmax()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_shares_follow_the_softmax(temperature: float) -> None:
    found = shares(draw(20_000, SamplingSettings(temperature=temperature, seed=1)))
    torch.testing.assert_close(found, (LOGITS / temperature).softmax(-1), atol=0.012, rtol=0)


def test_top_k_and_top_p_cut_the_tail() -> None:
    assert set(draw(2000, SamplingSettings(temperature=5.0, top_k=2)).tolist()) == {0, 1}
    # the softmax at 1.0 is .64 .24 .09 .03 .00: .8 is reached with the second
    assert set(draw(2000, SamplingSettings(temperature=1.0, top_p=0.8)).tolist()) == {0, 1}
    assert set(draw(2000, SamplingSettings(temperature=1.0, top_p=1e-6)).tolist()) == {0}


def test_cut_tails_leave_the_rest_in_proportion() -> None:
    found = shares(draw(20_000, SamplingSettings(temperature=1.0, top_k=2, seed=2)))
    torch.testing.assert_close(found[:2], LOGITS[:2].softmax(-1), atol=0.012, rtol=0)


def test_a_seed_repeats_and_another_differs() -> None:
    one = draw(64, SamplingSettings(temperature=1.0, seed=7))
    assert torch.equal(one, draw(64, SamplingSettings(temperature=1.0, seed=7)))
    assert not torch.equal(one, draw(64, SamplingSettings(temperature=1.0, seed=8)))


def test_rows_keep_their_own_settings() -> None:
    """A greedy and a hot session share a batch; each chooses as it would alone."""
    sampler, hot = Sampler(), SamplingSettings(temperature=2.0, top_k=4, seed=3)
    state = sampler.initial_state(2)
    assign_rows(state, torch.tensor([1]), sampler.initial_state(1, hot))
    y, _ = sampler.step(Chunk.full(LOGITS.expand(2, 50, -1)), state)
    assert y.data[0].eq(0).all()
    assert torch.equal(y.data[1], draw(50, hot))


def test_uniform_numbers_are_uniform_and_unlike_their_neighbours() -> None:
    u = uniform(torch.tensor([[0], [1], [-(2**63)]]), torch.arange(20_000))
    assert u.min() >= 0
    assert u.max() < 1
    torch.testing.assert_close(u.mean(1), torch.full((3,), 0.5), atol=0.01, rtol=0)
    torch.testing.assert_close(torch.histc(u, 16), torch.full((16,), 60_000 / 16), atol=300, rtol=0)
    later, other = torch.corrcoef(torch.stack([u[0, 1:], u[0, :-1], u[1, 1:]]))[0, 1:]
    assert abs(later) < 0.03
    assert abs(other) < 0.03


def test_splitmix_is_the_published_one() -> None:
    """The first outputs of the reference implementation for seed 1234567 (Vigna, splitmix64.c)."""
    from omnivox.runtime.sampling import _GOLDEN, _splitmix

    found = [int(z) % 2**64 for z in _splitmix(1234567 + torch.arange(3) * _GOLDEN)]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize(("values", "message"), [
    ({"temperature": -1.0}, "temperature: found -1.0"),
    ({"temperature": float("nan")}, "temperature: found nan"),
    ({"top_p": 0.0}, "top_p: found 0.0"),
    ({"top_p": 1.5}, "top_p: found 1.5"),
    ({"top_k": -2}, "top_k: found -2"),
    ({"seed": 2**63}, "seed: found 9223372036854775808"),
])
def test_settings_out_of_range(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SamplingSettings(**values)  # type: ignore[arg-type]
