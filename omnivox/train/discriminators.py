"""HiFi-GAN's discriminators and losses (Kong et al. 2020, §2.3 and §2.4): several periods, several scales.

Shapes: B batch, N samples, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

SLOPE = 0.1
Judged = tuple[Tensor, list[Tensor]]
"""A discriminator's opinion of each stretch, and its features on the way there."""


class PeriodDiscriminator(nn.Module):
    """Sees samples that lie a period apart as neighbours. channels: of its first layer; it has 32 times as many later,
    as published with 32."""

    def __init__(self, period: int, channels: int = 32) -> None:
        super().__init__()
        self.period = period
        widths = (1, channels, 4 * channels, 16 * channels, 32 * channels, 32 * channels)
        strides = (3, 3, 3, 3, 1)
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(source, target, (5, 1), (stride, 1), padding=(2, 0)))
            for source, target, stride in zip(widths, widths[1:], strides, strict=False))
        self.out = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, wave_BN: Tensor) -> Judged:
        x = wave_BN[:, None]
        if short := -x.shape[-1] % self.period:
            x = F.pad(x, (0, short), "reflect")
        x = x.unflatten(-1, (-1, self.period))
        features = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), SLOPE)
            features.append(x)
        x = self.out(x)
        return x.flatten(1), [*features, x]


class ScaleDiscriminator(nn.Module):
    """Sees neighbours. channels: of its first layer; it has 8 times as many later, as published with 128."""

    def __init__(self, channels: int = 128) -> None:
        super().__init__()
        c = channels
        groups = [max(1, min(16, c // 8)) for _ in range(4)]
        self.convs = nn.ModuleList(weight_norm(conv) for conv in (
            nn.Conv1d(1, c, 15, padding=7),
            nn.Conv1d(c, c, 41, 2, 20, groups=groups[0]), nn.Conv1d(c, 2 * c, 41, 2, 20, groups=groups[1]),
            nn.Conv1d(2 * c, 4 * c, 41, 4, 20, groups=groups[2]), nn.Conv1d(4 * c, 8 * c, 41, 4, 20, groups=groups[3]),
            nn.Conv1d(8 * c, 8 * c, 5, padding=2)))
        self.out = weight_norm(nn.Conv1d(8 * c, 1, 3, padding=1))

    def forward(self, wave_BN: Tensor) -> Judged:
        x, features = wave_BN[:, None], []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), SLOPE)
            features.append(x)
        x = self.out(x)
        return x.flatten(1), [*features, x]


class Discriminators(nn.Module):
    """All of them; the k-th scale sees the sound averaged k times over pairs of samples."""

    def __init__(self, periods: Sequence[int], scales: int, period_channels: int, scale_channels: int) -> None:
        super().__init__()
        self.periods = nn.ModuleList(PeriodDiscriminator(period, period_channels) for period in periods)
        self.scales = nn.ModuleList(ScaleDiscriminator(scale_channels) for _ in range(scales))

    def forward(self, wave_BN: Tensor) -> list[Judged]:
        judged: list[Judged] = [judge(wave_BN) for judge in self.periods]
        for judge in self.scales:
            judged.append(judge(wave_BN))
            wave_BN = F.avg_pool1d(wave_BN[:, None], 4, 2, 2)[:, 0]
        return judged


def discriminator_loss(real: Sequence[Judged], made: Sequence[Judged]) -> Tensor:
    """Least squares: 1 for real sound, 0 for what was made."""
    return torch.stack([(1 - r).square().mean() + m.square().mean()
                        for (r, _), (m, _) in zip(real, made, strict=True)]).sum()


def adversarial_loss(made: Sequence[Judged]) -> Tensor:
    """Least squares: what was made is to be taken for real."""
    return torch.stack([(1 - m).square().mean() for m, _ in made]).sum()


def feature_loss(real: Sequence[Judged], made: Sequence[Judged]) -> Tensor:
    """Mean distance of the discriminators' features of what was made to those of what was real, twice as published."""
    return 2 * torch.stack([(r.detach() - m).abs().mean() for (_, own), (_, other) in zip(real, made, strict=True)
                            for r, m in zip(own, other, strict=True)]).sum()
