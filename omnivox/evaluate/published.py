"""The published implementation's way of making a reply, with our modules: what it costs beside ours, on any machine.

It runs the speech decoder over all LLM states again at every token, vocodes each chunk of units alone, and hears every
question as 30 s. Text and units are those that ours gives; the sound differs at the seams.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from omnivox.model.ctc import collapse
from omnivox.model.speech_decoder import SpeechDecoder
from omnivox.model.vocoder import Vocoder
from omnivox.rates import CHUNK_FRAMES
from omnivox.runtime.respond import Omni, ReplySettings
from omnivox.runtime.voice import Voice
from omnivox.systems.omni import Alone


class WholePrefix(Alone):
    """Decodes all states again with each new one, and vocodes each chunk alone."""

    def __init__(self, decoder: SpeechDecoder, vocoder: Vocoder, chunk_units: int) -> None:
        super().__init__(decoder, vocoder, 1, chunk_units, None)
        self.states = decoder.input_proj.weight.new_empty(1, 0, decoder.config.llm_width)

    def hear(self, hidden: Tensor) -> bool:
        self.states = torch.cat([self.states, hidden], 1)
        classes = self.decoder(self.states)[0].argmax(-1)
        self.units = collapse(classes, self.decoder.blank).tolist()
        return len(self.units) - self.spoken >= self.chunk_units


class Published(Omni):
    """An `Omni` that answers so. What a lookahead would be has no meaning in it."""

    @classmethod
    def of(cls, omni: Omni) -> Self:
        """The same model."""
        return cls(omni.model, omni.vocoder, omni.tokenizer, omni.prompt)

    def voice(self, tokens: int, settings: ReplySettings) -> Voice:
        return WholePrefix(self.model.speech_decoder, self.vocoder, settings.chunk_units)

    def encode(self, mel: Tensor) -> Tensor:
        """A model that hears the question's own length goes over 30 s and keeps the question's positions: it was never
        taught what the others mean."""
        if self.config.mel.pad_to_chunk:
            return super().encode(mel)
        encoder, frames = self.config.encoder, mel.shape[1]
        window = min(CHUNK_FRAMES, encoder.positions * encoder.stride)
        padded = F.pad(mel, (0, 0, 0, max(0, window - frames)))
        return self.model.encode(padded, torch.tensor([frames], device=mel.device)).row(0)
