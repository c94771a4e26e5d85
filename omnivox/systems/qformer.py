"""A Q-Former (Li et al. 2023) without text, over windows of speech as SALMONN has it.

Learned queries attend to each other, then to the frames of a window, then pass a feed-forward layer; each is normalised
after its residual. Names of the modules are the published ones.
Shapes: B windows, Q queries, W frames of a window, D width, E frame width.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPS = 1e-12  # BERT's


@dataclass(frozen=True)
class QformerConfig:
    """Its sizes; heads are 64 wide in every published one."""

    width: int = 768
    inner: int = 3072
    layers: int = 2
    frame_width: int = 2048
    head_width: int = 64


class Residual(nn.Module):
    """A linear layer whose result is added to what went around it, and normalised."""

    def __init__(self, into: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(into, width)
        self.LayerNorm = nn.LayerNorm(width, NORM_EPS)

    def forward(self, x_BQD: Tensor, around_BQD: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x_BQD) + around_BQD)  # type: ignore[no-any-return]


class Heads(nn.Module):
    """Queries that look at other things."""

    def __init__(self, config: QformerConfig, seen_width: int) -> None:
        super().__init__()
        self.heads = config.width // config.head_width
        self.query = nn.Linear(config.width, config.width)
        self.key, self.value = nn.Linear(seen_width, config.width), nn.Linear(seen_width, config.width)

    def forward(self, x_BQD: Tensor, seen: Tensor) -> Tensor:
        q, k, v = (layer(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for layer, y in ((self.query, x_BQD), (self.key, seen), (self.value, seen)))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Attention and its residual."""

    def __init__(self, config: QformerConfig, seen_width: int) -> None:
        super().__init__()
        self.add_module("self", Heads(config, seen_width))
        self.output = Residual(config.width, config.width)

    def forward(self, x_BQD: Tensor, seen: Tensor) -> Tensor:
        return self.output(self.get_submodule("self")(x_BQD, seen), x_BQD)  # type: ignore[no-any-return]


class Widened(nn.Module):
    """The first half of the feed-forward layer."""

    def __init__(self, config: QformerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, config.inner)

    def forward(self, x_BQD: Tensor) -> Tensor:
        return F.gelu(self.dense(x_BQD))


class Layer(nn.Module):
    """Among the queries, to the frames, and by itself."""

    def __init__(self, config: QformerConfig) -> None:
        super().__init__()
        self.attention = Attention(config, config.width)
        self.crossattention = Attention(config, config.frame_width)
        self.intermediate_query = Widened(config)
        self.output_query = Residual(config.inner, config.width)

    def forward(self, x_BQD: Tensor, frames_BWE: Tensor) -> Tensor:
        x_BQD = self.crossattention(self.attention(x_BQD, x_BQD), frames_BWE)
        return self.output_query(self.intermediate_query(x_BQD), x_BQD)  # type: ignore[no-any-return]


class Qformer(nn.Module):
    """Queries [B, Q, D] and the frames of their windows [B, W, E] → what the queries found [B, Q, D]."""

    def __init__(self, config: QformerConfig) -> None:
        super().__init__()
        self.embeddings = nn.Module()
        self.embeddings.LayerNorm = nn.LayerNorm(config.width, NORM_EPS)
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def forward(self, queries_BQD: Tensor, frames_BWE: Tensor) -> Tensor:
        x = self.embeddings.get_submodule("LayerNorm")(queries_BQD)
        for layer in self.encoder.get_submodule("layer").children():
            x = layer(x, frames_BWE)
        return x  # type: ignore[no-any-return]
