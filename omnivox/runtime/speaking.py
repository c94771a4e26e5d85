"""The speaking half of many replies: units in, sound out, Ω at a time; those that are due together in one step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from omnivox.model.vocoder import Vocoder
from omnivox.model.windowed import StreamingVocoder, VocoderState
from omnivox.streaming import Chunk, join_rows, slice_rows


@dataclass
class Mouth:
    """What one reply has said and is about to say. chunk_units: Ω; counts: units of each token."""

    chunk_units: int
    lookahead: int | None
    state: VocoderState
    units: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    given: int = 0  # units that the vocoder has

    def hear(self, units: Sequence[int]) -> None:
        """The units of one more token."""
        self.units += units
        self.counts.append(len(units))

    @property
    def due(self) -> bool:
        return len(self.units) - self.given >= self.chunk_units


class Speaking:
    """One vocoder for all mouths."""

    def __init__(self, vocoder: Vocoder) -> None:
        self.vocoder = vocoder
        self._streams: dict[int | None, StreamingVocoder] = {}

    def mouth(self, chunk_units: int, lookahead: int | None) -> Mouth:
        return Mouth(chunk_units, lookahead, self._stream(lookahead).initial_state(1))

    def speak(self, due: Sequence[tuple[Mouth, bool]]) -> list[Tensor]:
        """The samples [n] of each mouth's pending units, and of all that is owed where it is ending."""
        groups: dict[int | None, list[int]] = defaultdict(list)
        for i, (mouth, _) in enumerate(due):
            groups[mouth.lookahead].append(i)
        spoken: list[Tensor] = [torch.empty(0)] * len(due)
        for lookahead, members in groups.items():
            samples = self._together(self._stream(lookahead), [due[i] for i in members])
            for i, part in zip(members, samples, strict=True):
                spoken[i] = part
        return spoken

    def token_ends(self, mouth: Mouth) -> tuple[int, ...]:
        """Where each token's sound ends, in samples."""
        if not mouth.units:
            return (0,) * len(mouth.counts)
        units = torch.tensor([mouth.units], device=self.vocoder.embedding.weight.device)
        frames = self.vocoder.durations(units, torch.tensor([len(mouth.units)], device=units.device))[0]
        ends = [0, *(frames.cumsum(0) * self.vocoder.frame_samples).tolist()]
        heard, result = 0, list[int]()
        for count in mouth.counts:
            heard += count
            result.append(ends[heard])
        return tuple(result)

    def _stream(self, lookahead: int | None) -> StreamingVocoder:
        if lookahead not in self._streams:
            self._streams[lookahead] = StreamingVocoder(self.vocoder, lookahead)
        return self._streams[lookahead]

    def _together(self, stream: StreamingVocoder, due: Sequence[tuple[Mouth, bool]]) -> list[Tensor]:
        mouths = [mouth for mouth, _ in due]
        state = mouths[0].state if len(due) == 1 else join_rows([mouth.state for mouth in mouths])
        pending = [torch.tensor(mouth.units[mouth.given:], dtype=torch.long) for mouth in mouths]
        length = torch.tensor([len(units) for units in pending])
        device = state.units.device
        data = torch.nn.utils.rnn.pad_sequence(pending, batch_first=True)
        parts = [stream.step(Chunk(data.to(device), length.to(device)), state)[0]] if int(length.max()) else []
        ending = torch.tensor([end for _, end in due], device=device)
        if any(end for _, end in due):
            parts.append(stream.flush(state, ending)[0])
        for b, mouth in enumerate(mouths):
            mouth.given = len(mouth.units)
            if len(due) > 1:
                mouth.state = join_rows([slice_rows(state, b, b + 1)])  # a copy
        return [torch.cat([torch.empty(0), *(part.row(b).float().cpu() for part in parts)]) for b in range(len(due))]
