"""A streaming sample-rate converter: windowed-sinc interpolation, evaluated in polyphase form (Smith and Gossett 1984).

Output sample k lies at input time k·M/L, where L/M is the ratio of the rates in lowest terms. So its filter is one of L
phases, and it needs `reach` input samples to each side.
Shapes: B batch, N input samples, O output samples, W = 2·reach taps, L phases.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from omnivox.streaming import Chunk

_CROSSINGS = 64  # zero crossings of the sinc to each side
_PASSBAND = 0.945  # cutoff over the lower Nyquist frequency: flat to 0.89 of it, silent from 1.0 on
_KAISER_BETA = 10.0  # stop band near −100 dB
_BLOCK = 8192  # output samples computed at a time, which bounds the memory of long inputs


@dataclass
class ResamplerState:
    """history: [B, W − 1] the last input samples (zeros before the first); seen: [B] input samples so far."""

    history: Tensor
    seen: Tensor


def sinc_phases(source: int, target: int) -> Tensor:
    """The filters [L, W] float32 that convert `source` Hz to `target` Hz, each summing to one."""
    up = target // math.gcd(source, target)
    cutoff = min(1.0, target / source) * _PASSBAND  # of the source's Nyquist frequency
    reach = math.ceil(_CROSSINGS / min(1.0, target / source))
    tap = torch.arange(-reach + 1, reach + 1, dtype=torch.float64)
    time = tap - torch.arange(up, dtype=torch.float64)[:, None] / up  # [L, W], in input samples
    window = torch.special.i0(_KAISER_BETA * (1 - (time / reach).square()).clamp(min=0).sqrt())
    filters: Tensor = torch.sinc(cutoff * time) * window
    filters /= filters.sum(1, keepdim=True)
    return filters.float()


class Resampler(nn.Module):
    """`source` Hz → `target` Hz over chunks of samples [B, N]; N samples in all give ⌈N · target / source⌉."""

    phases: Tensor

    def __init__(self, source: int, target: int) -> None:
        super().__init__()
        if source <= 0 or target <= 0:
            raise ValueError(f"resampler: found rates {source} and {target} Hz; expected positive ones")
        divisor = math.gcd(source, target)
        self.up, self.down = target // divisor, source // divisor
        self.register_buffer("phases", sinc_phases(source, target), persistent=False)
        self.reach = self.phases.shape[1] // 2

    def initial_state(self, batch: int) -> ResamplerState:
        return ResamplerState(self.phases.new_zeros(batch, 2 * self.reach - 1),
                              torch.zeros(batch, dtype=torch.long, device=self.phases.device))

    def _count(self, seen: Tensor) -> Tensor:
        """Output samples that `seen` input samples determine: ⌈(seen − reach) · L / M⌉."""
        return ((seen - self.reach).clamp(min=0) * self.up + self.down - 1) // self.down

    def step(self, x: Chunk, state: ResamplerState) -> tuple[Chunk, ResamplerState]:
        """Samples [B, N] → samples [B, O] at the other rate, `reach` input samples late."""
        if not x.data.shape[1]:
            return x, state
        y = self._interpolate(x, state)
        window = torch.cat([state.history, x.data], 1)
        kept = x.length[:, None] + torch.arange(state.history.shape[1], device=window.device)
        state.history.copy_(window.gather(1, kept))
        state.seen.add_(x.length)
        return y, state

    def _interpolate(self, x: Chunk, state: ResamplerState) -> Chunk:
        first, last = self._count(state.seen), self._count(state.seen + x.length)
        outputs = (x.data.shape[1] * self.up + self.down - 1) // self.down + 1  # the most that any row can give
        windows = torch.cat([state.history, x.data], 1).unfold(1, 2 * self.reach, 1)  # [B, N, W], a view
        row = torch.arange(len(first), device=first.device)[:, None]
        start = (state.seen - self.reach)[:, None]  # input time of the sample in front of which the first window ends
        pieces = []
        for offset in range(0, outputs, _BLOCK):
            k = first[:, None] + torch.arange(offset, min(offset + _BLOCK, outputs), device=first.device)
            at, phase = k * self.down // self.up, k * self.down % self.up
            at = (at - start).clamp(max=x.data.shape[1] - 1)  # past the end of what is valid: anything
            pieces.append((windows[row, at] * self.phases[phase]).sum(-1))
        return Chunk(torch.cat(pieces, 1), last - first)

    def flush(self, state: ResamplerState) -> tuple[Chunk, ResamplerState]:
        """The last `reach` input samples' worth, as if silence followed."""
        silence = Chunk.full(state.history.new_zeros(state.history.shape[0], self.reach))
        return self.step(silence, state)

    def forward(self, samples_BN: Tensor) -> Tensor:
        """Whole signals [B, N] → [B, O]."""
        state = self.initial_state(samples_BN.shape[0])
        body, state = self.step(Chunk.full(samples_BN), state)
        tail, _ = self.flush(state)
        return torch.cat([body.data[:, : int(body.length[0])], tail.data[:, : int(tail.length[0])]], 1)
