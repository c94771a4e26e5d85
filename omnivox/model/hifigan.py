"""The published unit vocoder: HiFi-GAN's generator (Kong et al. 2020) on embedded units (Polyak et al. 2021).

    embedding ─► conv 7 ─► [leaky ReLU ─► transposed conv ─► mean of residual blocks] × stages
              ─► leaky ReLU ─► conv 7 ─► tanh

Every convolution's input is masked, so that padding in a batch and the edges of a window are exact; and each stage
keeps only the columns that the sound of the window's middle depends on.

Shapes: B batch, F frames, C channels, T columns (frames times the rates so far), M frames to speak.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnivox.model.config import HifiganConfig
from omnivox.model.vocoder import DurationPredictor, Spoken, Vocoder, Window

SLOPE = 0.1  # of the leaky ReLUs, all but the last
LAST_SLOPE = 0.01  # the published code leaves torch's default there
EDGE_KERNEL = 7  # of the first and the last convolution


class ResidualBlock(nn.Module):
    """x + conv(conv(x)), once for each dilation; the second convolution of a pair has none."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, dilation=d, padding=kernel // 2 * d) for d in dilations)
        self.convs2 = nn.ModuleList(nn.Conv1d(channels, channels, kernel, padding=kernel // 2) for _ in dilations)

    @staticmethod
    def reach_of(kernel: int, dilations: tuple[int, ...]) -> int:
        """Columns on each side that one column depends on."""
        return kernel // 2 * sum(dilation + 1 for dilation in dilations)

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor) -> Tensor:
        for first, second in zip(self.convs1, self.convs2, strict=True):
            y = first(F.leaky_relu(x_BCT, SLOPE) * mask_B1T)
            x_BCT = x_BCT + second(F.leaky_relu(y, SLOPE) * mask_B1T)
        return x_BCT


class Hifigan(Vocoder):
    """The unit HiFi-GAN. Its sound has no oscillator: windows and phases pass through it unused."""

    def __init__(self, config: HifiganConfig) -> None:
        super().__init__()
        _check(config)
        self.config = config
        self.units, self.sample_rate = config.units, config.sample_rate
        self.frame_samples = math.prod(config.upsample_rates)
        self.embedding = nn.Embedding(config.units, config.embedding_dim)
        self.duration = DurationPredictor(config.duration)
        channels = [config.initial_channels >> stage for stage in range(len(config.upsample_rates) + 1)]
        pad = EDGE_KERNEL // 2
        self.conv_pre = nn.Conv1d(config.embedding_dim, channels[0], EDGE_KERNEL, padding=pad)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()  # flat, stage by stage, as published
        for stage, (rate, kernel) in enumerate(zip(config.upsample_rates, config.upsample_kernels, strict=True)):
            source, target = channels[stage], channels[stage + 1]
            self.ups.append(nn.ConvTranspose1d(source, target, kernel, rate, padding=(kernel - rate) // 2))
            for size, dilations in zip(config.residual_kernels, config.residual_dilations, strict=True):
                self.resblocks.append(ResidualBlock(target, size, dilations))
        self.conv_post = nn.Conv1d(channels[-1], 1, EDGE_KERNEL, padding=pad)
        self.needs, frames = self._needs()
        self.context = (frames, frames)

    def _needs(self) -> tuple[list[int], int]:
        """Columns on each side of the middle that each stage's input must have, and that the embedding must have."""
        config, need = self.config, EDGE_KERNEL // 2
        kinds = zip(config.residual_kernels, config.residual_dilations, strict=True)
        widest = max(ResidualBlock.reach_of(kernel, dilations) for kernel, dilations in kinds)
        needs = []
        for rate, kernel in reversed(list(zip(config.upsample_rates, config.upsample_kernels, strict=True))):
            need += widest
            # Output o takes inputs from ⌈(o + p − k + 1) / r⌉ to ⌊(o + p) / r⌋, p the padding.
            pad = (kernel - rate) // 2
            need = max((need + kernel - 1 - pad) // rate, (need + pad + rate - 1) // rate)
            needs.append(need)
        return needs[::-1], need + EDGE_KERNEL // 2

    def speak(self, window: Window) -> Spoken:
        frames = self.context[0]
        window = window.fit(min(window.before, frames), min(window.after, frames))
        before, after, speak = window.before, window.after, window.speak
        mask = window.valid[:, None].to(self.embedding.weight)
        x_BCT = self.conv_pre(self.embedding(window.units).transpose(1, 2) * mask)
        kinds = len(self.config.residual_kernels)
        for stage, (up, rate) in enumerate(zip(self.ups, self.config.upsample_rates, strict=True)):
            cut = slice(max(0, before - self.needs[stage]), before + speak + min(after, self.needs[stage]))
            before, after = min(before, self.needs[stage]), min(after, self.needs[stage])
            x_BCT, mask = x_BCT[..., cut], mask[..., cut]
            x_BCT = up(F.leaky_relu(x_BCT, SLOPE) * mask)
            mask = mask.repeat_interleave(rate, -1)
            before, after, speak = before * rate, after * rate, speak * rate
            blocks = self.resblocks[stage * kinds : (stage + 1) * kinds]
            x_BCT = torch.stack([block(x_BCT, mask) for block in blocks]).mean(0)
        x_BCT = torch.tanh(self.conv_post(F.leaky_relu(x_BCT, LAST_SLOPE) * mask))
        phase = window.phase[:, None].expand(-1, window.speak + 1)
        return Spoken(x_BCT[:, 0, before : before + speak], phase)


def _check(config: HifiganConfig) -> None:
    if len(config.upsample_rates) != len(config.upsample_kernels):
        raise ValueError(f"hifigan.upsample_kernels: found {len(config.upsample_kernels)}; expected one for each of "
                         f"{len(config.upsample_rates)} rates")
    if not config.residual_kernels:
        raise ValueError("hifigan.residual_kernels: found none; expected one or more")
    if len(config.residual_kernels) != len(config.residual_dilations):
        raise ValueError(f"hifigan.residual_dilations: found {len(config.residual_dilations)}; expected one list for "
                         f"each of {len(config.residual_kernels)} kernels")
    for rate, kernel in zip(config.upsample_rates, config.upsample_kernels, strict=True):
        if kernel < rate or (kernel - rate) % 2:
            raise ValueError(f"hifigan.upsample_kernels: found {kernel} at rate {rate}; expected the rate plus an even "
                             "number, or frames would not last a whole number of samples")
    if any(kernel % 2 == 0 for kernel in config.residual_kernels):
        raise ValueError(f"hifigan.residual_kernels: found {config.residual_kernels}; expected odd numbers")
    if config.initial_channels >> len(config.upsample_rates) == 0:
        raise ValueError(f"hifigan.initial_channels: found {config.initial_channels}; halved "
                         f"{len(config.upsample_rates)} times, none is left")
    if config.duration.embedding_dim != config.embedding_dim:
        raise ValueError(f"hifigan.duration.embedding_dim: found {config.duration.embedding_dim}; expected the "
                         f"embedding's {config.embedding_dim}")
