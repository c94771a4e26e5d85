"""The speaking half of one reply: LLM states in, sound out, Ω units at a time.

Shapes: D LLM width, n samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from omnivox.model.ctc import CTCCollapse
from omnivox.model.speech_decoder import SpeechDecoder
from omnivox.model.vocoder import Vocoder
from omnivox.model.windowed import StreamingVocoder
from omnivox.streaming import Chunk


class Voice:
    """What one reply has said and is about to say.

    tokens: LLM states that there must be room for; chunk_units: Ω; lookahead: as `StreamingVocoder`.
    """

    def __init__(self, decoder: SpeechDecoder, vocoder: Vocoder, tokens: int, chunk_units: int,
                 lookahead: int | None) -> None:
        self.decoder, self.decoder_state = decoder, decoder.initial_state(1, capacity=tokens)
        self.collapse = CTCCollapse(decoder.blank)
        self.device = self.decoder_state.position.device
        self.collapse_state = self.collapse.initial_state(1, self.device)
        self.vocoder = StreamingVocoder(vocoder, lookahead)
        self.vocoder_state = self.vocoder.initial_state(1)
        self.chunk_units = chunk_units
        self.units: list[int] = []
        self.spoken = 0  # units that the vocoder has been given

    def hear(self, hidden: Tensor) -> bool:
        """One more LLM state [1, 1, D]. Whether enough units wait to be spoken."""
        logits, _ = self.decoder.step(Chunk.full(hidden), self.decoder_state)
        units, _ = self.collapse.step(Chunk(logits.data.argmax(-1), logits.length), self.collapse_state)
        self.units += units.row(0).tolist()
        return len(self.units) - self.spoken >= self.chunk_units

    def finish(self) -> Tensor:
        """The samples [n] that are owed at the end."""
        tail = self.speak()
        rest, _ = self.vocoder.flush(self.vocoder_state)
        return torch.cat([tail, rest.row(0)])

    def speak(self) -> Tensor:
        """The samples [n] that the waiting units make sayable; none while the vocoder waits for its lookahead."""
        pending = torch.tensor([self.units[self.spoken :]], dtype=torch.long, device=self.device)
        self.spoken = len(self.units)
        samples, _ = self.vocoder.step(Chunk.full(pending), self.vocoder_state)
        return samples.row(0)
