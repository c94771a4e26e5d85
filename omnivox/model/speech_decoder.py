"""The non-autoregressive speech decoder (LLaMA-Omni, §2.4): causal Llama layers over each LLM state repeated λ times.

Shapes: B batch, M LLM states, T = λ·M upsampled frames, L width of the LLM, D width, H heads, P cached positions,
V = K + 1 classes (the blank is class K).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnivox.model.config import SpeechDecoderConfig
from omnivox.streaming import Chunk


def rope_frequencies(head_dim: int, theta: float, scaling: dict[str, Any] | None) -> Tensor:
    """Angular frequencies [head_dim / 2] of rotary positions (Su et al. 2021), scaled as Llama 3.1 does where asked."""
    frequencies = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim)
    kind = "default" if scaling is None else scaling.get("rope_type", scaling.get("type", "default"))
    if scaling is None or kind == "default":
        return frequencies
    if kind == "linear":
        return frequencies / float(scaling["factor"])
    if kind != "llama3":
        raise ValueError(f"speech_decoder.rope_scaling: found rope_type {kind!r}; expected default, linear or llama3")
    low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
    turns = float(scaling["original_max_position_embeddings"]) * frequencies / (2 * math.pi)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)  # 0: slow, divided by the factor; 1: fast, as it is
    return frequencies * (smooth + (1 - smooth) / float(scaling["factor"]))


def rotate(x_BHTE: Tensor, angles_BTE: Tensor) -> Tensor:
    """Rotary position embedding of queries or keys, in Llama's half-split layout."""
    cos, sin = angles_BTE.cos()[:, None].to(x_BHTE), angles_BTE.sin()[:, None].to(x_BHTE)
    first, second = x_BHTE.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


@dataclass
class SpeechDecoderState:
    """keys, values: one [B, H, P + 1, E] per layer, slot P a bin for padded steps; position: [B] frames so far."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    position: Tensor


@dataclass
class _Reach:
    """Where a step's frames are written and what they may see."""

    slot_BT: Tensor
    mask_B1TP: Tensor
    bound: int


class Attention(nn.Module):
    """Multi-head causal attention with rotary positions."""

    def __init__(self, config: SpeechDecoderConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def _heads(self, x_BTD: Tensor, angles: Tensor, copies: int) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (_times(layer(x_BTD), copies).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for layer in (self.q_proj, self.k_proj, self.v_proj))
        return rotate(q, angles), rotate(k, angles), v

    def forward(self, x_BTD: Tensor, angles: Tensor, copies: int = 1) -> Tensor:
        """Over whole sequences. Padding on the right needs no mask: nothing valid looks to the right."""
        y = F.scaled_dot_product_attention(*self._heads(x_BTD, angles, copies), is_causal=True)
        return self.o_proj(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def step(self, x_BTD: Tensor, angles: Tensor, copies: int, keys: Tensor, values: Tensor, reach: _Reach) -> Tensor:
        q, k, v = self._heads(x_BTD, angles, copies)
        slot = reach.slot_BT[:, None, :, None].expand_as(k)
        keys.scatter_(2, slot, k)
        values.scatter_(2, slot, v)
        y = F.scaled_dot_product_attention(q, keys[:, :, : reach.bound], values[:, :, : reach.bound], reach.mask_B1TP)
        return self.o_proj(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def _times(x_BTD: Tensor, copies: int) -> Tensor:
    """Each frame so many times."""
    return x_BTD if copies == 1 else x_BTD.repeat_interleave(copies, dim=1)


class MLP(nn.Module):
    """SwiGLU feed-forward layer."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """A Llama decoder layer. `copies`: how many times its frames are still to be repeated; the queries, keys and values
    of equal frames are made once."""

    def __init__(self, config: SpeechDecoderConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.width, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.width, config.norm_eps)
        self.mlp = MLP(config.width, config.ffn)

    def forward(self, x: Tensor, angles: Tensor, copies: int = 1) -> Tensor:
        x = _times(x, copies) + self.self_attn(self.input_layernorm(x), angles, copies)
        return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]

    def step(self, x: Tensor, angles: Tensor, copies: int, keys: Tensor, values: Tensor, reach: _Reach) -> Tensor:
        x = _times(x, copies) + self.self_attn.step(self.input_layernorm(x), angles, copies, keys, values, reach)
        return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]


class SpeechDecoder(nn.Module):
    """LLM states → logits over units and the blank, λ frames a state.

    Where the published code runs the whole prefix again at every token, `step` keeps keys and values.
    """

    frequencies: Tensor

    def __init__(self, config: SpeechDecoderConfig) -> None:
        super().__init__()
        if config.width % config.heads or (config.width // config.heads) % 2:
            raise ValueError(f"speech_decoder: width {config.width} over {config.heads} heads; "
                             "expected an even quotient")
        self.config = config
        self.blank = config.units
        self.input_proj = nn.Linear(config.llm_width, config.width)
        if config.position_embedding:
            self.position_embedding = nn.Parameter(torch.randn(config.upsample, config.width) * 0.3)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, config.norm_eps) if config.final_norm else nn.Identity()
        self.output_proj = nn.Linear(config.width, config.units + 1)
        frequencies = rope_frequencies(config.width // config.heads, config.rope_theta, config.rope_scaling)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def _upsampled(self, states_BML: Tensor) -> tuple[Tensor, int]:
        """Frames [B, λ·M, D]; or, where all λ of a state are equal, [B, M, D], and how often to repeat each."""
        x_BMD: Tensor = self.input_proj(states_BML)
        if self.config.position_embedding:
            return (x_BMD[:, :, None] + self.position_embedding).flatten(1, 2), 1
        return x_BMD, self.config.upsample

    def _stretched(self, states_BML: Tensor, states_length_B: Tensor, frames_B: Tensor) -> Tensor:
        """Frame j of a row takes state ⌊j / (frames / states)⌋, the division in float32 as the published trainer's."""
        frame = torch.arange(int(frames_B.max()), device=states_BML.device)
        ratio = frames_B.float() / states_length_B.float()
        row = torch.minimum((frame / ratio[:, None]).long(), states_length_B[:, None] - 1)
        x = self.input_proj(states_BML)
        x = x.gather(1, row[..., None].expand(-1, -1, x.shape[2]))
        if self.config.position_embedding:
            first = (row * ratio[:, None]).ceil().long()
            x = x + self.position_embedding[(frame - first).clamp(0, self.config.upsample - 1)]
        return x  # type: ignore[no-any-return]

    def forward(self, states_BML: Tensor, states_length_B: Tensor | None = None,
                frames_B: Tensor | None = None) -> Tensor:
        """Logits [B, T, V] over whole sequences.

        frames_B: upsampled length of each row; by default λ per state. A longer one stretches that row's states.
        """
        if frames_B is None or states_length_B is None or torch.equal(frames_B, self.config.upsample * states_length_B):
            x, copies = self._upsampled(states_BML)
        else:
            x, copies = self._stretched(states_BML, states_length_B, frames_B), 1
        angles = torch.arange(x.shape[1] * copies, device=x.device).float()[None, :, None] * self.frequencies
        for layer in self.layers:
            x, copies = layer(x, angles, copies), 1
        return self.output_proj(self.norm(x))  # type: ignore[no-any-return]

    def initial_state(self, batch: int, capacity: int = 512) -> SpeechDecoderState:
        """Room for `capacity` LLM states in each of `batch` rows."""
        config, weight = self.config, self.input_proj.weight
        shape = (batch, config.heads, capacity * config.upsample + 1, config.width // config.heads)
        return SpeechDecoderState(
            tuple(weight.new_zeros(shape) for _ in range(config.layers)),
            tuple(weight.new_zeros(shape) for _ in range(config.layers)),
            torch.zeros(batch, dtype=torch.long, device=weight.device),
        )

    def step(self, x: Chunk, state: SpeechDecoderState) -> tuple[Chunk, SpeechDecoderState]:
        """States [B, M, L] → logits [B, λ·M, V]."""
        h, copies = self._upsampled(x.data)
        length_B = x.length * self.config.upsample
        reach, position_BT = self._reach(state, length_B, h.shape[1] * copies)
        angles = position_BT[..., None].float() * self.frequencies
        for layer, keys, values in zip(self.layers, state.keys, state.values, strict=True):
            h, copies = layer.step(h, angles, copies, keys, values, reach), 1  # type: ignore[operator]
        state.position.add_(length_B)
        return Chunk(self.output_proj(self.norm(h)), length_B), state

    def _reach(self, state: SpeechDecoderState, length_B: Tensor, frames: int) -> tuple[_Reach, Tensor]:
        capacity = state.keys[0].shape[2] - 1
        frame = torch.arange(frames, device=length_B.device)
        position_BT = state.position[:, None] + frame
        slot_BT = torch.where(frame < length_B[:, None], position_BT, capacity)
        bound = capacity
        if length_B.device.type == "cpu":  # a GPU is never asked: it reads the whole storage, which a graph needs
            longest = int((state.position + length_B).max())
            if longest > capacity:
                raise ValueError(f"speech decoder: {longest} frames; its state has room for {capacity}")
            bound = max(1, longest)
        mask = torch.arange(bound, device=length_B.device) <= position_BT[..., None]
        return _Reach(slot_BT, mask[:, None], bound), position_BT

    def flush(self, state: SpeechDecoderState) -> tuple[Chunk, SpeechDecoderState]:
        """Nothing is owed."""
        empty = self.output_proj.weight.new_empty((state.position.shape[0], 0, self.config.units + 1))
        return Chunk(empty, torch.zeros_like(state.position)), state
