"""What the LLM has read of one conversation, kept so that nothing is read twice.

A prompt is compared with what was read last: the part that is the same stays, the position goes back behind it, and
only the rest is read. So truncating an answer, a question that was thrown away, and an answer prepared while the
speaker paused are one and the same thing: another prompt.

Shapes: T positions, D LLM width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from omnivox.model.llm import LLMState, copy_positions
from omnivox.runtime.history import Segment, Speech
from omnivox.runtime.respond import Omni
from omnivox.streaming import Chunk

Key = int | tuple[int, int]
"""What stands at one position: a token id, or (number of a speech, place in it)."""
BLOCK = 256  # positions by which the storage grows


class Conversation:
    """The cache of one conversation; it belongs to the engine's thread."""

    def __init__(self, omni: Omni) -> None:
        self.omni = omni
        self.read: list[Key] = []
        self.state: LLMState | None = None

    @property
    def positions(self) -> int:
        """How many positions are in the cache."""
        return len(self.read)

    def forget(self) -> None:
        """Give the memory back now; a cycle of references would keep it until Python looks for one."""
        self.read, self.state = [], None

    def rewind(self, segments: Sequence[Segment]) -> Tensor:
        """Forget what the prompt does not begin with; gives the embeddings [1, T, D] of what is still to be read, one
        at least."""
        keys, embeds = self._expand(segments)
        same = 0
        for old, new in zip(self.read, keys[:-1], strict=False):  # the last is read again: its state is wanted
            if old != new:
                break
            same += 1
        self.read = keys[:same]
        self._waiting = keys[same:]
        self._grow(len(keys))
        if self.state is not None:
            self.state.position[0] = same
        return embeds[None, same:]

    def prefill(self, embeds: Tensor) -> Tensor:
        """Read some of what waits; gives the last hidden state [1, 1, D]."""
        assert self.state is not None
        hidden, _ = self.omni.llm.step(Chunk.full(embeds), self.state)
        count = embeds.shape[1]
        self.read += self._waiting[:count]
        del self._waiting[:count]
        return hidden.data[:, -1:]

    def answered(self, tokens: Sequence[int], end: int) -> None:
        """A reply's tokens were read too, up to position `end`; the caller has copied their keys and values."""
        self.read += list(tokens)[: end - len(self.read)]

    def _expand(self, segments: Sequence[Segment]) -> tuple[list[Key], Tensor]:
        keys: list[Key] = []
        parts: list[Tensor] = []
        table = self.omni.embedding
        for part in segments:
            if isinstance(part, Speech):
                assert part.positions is not None, "the engine encodes speech first"
                keys += [(part.number, i) for i in range(len(part.positions))]
                parts.append(part.positions.to(table.weight))
            elif part:
                keys += part
                parts.append(table(torch.tensor(part, device=table.weight.device)))
        return keys, torch.cat(parts)

    def _grow(self, positions: int) -> None:
        """Room for so many positions, and no more than a block beyond."""
        room = 0 if self.state is None else self.state.keys[0].shape[2] - 1
        if positions <= room < positions + 4 * BLOCK:
            return
        wider = self.omni.llm.initial_state(1, -(-positions // BLOCK) * BLOCK)
        if self.state is not None:
            copy_positions(self.state, 0, wider, 0, 0, len(self.read))
        self.state = wider

    def make_room(self, positions: int) -> LLMState:
        """The storage, with room for so many positions."""
        self._grow(positions)
        assert self.state is not None
        return self.state
