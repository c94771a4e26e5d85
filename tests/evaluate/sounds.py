"""Sounds to be measured."""

from __future__ import annotations

import torch
from torch import Tensor


def noise(seconds: float, rate: int = 16_000, seed: int = 1) -> Tensor:
    """[n] in -1..1, the same each time."""
    return (0.2 * torch.randn(int(seconds * rate), generator=torch.Generator().manual_seed(seed))).clamp(-1, 1)


def tone(seconds: float, rate: int = 16_000, hertz: float = 220.0) -> Tensor:
    """[n] in -1..1."""
    return 0.3 * torch.sin(2 * torch.pi * hertz * torch.arange(int(seconds * rate)) / rate)
