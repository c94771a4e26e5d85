"""What a reply is made of: text and sound as they come, and everything together at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Timings:
    """Where the time of a reply went, in seconds. Time that the caller takes between events is not counted.

    mel, encode, prefill: each part's own time. first_token, first_units, first_audio, total: from the end of the
    question, that is from the call, until then. first_units: until the first units to be spoken are there, Ω of them or
    all of a shorter reply. audio_seconds: of speech. real_time_factor: total over audio_seconds. What a reply does not
    have, units or sound, is 0.
    """

    mel: float = 0.0
    encode: float = 0.0
    prefill: float = 0.0
    first_token: float = 0.0
    first_units: float = 0.0
    first_audio: float = 0.0
    total: float = 0.0
    audio_seconds: float = 0.0
    real_time_factor: float = 0.0

    def end(self, total: float, sound: Sequence[Tensor], rate: int) -> Tensor:
        """The reply is over, after `total` seconds: note it, and give all of its sound [n] at `rate` Hz."""
        with torch.inference_mode(False):  # the caller may do with it what he likes
            audio = torch.cat([torch.empty(0), *sound])
        self.total, self.audio_seconds = total, len(audio) / rate
        self.real_time_factor = total / self.audio_seconds if sound else 0.0
        return audio


@dataclass(frozen=True)
class Text:
    """More of the written reply. All deltas together are its text; none ends in half a character."""

    delta: str


@dataclass(frozen=True)
class Audio:
    """More of the spoken reply, float32 samples [n] in -1..1."""

    samples: Tensor


@dataclass(frozen=True)
class Reply:
    """A whole reply.

    token_ids: as the LLM gave them, with the end token if it came to that. units: the speech decoder's, without
    repeats and blanks. audio: float32 samples [n] at `sample_rate` Hz. token_ends: where each token's sound ends, in
    samples, for a reply that was spoken by the engine. cancelled: it was stopped before its end. cut: it became
    as long as it may be.
    """

    text: str
    token_ids: list[int]
    units: list[int]
    audio: Tensor
    sample_rate: int
    timings: Timings = field(default_factory=Timings)
    token_ends: tuple[int, ...] = ()
    cancelled: bool = False
    cut: bool = False


@dataclass(frozen=True)
class Done:
    """The last event of every reply."""

    reply: Reply


@dataclass(frozen=True)
class Failed:
    """The last event of a reply that the model could not make."""

    error: Exception


@dataclass(frozen=True)
class Ready:
    """A held reply is ready to be heard. certainty: the mean probability (geometric) of its tokens so far."""

    certainty: float
