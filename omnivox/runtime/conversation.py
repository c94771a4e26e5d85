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

Key = int | tuple[int, int]
"""What stands at one position: a token id, or (number of a speech, place in it)."""
BLOCK = 256  # positions by which the storage grows


class Conversation:
    """The cache of one conversation; it belongs to the engine's thread."""

    def __init__(self, omni: Omni) -> None:
        self.omni = omni
        self.read: list[Key] = []
        self.state: LLMState | None = None
        self._prompt: list[Key] = []  # the one that is being answered

    @property
    def positions(self) -> int:
        """How many positions are in the cache."""
        return len(self.read)

    def forget(self) -> None:
        """Give the memory back now; a cycle of references would keep it until Python looks for one."""
        self.read, self.state, self._prompt = [], None, []

    def rewind(self, segments: Sequence[Segment]) -> Tensor:
        """Forget what the prompt does not begin with; gives the embeddings [T, D] of what is still to be read, one at
        least."""
        self._prompt, embeds = self._expand(segments)
        same = 0
        for old, new in zip(self.read, self._prompt[:-1], strict=False):  # the last is read again: its state is wanted
            if old != new:
                break
            same += 1
        del self.read[same:]
        return embeds[same:]

    def keep(self, source: LLMState, row: int, tokens: Sequence[int]) -> None:
        """What has been read since in that row: the rest of the prompt, and of the reply's tokens as far as it came."""
        start, end = len(self.read), int(source.position[row])
        if end > start:
            self._grow(end)
            assert self.state is not None
            copy_positions(source, row, self.state, 0, start, end)
        self.read = [*self._prompt, *tokens][:end]

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
