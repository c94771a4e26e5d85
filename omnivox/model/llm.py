"""Any Hugging Face causal LM as a streaming module: a `transformers` cache with one slot per session.

Shapes: B batch, T new positions, D LLM width, H key/value heads, E head size, P cached positions, R positions read,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from omnivox.streaming import Chunk

_LAYER_TYPES = ("full_attention", "sliding_attention")
_FAMILIES = "expected a decoder-only family such as Llama, Qwen, Mistral or Gemma"
_MOST_ERROR = {torch.float32: 1e-2, torch.float64: 1e-2}  # of the logits' size; in half precision experts may change
_LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")  # other frequencies once a sequence outgrows the training length


@dataclass
class LLMState:
    """keys, values: one [B, H, P + 1, E] per layer, slot P a bin for padded steps; position: [B] positions so far."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    position: Tensor


def copy_positions(source: LLMState, source_row: int, target: LLMState, target_row: int, start: int, end: int) -> None:
    """Positions start to end of a session go into another state's row, which then stands at `end`.

    Rows may have room for different numbers of positions; there must be room for `end`.
    """
    for ours, theirs in zip((*target.keys, *target.values), (*source.keys, *source.values), strict=True):
        ours[target_row, :, start:end] = theirs[source_row, :, start:end]
    target.position[target_row] = end


class SlotCache(Cache):
    """The cache of one step: writes each row's new keys and values into its own slots of an `LLMState`, in place.

    slot_BT: where each new position goes (P, the bin, for padding); bound: how many positions attention reads.
    """

    def __init__(self, state: LLMState, slot_BT: Tensor, bound: int) -> None:
        super().__init__(layers=[])
        self.state, self.slot, self.bound = state, slot_BT[:, None, :, None], bound

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
               ) -> tuple[Tensor, Tensor]:
        """Keys and values [B, H, T, E] of one layer in, all that may be attended to [B, H, R, E] out."""
        keys, values = self.state.keys[layer_idx], self.state.values[layer_idx]
        keys.scatter_(2, self.slot.expand_as(key_states), key_states)
        values.scatter_(2, self.slot.expand_as(value_states), value_states)
        return keys[:, :, : self.bound], values[:, :, : self.bound]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Rows differ, so no number is right: positions and mask are always given, nobody needs to ask."""
        return 0


class _ShapeProbe(Cache):
    """Notes the shape of every layer's keys and values while the model runs over one position."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.shapes: dict[int, tuple[torch.Size, torch.Size]] = {}

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
               ) -> tuple[Tensor, Tensor]:
        self.shapes[layer_idx] = key_states.shape[1:], value_states.shape[1:]
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0


class StreamingLLM:
    """Embeddings → last hidden states after the final norm, many ragged sessions in one forward pass.

    llm: any decoder-only model of `transformers` whose layers attend fully or through a sliding window.
    capacity: positions (prompt and reply) that a session has room for, where `initial_state` is not told otherwise.
    Raises ValueError where the architecture cannot be stepped exactly.
    """

    def __init__(self, llm: PreTrainedModel, capacity: int = 4096) -> None:
        self.llm, self.capacity = llm, capacity
        self.config = llm.config.get_text_config(decoder=True)
        self._check_attention()
        try:
            self._shapes = self._probe_shapes()
            error = self._probe_error() if llm.device.type != "meta" else 0.0  # weights without numbers
        except Exception as failure:  # whatever a family's code makes of masks and positions that it did not expect
            raise ValueError(f"llm: {self.config.model_type} cannot be stepped ({type(failure).__name__}: "
                             f"{failure}); {_FAMILIES}".replace("\n", " ")) from failure
        if error > _MOST_ERROR.get(llm.dtype, 0.5):
            raise ValueError(f"llm: {self.config.model_type} gives other logits when it is stepped beside another "
                             f"session (by {error:.1g} of their size); {_FAMILIES}")

    @torch.no_grad()
    def _probe_shapes(self) -> list[tuple[torch.Size, torch.Size]]:
        """The shapes of every layer's keys and values."""
        llm, probe = self.llm, _ShapeProbe()
        one = torch.zeros((1, 1, self.config.hidden_size), dtype=llm.dtype, device=llm.device)
        itself = torch.zeros((1, 1, 1, 1), dtype=torch.long, device=llm.device)
        llm.base_model(inputs_embeds=one, attention_mask=self._masks(itself, one), past_key_values=probe,
                       use_cache=True)
        layers = sorted(probe.shapes)
        if layers != list(range(len(layers))) or not layers:
            raise ValueError(f"it keeps keys and values for layers {layers}; expected every layer to attend")
        return [probe.shapes[i] for i in layers]

    @torch.no_grad()
    def _probe_error(self) -> float:
        """How far our logits of two sessions of three positions are from the model's own, the one two positions ahead
        of the other: the root mean square over that of the logits."""
        table: Any = self.llm.get_input_embeddings()
        ids = torch.arange(1, 7, device=self.llm.device).view(2, 3) * (table.weight.shape[0] // 7)
        x, state = table(ids), self.initial_state(2, capacity=3)
        ahead, behind = torch.tensor([[2, 0], [1, 3]], device=ids.device)
        first, _ = self.step(Chunk(x[:, :2], ahead), state)
        second, _ = self.step(Chunk(torch.stack([x[0].roll(1, 0), x[1]]), behind), state)
        ours = self.logits(torch.stack([torch.cat([first.row(0), second.row(0)]), second.row(1)])).float()
        theirs = self.llm(inputs_embeds=x, use_cache=False).logits.float()
        return float((ours - theirs).square().mean().sqrt() / theirs.std().clamp(min=1e-6))

    def _check_attention(self) -> None:
        kinds = set(getattr(self.config, "layer_types", None) or ["full_attention"])
        if unknown := sorted(kinds - set(_LAYER_TYPES)):
            raise ValueError(f"llm: {self.config.model_type} has layers of type {unknown[0]!r}; "
                              f"expected {' or '.join(_LAYER_TYPES)}")
        if getattr(self.config, "attention_chunk_size", None) is not None:
            raise ValueError(f"llm: {self.config.model_type} attends in chunks; expected full or sliding attention")
        implementation = self.llm.config._attn_implementation
        if implementation not in ("sdpa", "eager"):
            raise ValueError(f"llm: attn_implementation is {implementation!r}; expected 'sdpa' or 'eager'")

    @property
    def max_positions(self) -> int | None:
        """How many positions a session may take; None: as many as there is memory for."""
        known = getattr(self.config, "max_position_embeddings", None)
        limits = [limit for _, limit in self._rope_limits()] + ([] if known is None else [known])
        return min(limits, default=None)

    def _rope_limits(self) -> Iterator[tuple[str, int]]:
        """The kinds of rotary positions that change once a session is longer than so many."""
        rope = getattr(self.config, "rope_parameters", None) or {}
        for entry in [rope, *(value for value in rope.values() if isinstance(value, dict))]:
            kind = entry.get("rope_type", "default")
            if kind in _LENGTH_DEPENDENT_ROPE:
                yield kind, entry.get("original_max_position_embeddings") or self.config.max_position_embeddings

    def initial_state(self, batch: int, capacity: int | None = None) -> LLMState:
        """Room for `capacity` positions in each of `batch` rows, in the model's dtype."""
        llm, capacity = self.llm, capacity or self.capacity
        for kind, limit in self._rope_limits():
            if capacity > limit:
                raise ValueError(f"llm: rope_type {kind!r} is the same for every session up to {limit} positions "
                                 f"only; found a capacity of {capacity}")

        def room(shape: torch.Size) -> Tensor:
            heads, _, size = shape
            return torch.zeros(batch, heads, capacity + 1, size, dtype=llm.dtype, device=llm.device)

        keys, values = zip(*self._shapes, strict=True)
        return LLMState(tuple(map(room, keys)), tuple(map(room, values)),
                        torch.zeros(batch, dtype=torch.long, device=llm.device))

    def step(self, x: Chunk, state: LLMState) -> tuple[Chunk, LLMState]:
        """Embeddings [B, T, D] → hidden states [B, T, D]. On a CPU, raises ValueError past the capacity."""
        capacity = state.keys[0].shape[2] - 1
        new = torch.arange(x.data.shape[1], device=x.length.device)
        valid_BT = new < x.length[:, None]
        position_BT = state.position[:, None] + new
        slot_BT = torch.where(valid_BT, position_BT, capacity)
        position_BT = torch.where(valid_BT, position_BT, 0)  # padding looks at position 0 and is looked at by nobody
        bound = capacity
        if x.length.device.type == "cpu":  # a GPU is never asked: it reads the whole storage, which a graph needs
            bound = int(position_BT.max()) + 1
            if bound > capacity:
                raise ValueError(f"llm: {bound} positions; this state has room for {capacity}")
        visible = torch.arange(bound, device=x.length.device)
        behind_BTR = position_BT[..., None] - visible
        hidden = self.llm.base_model(inputs_embeds=x.data, attention_mask=self._masks(behind_BTR[:, None], x.data),
                                     position_ids=position_BT, past_key_values=SlotCache(state, slot_BT, bound),
                                     use_cache=True).last_hidden_state
        state.position.add_(x.length)
        return Chunk(hidden, x.length), state

    def _masks(self, behind_B1TR: Tensor, like: Tensor) -> Tensor | dict[str, Tensor]:
        """The attention masks from how far each key lies behind each query, in the form that the model's code takes."""
        causal = behind_B1TR >= 0
        window = getattr(self.config, "sliding_window", None)
        sliding = causal & (behind_B1TR < window) if window else causal
        masks = {"full_attention": causal, "sliding_attention": sliding}
        if self.llm.config._attn_implementation == "eager":  # it adds the mask to the scores
            masks = {kind: torch.zeros_like(mask, dtype=like.dtype).masked_fill_(~mask, torch.finfo(like.dtype).min)
                     for kind, mask in masks.items()}
        kinds = getattr(self.config, "layer_types", None)
        if kinds is None:
            return masks["sliding_attention"]
        return {kind: masks[kind] for kind in set(kinds)}

    def flush(self, state: LLMState) -> tuple[Chunk, LLMState]:
        """Nothing is owed."""
        empty = state.keys[0].new_empty((state.position.shape[0], 0, self.config.hidden_size))
        return Chunk(empty, torch.zeros_like(state.position)), state

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits [..., V] of hidden states [..., D], with the scalings some families add after the head."""
        logits: Tensor = self.llm.get_output_embeddings()(hidden)
        logits = logits * getattr(self.config, "logit_scale", 1.0) / getattr(self.config, "logits_scaling", 1.0)
        cap = getattr(self.config, "final_logit_softcapping", None)
        return torch.tanh(logits / cap) * cap if cap else logits
