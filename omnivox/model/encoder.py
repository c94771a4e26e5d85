"""Whisper's speech encoder (Radford et al. 2022), with two settings of our own for encoders trained from nothing.

Shapes: B batch, T mel frames, S encoder frames (T over the stem's strides), C mel bins, D width, H heads.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnivox.model.config import EncoderConfig


def sinusoids(length: int, channels: int, max_timescale: float = 10_000.0) -> Tensor:
    """Whisper's table of positions, [length, channels]."""
    increment = math.log(max_timescale) / (channels // 2 - 1)
    rates = torch.exp(-increment * torch.arange(channels // 2))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Attention(nn.Module):
    """Multi-head self-attention; the key projection has no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x_BSD: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (layer(x_BSD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for layer in (self.query, self.key, self.value))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class LocalConv(nn.Module):
    """A depthwise convolution over time, GELU, and a linear layer: the neighbourhood that attention need not learn."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.out = nn.Linear(width, width)

    def forward(self, x_BSD: Tensor, valid_BS1: Tensor | None) -> Tensor:
        if valid_BS1 is not None:
            x_BSD = x_BSD * valid_BS1
        return self.out(F.gelu(self.depthwise(x_BSD.transpose(1, 2)).transpose(1, 2)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Pre-norm Transformer block, optionally with a local convolution in front."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.width
        if config.conv_kernel:
            self.conv_ln = nn.LayerNorm(width)
            self.conv = LocalConv(width, config.conv_kernel)
        self.has_conv = config.conv_kernel > 0
        self.attn_ln = nn.LayerNorm(width)
        self.attn = Attention(width, config.heads)
        self.mlp_ln = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x_BSD: Tensor, valid_BS1: Tensor | None, mask: Tensor | None) -> Tensor:
        if self.has_conv:
            x_BSD = x_BSD + self.conv(self.conv_ln(x_BSD), valid_BS1)
        x_BSD = x_BSD + self.attn(self.attn_ln(x_BSD), mask)
        return x_BSD + self.mlp(self.mlp_ln(x_BSD))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Log-mel frames → speech representations.

    Rows of a batch are padded on the right; what a row gives does not depend on its padding.
    """

    positional_embedding: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        if len(config.strides) != 2:
            raise ValueError(f"encoder.strides: found {config.strides}; expected two, one for each convolution")
        self.config = config
        width = config.width
        self.conv1 = nn.Conv1d(config.n_mels, width, 3, stride=config.strides[0], padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=config.strides[1], padding=1)
        self.register_buffer("positional_embedding", sinusoids(config.positions, width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.ln_post = nn.LayerNorm(width)

    def output_length(self, frames: Tensor) -> Tensor:
        """Encoder frames for each number of mel frames: each stride rounds up."""
        for stride in self.config.strides:
            frames = (frames + stride - 1) // stride
        return frames

    def forward(self, mel_BTC: Tensor, length_B: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode [B, T, C] of `length_B` valid frames each (None: all T); gives [B, S, D] and its lengths [B]."""
        if length_B is None:
            length_B = torch.full((mel_BTC.shape[0],), mel_BTC.shape[1], device=mel_BTC.device)
            ragged = False
        else:
            ragged = bool((length_B < mel_BTC.shape[1]).any())
        x = mel_BTC.transpose(1, 2)
        for conv, stride in zip((self.conv1, self.conv2), self.config.strides, strict=True):
            if ragged:
                x = x * (torch.arange(x.shape[2], device=x.device) < length_B[:, None])[:, None]
            x = F.gelu(conv(x))
            length_B = (length_B + stride - 1) // stride
        x = x.transpose(1, 2)
        if x.shape[1] > self.config.positions:
            raise ValueError(f"{x.shape[1]} encoder frames; this encoder has positions for {self.config.positions}")
        x = x + self.positional_embedding[: x.shape[1]].to(x)
        valid = (torch.arange(x.shape[1], device=x.device) < length_B[:, None]) if ragged else None
        mask = valid[:, None, None] if valid is not None else None
        for block in self.blocks:
            x = block(x, valid[..., None] if valid is not None else None, mask)
        return self.ln_post(x), length_B
