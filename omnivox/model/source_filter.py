"""A small source-filter vocoder: a pulse train and noise through predicted filters (after Wang et al. 2019, NSF).

Units at 25 Hz pass ConvNeXt blocks, are spread to 100 Hz, pass more blocks, and become the magnitudes of two zero-phase
filters for each hop. A narrow branch beside them predicts pitch and voicing, which drive a band-limited pulse train.
Every convolution is unpadded: the window shrinks block by block to the frames to speak, so nothing is computed twice
within a step, and what is spoken never depends on where a stream was cut.

Shapes: B batch, F unit frames, H hops, C channels, M frames to speak, K bins of a filter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnivox.model.config import DurationConfig, SourceFilterConfig
from omnivox.model.vocoder import DurationPredictor, Spoken, Vocoder, Window
from omnivox.rates import exact_div

HIGHEST_HARMONIC = 0.475  # of the sample rate: the last harmonic stays clear of folding
NOISE_HOPS = 200  # the noise repeats after so many hops (2 s)
PITCH_RANGE = 1.25  # natural logarithms that pitch may leave its middle by


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """A linear layer in the precision of its input."""
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))


class Block(nn.Module):
    """ConvNeXt block (Liu et al. 2022) without padding: [B, T + left + right, C] → [B, T, C]."""

    def __init__(self, width: int, kernel: int, right: int, expansion: int) -> None:
        super().__init__()
        self.left, self.right = kernel - 1 - right, right
        bound = kernel**-0.5
        self.depthwise = nn.Parameter(torch.empty(kernel, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(width))
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, expansion * width)
        self.down = nn.Linear(expansion * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.3))

    def forward(self, x_BTC: Tensor, valid_BT: Tensor) -> Tensor:
        """`valid` masks the input: what lies outside the stream is zero, wherever the window ends."""
        x_BTC = x_BTC * valid_BT[..., None]
        columns = x_BTC.shape[1] - self.left - self.right
        y = self.bias.to(x_BTC.dtype).expand(x_BTC.shape[0], columns, -1)
        for offset, tap in enumerate(self.depthwise.to(x_BTC.dtype)):  # a depthwise convolution, faster than torch's
            y = torch.addcmul(y, x_BTC[:, offset : offset + columns], tap)
        norm = self.norm
        y = F.layer_norm(y, norm.normalized_shape, norm.weight.to(y.dtype), norm.bias.to(y.dtype), norm.eps)
        change = self.scale.to(y.dtype) * linear(self.down, F.gelu(linear(self.up, y)))
        return x_BTC[:, self.left : x_BTC.shape[1] - self.right] + change


class Stack(nn.Module):
    """Blocks in a row; `left` and `right` are the columns that the input has more than the output."""

    def __init__(self, width: int, kernel: int, rights: Sequence[int], expansion: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, kernel, right, expansion) for right in rights)
        self.left = sum(kernel - 1 - right for right in rights)
        self.right = sum(rights)

    def forward(self, x_BTC: Tensor, valid_BT: Tensor) -> Tensor:
        for block in self.blocks:
            x_BTC = block(x_BTC, valid_BT)
            valid_BT = valid_BT[:, block.left : valid_BT.shape[1] - block.right]  # type: ignore[operator]
        return x_BTC


class PitchBranch(nn.Module):
    """Units [B, F] → pitch and voicing, `hops` of each a frame: [B, F − left − right, hops, 2].

    In double precision: rounding here would add up in the phase of a long stream.
    """

    def __init__(self, config: SourceFilterConfig, hops: int) -> None:
        super().__init__()
        self.hops = hops
        self.embedding = nn.Embedding(config.units, config.pitch_width)
        self.stack = Stack(config.pitch_width, config.kernel, config.unit_right, expansion=3)
        self.head = nn.Linear(config.pitch_width, 2 * hops)

    def forward(self, units_BF: Tensor, valid_BF: Tensor, precision: torch.dtype) -> Tensor:
        x_BFC = self.stack(self.embedding(units_BF).to(precision), valid_BF)
        return linear(self.head, x_BFC).unflatten(-1, (self.hops, 2))  # type: ignore[no-any-return]


@dataclass
class Pitch:
    """At the end of each hop: hertz [B, H], voicing logits [B, H], and whether the stream has that hop [B, H]."""

    hertz: Tensor
    voicing: Tensor
    valid: Tensor


class SourceFilter(Vocoder):
    """The bundled model's vocoder."""

    noise: Tensor
    window: Tensor

    def __init__(self, config: SourceFilterConfig) -> None:
        super().__init__()
        self.config = config
        self.units, self.sample_rate, self.frame_samples = config.units, config.sample_rate, config.frame_samples
        self.hops = exact_div(config.frame_samples, config.hop)  # hops per unit frame
        self.overlap = exact_div(config.n_fft, 2 * config.hop) * 2  # hops per STFT window, even
        bins = config.n_fft // 2 + 1
        self.embedding = nn.Embedding(config.units, config.width)
        self.unit_stack = Stack(config.width, config.kernel, config.unit_right, expansion=3)
        self.spread = nn.Linear(config.width, self.hops * config.width)
        self.filter_stack = Stack(config.width, config.kernel, config.filter_right, expansion=2)
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, 2 * bins)
        nn.init.constant_(self.head.bias, -4.0)  # about the level of speech
        self.pitch_branch = PitchBranch(config, self.hops)
        self.duration = DurationPredictor(DurationConfig(config.width, config.duration_width))
        # A filter frame reaches n_fft / 2 to each side of its middle; its excitation the same again.
        self.filter_hops = self.overlap // 2
        self.pulse_hops = self.overlap
        self.context = self._context()
        window = torch.hann_window(config.n_fft)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("noise", self._noise_spectra(window), persistent=False)

    def _context(self) -> tuple[int, int]:
        def frames(hops: int) -> int:
            return -(-hops // self.hops)

        filters, pulses = self.filter_hops, self.pulse_hops
        left = max(frames(filters + self.filter_stack.left) + self.unit_stack.left,
                   frames(pulses + 1) + self.pitch_branch.stack.left)
        right = max(frames(filters + self.filter_stack.right) + self.unit_stack.right,
                    frames(pulses) + self.pitch_branch.stack.right)
        return left, right

    def _noise_spectra(self, window: Tensor) -> Tensor:
        """STFT frames [NOISE_HOPS, K] of a fixed noise: what is heard at a hop depends on its position alone."""
        config, period = self.config, NOISE_HOPS * self.config.hop
        noise = torch.randn(period, generator=torch.Generator().manual_seed(0))
        looped = torch.cat([noise, noise[: config.n_fft - config.hop]])
        spectra: Tensor = torch.fft.rfft(looped.unfold(0, config.n_fft, config.hop) * window)
        return spectra

    def pitch(self, window: Window) -> Pitch:
        """Pitch of the hops from `pulse_hops` + 1 before those to speak to `pulse_hops` behind them."""
        branch, lead, tail = self.pitch_branch, self.pulse_hops + 1, self.pulse_hops
        before, after = -(-lead // self.hops), -(-tail // self.hops)
        window = window.fit(before + branch.stack.left, after + branch.stack.right)
        out = branch(window.units, window.valid, self.phase_dtype).flatten(1, 2)
        keep = slice(before * self.hops - lead, (before + window.speak) * self.hops + tail)
        frames = slice(branch.stack.left, window.units.shape[1] - branch.stack.right)
        valid = window.valid[:, frames].repeat_interleave(self.hops, 1)[:, keep]
        deviation = PITCH_RANGE * torch.tanh(out[:, keep, 0])
        return Pitch(self.config.pitch_hz * deviation.exp(), out[:, keep, 1], valid)

    def filters(self, window: Window) -> Tensor:
        """Log magnitudes [B, H, 2, K] (pulses, noise) of the hops to speak and `filter_hops` on each side."""
        lead, tail = self.filter_hops + self.filter_stack.left, self.filter_hops + self.filter_stack.right
        before, after = -(-lead // self.hops), -(-tail // self.hops)
        window = window.fit(before + self.unit_stack.left, after + self.unit_stack.right)
        x_BFC = self.unit_stack(self.embedding(window.units), window.valid)
        x_BHC = self.spread(x_BFC).unflatten(-1, (self.hops, -1)).flatten(1, 2)
        keep = slice(before * self.hops - lead, (before + window.speak) * self.hops + tail)
        frames = slice(self.unit_stack.left, window.units.shape[1] - self.unit_stack.right)
        valid_BH = window.valid[:, frames].repeat_interleave(self.hops, 1)[:, keep]
        x_BHC = self.filter_stack(x_BHC[:, keep], valid_BH)
        valid_BH = valid_BH[:, self.filter_stack.left : valid_BH.shape[1] - self.filter_stack.right]
        log_magnitude = self.head(self.norm(x_BHC)).clamp(-14, 4).unflatten(-1, (2, -1))
        return log_magnitude.masked_fill(~valid_BH[..., None, None], -math.inf)  # type: ignore[no-any-return]

    def pulses(self, pitch: Pitch, start_B: Tensor) -> tuple[Tensor, Tensor]:
        """A band-limited pulse train over the hops of `pitch` but the first [B, (H − 1)·hop], and the phase at each
        of their starts [B, H − 1], which is `start` at hop `pulse_hops`.

        Pitch and loudness go linearly from one hop's end to the next's. With harmonics 1..n the train is the Dirichlet
        kernel (sin((2n + 1)πφ) / sin(πφ) − 1); harmonic n + 1 fades in before it joins. Its power is that of one sine.
        """
        hop, rate = self.config.hop, self.config.sample_rate
        f1 = pitch.hertz[:, 1:]
        f0 = torch.where(pitch.valid[:, :-1], pitch.hertz[:, :-1], f1)
        advance = (f0 + f1) * (0.5 * hop / rate)
        phase_BH = advance.cumsum(1) - advance
        phase_BH = (phase_BH - phase_BH[:, self.pulse_hops, None] + start_B[:, None]) % 1
        loudness = torch.sigmoid(pitch.voicing.float()) * pitch.valid
        f0, f1, phase = (x.float()[..., None] for x in (f0, f1, phase_BH))
        t = torch.arange(hop, device=f0.device)
        hertz = f0 + (f1 - f0) * (t / hop)
        cycles = phase + (f0 * t + (f1 - f0) * (t * t / (2 * hop))) / rate
        cycles = cycles - cycles.round()
        harmonics = HIGHEST_HARMONIC * rate / hertz
        whole = harmonics.floor()
        angle = math.pi * cycles
        below = torch.sin(angle)
        centre = below.abs() < 1e-6
        kernel = torch.sin((2 * whole + 1) * angle) / torch.where(centre, torch.ones_like(below), below)
        kernel = torch.where(centre, 2 * whole + 1, kernel) - 1
        kernel = kernel + 2 * (harmonics - whole) * torch.cos((2 * whole + 2) * angle)
        gain = loudness[:, :-1, None] + (loudness[:, 1:] - loudness[:, :-1])[..., None] * (t / hop)
        return (kernel * gain / (2 * harmonics).sqrt()).flatten(1), phase_BH

    def filtered(self, pulses_BN: Tensor, log_magnitude: Tensor, position_B: Tensor) -> Tensor:
        """Pulses and noise through their filters, overlapped and added: the samples of the frames to speak."""
        config, hops = self.config, log_magnitude.shape[1]
        edge = config.hop // 2  # STFT windows are centred on the middle of their hop
        frames = pulses_BN[:, edge : pulses_BN.shape[1] - edge].unfold(1, config.n_fft, config.hop)
        index = position_B[:, None] * self.hops - self.filter_hops + torch.arange(hops, device=position_B.device)
        noise = self.noise[index % NOISE_HOPS]
        magnitude = log_magnitude.exp()
        spectrum = torch.fft.rfft(frames * self.window) * magnitude[:, :, 0] + noise * magnitude[:, :, 1]
        pieces = torch.fft.irfft(spectrum, config.n_fft) * (self.window * (config.hop / self.window.square().sum()))
        pieces = pieces.unflatten(-1, (self.overlap, config.hop))  # [B, H, overlap, hop]
        slots = hops + self.overlap - 1
        shifted = [F.pad(pieces[:, :, j], (0, 0, j, slots - hops - j)) for j in range(self.overlap)]
        reach = config.n_fft - edge
        samples = torch.stack(shifted).sum(0).flatten(1)
        return samples[:, reach : samples.shape[1] - reach]

    def speak(self, window: Window) -> Spoken:
        pulses, phase_BH = self.pulses(self.pitch(window), window.phase)
        samples = self.filtered(pulses, self.filters(window), window.position)
        first = self.pulse_hops
        return Spoken(samples, phase_BH[:, first : first + window.speak * self.hops + 1 : self.hops])
