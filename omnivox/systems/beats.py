"""BEATs (Chen et al. 2022), a transformer over 16 x 16 patches of a filterbank, and its published files (.pt).

    waveform ─► Kaldi filterbank ─► patches ─► LayerNorm ─► linear ─► + positional convolution ─► LayerNorm ─► blocks

Each block attends with a learned bias by distance, the same for all blocks, that each query opens and closes for itself
by two gates; residuals are scaled by (2 · layers)^1/4 (DeepNorm). Names of the modules are the published ones.
Shapes: B batch, N samples at 16 kHz, T filterbank frames, C bins, P patches, D width, H heads, K head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnivox.checkpoint.files import NoInit, Tensors, fill, read_torch, tensors_of
from omnivox.errors import CheckpointError
from omnivox.rates import HOP_LENGTH, N_FFT, SAMPLE_RATE

BINS = 128
MEAN, DEVIATION = 15.41663, 6.55582  # of the filterbank, over AudioSet
_FFT = 512  # samples, a frame with zeros behind it
_LOWEST = 20.0  # Hz
_EMPHASIS = 0.97
_FLOOR = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class BeatsConfig:
    """Sizes, by the names in a file's own `cfg`."""

    input_patch_size: int = 16
    embed_dim: int = 512
    encoder_layers: int = 12
    encoder_embed_dim: int = 768
    encoder_ffn_embed_dim: int = 3072
    encoder_attention_heads: int = 12
    conv_pos: int = 128
    conv_pos_groups: int = 16
    num_buckets: int = 320
    max_distance: int = 800


# -- the filterbank ---------------------------------------------------------------------------------------------------


def _mel(hertz: Tensor) -> Tensor:
    return 1127 * (1 + hertz / 700).log()


def _filters() -> Tensor:
    """Triangles on Kaldi's mel scale [C, F], the bin at half the rate left out."""
    ends = _mel(torch.tensor([_LOWEST, SAMPLE_RATE / 2], dtype=torch.float64))
    edges = torch.linspace(float(ends[0]), float(ends[1]), BINS + 2, dtype=torch.float64)
    mels = _mel(torch.arange(_FFT // 2, dtype=torch.float64) * SAMPLE_RATE / _FFT)
    rising = (mels - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - mels) / (edges[2:] - edges[1:-1])[:, None]
    return F.pad(torch.minimum(rising, falling).clamp(min=0), (0, 1)).float()


def filterbank(wave_BN: Tensor) -> Tensor:
    """Kaldi's log filterbank [B, T, C] of waveforms in -1..1, normalised for BEATs; T = (N - 400) // 160 + 1."""
    frames = (wave_BN * 2**15).unfold(-1, N_FFT, HOP_LENGTH)
    frames = frames - frames.mean(-1, keepdim=True)
    before = F.pad(frames, (1, 0), mode="replicate")[..., :-1]
    window = torch.hann_window(N_FFT, periodic=False, device=wave_BN.device).pow(0.85)  # Povey's
    power = torch.fft.rfft((frames - _EMPHASIS * before) * window, _FFT).abs().square()
    log: Tensor = (power @ _filters().to(power).T).clamp(min=_FLOOR).log()
    return (log - MEAN) / (2 * DEVIATION)


# -- the transformer --------------------------------------------------------------------------------------------------


def buckets(length: int, count: int, furthest: int) -> Tensor:
    """The bucket [P, P] of each key's distance from each query: half of them for keys behind (or at) the query, half
    for those ahead; in each half one for each near distance, then ever wider ones up to `furthest`."""
    place = torch.arange(length)
    ahead = place - place[:, None]
    half = count // 2
    exact = half // 2
    distance = ahead.abs()
    share = (distance.clamp(min=1).float() / exact).log() / math.log(furthest / exact)
    far = (exact + (share * (half - exact)).long()).clamp(max=half - 1)
    return half * (ahead > 0) + torch.where(distance < exact, distance, far)


class Attention(nn.Module):
    """Multi-head self-attention with a gated bias by distance."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        width, self.heads = config.encoder_embed_dim, config.encoder_attention_heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))
        self.grep_linear = nn.Linear(width // self.heads, 8)
        self.grep_a = nn.Parameter(torch.ones(1, self.heads, 1, 1))

    def forward(self, x_BPD: Tensor, bias_HPP: Tensor) -> Tensor:
        q, k, v = (layer(x_BPD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for layer in (self.q_proj, self.k_proj, self.v_proj))
        opened, scaled = self.grep_linear(q).unflatten(-1, (2, 4)).sum(-1).sigmoid().split(1, -1)
        gate_BHP1 = opened * (scaled * self.grep_a - 1) + 2
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=gate_BHP1 * bias_HPP)
        return self.out_proj(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and a feed-forward layer, each normalised after its scaled residual."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        width, inner = config.encoder_embed_dim, config.encoder_ffn_embed_dim
        self.self_attn = Attention(config)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.alpha = (2 * config.encoder_layers) ** 0.25

    def forward(self, x_BPD: Tensor, bias_HPP: Tensor) -> Tensor:
        x_BPD = self.self_attn_layer_norm(self.alpha * x_BPD + self.self_attn(x_BPD, bias_HPP))
        return self.final_layer_norm(  # type: ignore[no-any-return]
            self.alpha * x_BPD + self.fc2(F.gelu(self.fc1(x_BPD))))


class BlockStack(nn.Module):
    """The blocks, and what places are to them: a convolution in front, and a bias by distance."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        width = config.encoder_embed_dim
        self.config = config
        self.pos_conv = nn.Conv1d(width, width, config.conv_pos, padding=config.conv_pos // 2,
                                  groups=config.conv_pos_groups)
        self.layer_norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.encoder_layers))
        self.relative_attention_bias = nn.Embedding(config.num_buckets, config.encoder_attention_heads)

    def forward(self, x_BPD: Tensor) -> Tensor:
        length = x_BPD.shape[1]
        place = self.pos_conv(x_BPD.transpose(1, 2))[..., :length].transpose(1, 2)
        x_BPD = self.layer_norm(x_BPD + F.gelu(place))
        places = buckets(length, self.config.num_buckets, self.config.max_distance).to(x_BPD.device)
        bias_HPP = self.relative_attention_bias(places).permute(2, 0, 1)
        for layer in self.layers:
            x_BPD = layer(x_BPD, bias_HPP)
        return x_BPD


class Beats(nn.Module):
    """Waveforms [B, N] → features [B, P, D]; P = T // 16 · C // 16, bins of one time beside each other."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self.config = config
        size = config.input_patch_size
        self.patch_embedding = nn.Conv2d(1, config.embed_dim, size, size, bias=False)
        self.layer_norm = nn.LayerNorm(config.embed_dim)
        self.post_extract_proj = (nn.Linear(config.embed_dim, config.encoder_embed_dim)
                                  if config.embed_dim != config.encoder_embed_dim else None)
        self.encoder = BlockStack(config)

    def forward(self, wave_BN: Tensor) -> Tensor:
        patches = self.patch_embedding(filterbank(wave_BN.float()).to(self.patch_embedding.weight.dtype)[:, None])
        x = self.layer_norm(patches.flatten(2).transpose(1, 2))
        return self.encoder(x if self.post_extract_proj is None else self.post_extract_proj(x))  # type: ignore[no-any-return]


# -- the published file -----------------------------------------------------------------------------------------------


_BIAS = "encoder.relative_attention_bias.weight"
_FIXED = {"deep_norm": True, "layer_norm_first": False, "relative_position_embedding": True, "gru_rel_pos": True,
          "conv_bias": False, "activation_fn": "gelu"}


def load_beats(path: Path) -> Beats:
    """A published file, frozen, in float32 on the CPU. Nothing in it is executed.

    Raises CheckpointError naming the key of its `cfg`, or the tensor, what was found and what would be right.
    """
    saved = read_torch(path)
    described, state = saved.get("cfg"), saved.get("model")
    if not isinstance(described, dict) or not isinstance(state, dict):
        raise CheckpointError(f"{path}: has no 'cfg' and 'model'; expected a BEATs, as BEATs_iter3_plus_AS2M.pt")
    config = _config(described, path)
    with NoInit():
        model = Beats(config)
    tensors = tensors_of({name: value for name, value in state.items() if isinstance(value, Tensor)}, str(path))
    tensors = tensors.renamed(_our_name, _published_name)
    fill(model, _without_weight_norm(tensors), torch.float32)
    return model.eval().requires_grad_(False)


def _config(described: dict[str, Any], path: Path) -> BeatsConfig:
    for key, expected in _FIXED.items():
        if (found := described.get(key, expected)) != expected:
            raise CheckpointError(f"{path}: cfg: {key} is {found!r}; expected {expected!r}, as every published BEATs")
    sizes = {}
    for size in fields(BeatsConfig):
        value = described.get(size.name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise CheckpointError(f"{path}: cfg: {size.name} is {value!r}; expected a whole number")
        sizes[size.name] = value
    return BeatsConfig(**sizes)


def _our_name(name: str) -> str | None:
    """Our name; None for what only labels sounds, and for the bias of all blocks but the first, which is the same."""
    if name.startswith("predictor."):
        return None
    if name.endswith(".relative_attention_bias.weight"):
        return _BIAS if name.startswith("encoder.layers.0.") else None
    return name.replace("encoder.pos_conv.0.", "encoder.pos_conv.")


def _published_name(ours: str) -> str:
    if ours == _BIAS:
        return "encoder.layers.0.self_attn.relative_attention_bias.weight"
    return ours.replace("encoder.pos_conv.", "encoder.pos_conv.0.")


def _without_weight_norm(tensors: Tensors) -> Tensors:
    """weight = g · v / ‖v‖, the norm over all but the last dimension."""
    name = "encoder.pos_conv.weight"
    g, v = (tensors.required(f"{name}_{part}").float() for part in "gv")
    if v.ndim != 3 or g.shape != (1, 1, v.shape[-1]):
        raise CheckpointError(f"{tensors.source}: tensor {tensors.original(name + '_g')!r} is {list(g.shape)} beside "
                              f"{list(v.shape)}; expected [1, 1, {v.shape[-1]}]")
    folded = tensors_of({name: g * v / torch.linalg.vector_norm(v, dim=(0, 1), keepdim=True)}, tensors.source)
    rest = tensors.renamed(lambda found: None if found.startswith(f"{name}_") else found, str)
    return Tensors(tensors.source, {found: _reader(source, found) for source in (rest, folded) for found in source},
                   tensors.original)


def _reader(tensors: Tensors, name: str) -> Any:
    return lambda: tensors[name]
