"""Choosing the next token: greedy, or from the temperature-scaled nucleus with each session's own random numbers.

The sampler is a streaming module. A session's settings, its seed and how often it has drawn are its state, so its
choices do not depend on who else is in the batch, and they go on the same way after save and load. The random numbers
come from a counter-based generator (splitmix64; Steele, Lea and Flood 2014): no hidden state, no host sync.
Shapes: B batch, T positions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from omnivox.errors import ConfigError
from omnivox.streaming import Chunk

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64; products wrap around as the algorithm wants
_MIX = ((30, -4658895280553007687), (27, -7723592293110705685))  # 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@dataclass(frozen=True)
class SamplingSettings:
    """temperature: 0 is greedy; top_p: mass of the nucleus; top_k: its size at most, 0 is no limit; seed: any integer.

    Raises ConfigError naming the setting that is out of range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature: found {self.temperature}; expected 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p: found {self.top_p}; expected more than 0 and at most 1")
        if self.top_k < 0:
            raise ConfigError(f"top_k: found {self.top_k}; expected 0 (no limit) or more")
        if not -(2**63) <= self.seed < 2**63:
            raise ConfigError(f"seed: found {self.seed}; expected a 64-bit integer")


GREEDY = SamplingSettings()


@dataclass
class SamplerState:
    """Each row's settings and how many numbers it has drawn, all [B]."""

    temperature: Tensor
    top_p: Tensor
    top_k: Tensor
    seed: Tensor
    drawn: Tensor


class Sampler:
    """Logits [B, T, V] → token ids [B, T]."""

    def initial_state(self, batch: int, settings: SamplingSettings = GREEDY,
                      device: torch.device | str = "cpu") -> SamplerState:
        """A state whose rows all have `settings`; `assign_rows` gives a row others."""
        def column(value: float, dtype: torch.dtype) -> Tensor:
            return torch.full((batch,), value, dtype=dtype, device=device)

        return SamplerState(column(settings.temperature, torch.float32), column(settings.top_p, torch.float32),
                            column(settings.top_k, torch.long), column(settings.seed, torch.long),
                            column(0, torch.long))

    def step(self, x: Chunk, state: SamplerState) -> tuple[Chunk, SamplerState]:
        """Choose one token for each valid position; each takes one random number."""
        draw_BT = state.drawn[:, None] + torch.arange(x.data.shape[1], device=x.data.device)
        ids = choose(x.data, uniform(state.seed[:, None], draw_BT), state)
        state.drawn.add_(x.length)
        return Chunk(ids, x.length), state

    def flush(self, state: SamplerState) -> tuple[Chunk, SamplerState]:
        """Nothing is owed."""
        return Chunk(state.drawn.new_empty((len(state.drawn), 0)), torch.zeros_like(state.drawn)), state


def choose(logits_BTV: Tensor, uniform_BT: Tensor, state: SamplerState) -> Tensor:
    """The token at which the nucleus's cumulative distribution passes `uniform_BT`; rows at temperature 0: the best."""
    order = logits_BTV.float().sort(dim=-1, descending=True, stable=True)
    heat = torch.where(state.temperature > 0, state.temperature, 1.0)[:, None, None]
    probability = (order.values / heat).softmax(-1)
    before = probability.cumsum(-1) - probability  # mass ahead of each candidate
    rank = torch.arange(logits_BTV.shape[-1], device=logits_BTV.device)
    limit = torch.where(state.top_k > 0, state.top_k, logits_BTV.shape[-1])[:, None, None]
    kept = ((before < state.top_p[:, None, None]) & (rank < limit)).where(rank > 0, True)
    mass = (probability * kept).cumsum(-1)
    passed = (mass <= uniform_BT[..., None] * mass[..., -1:]).sum(-1, keepdim=True)
    last = kept.sum(-1, keepdim=True) - 1
    pick = torch.where(state.temperature[:, None, None] > 0, torch.minimum(passed, last), 0)
    return order.indices.gather(-1, pick)[..., 0]


def uniform(seed: Tensor, counter: Tensor) -> Tensor:
    """Float32 numbers in [0, 1), a pure function of two int64 tensors (broadcast)."""
    z = _splitmix(_splitmix(seed) + counter * _GOLDEN)
    return ((z >> 40) & 0xFFFFFF).float() / 2**24


def _splitmix(z: Tensor) -> Tensor:
    z = z + _GOLDEN
    for shift, factor in _MIX:
        z = (z ^ _shift_right(z, shift)) * factor
    return z ^ _shift_right(z, 31)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """A logical shift: torch's int64 carries the sign along, so it is masked away."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
