"""Ours, from any checkpoint that can be loaded: streamed, offline, or in chunks that are vocoded alone.

Ω is how many units are gathered before the vocoder speaks; ∞ (None) gathers them all. The vocoder keeps what it spoke
before in view and waits for `lookahead` frames; `alone` makes it forget, as the published demo streams, seams and all.
Shapes: n samples, U units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from omnivox.checkpoint.load import load_checkpoint
from omnivox.errors import CheckpointError, ConfigError
from omnivox.model.vocoder import vocode_alone
from omnivox.runtime.respond import Omni, ReplySettings
from omnivox.runtime.sampling import SamplingSettings
from omnivox.runtime.voice import Voice
from omnivox.systems import weights
from omnivox.systems.system import Event

ALL = 2**62
"""Ω as large as any reply."""


class Alone(Voice):
    """Vocodes each chunk of units as if there were no others."""

    def finish(self) -> Tensor:
        return self.speak()

    def speak(self) -> Tensor:
        pending = torch.tensor(self.units[self.spoken:], dtype=torch.long, device=self.device)
        self.spoken = len(self.units)
        return vocode_alone(self.vocoder.vocoder, [pending])[0] if len(pending) else torch.empty(0)


class OmniAlone(Omni):
    """An `Omni` whose replies are spoken so."""

    def voice(self, tokens: int, settings: ReplySettings) -> Voice:
        return Alone(self.model.speech_decoder, self.vocoder, tokens, settings.chunk_units, None)


@dataclass(frozen=True)
class OmniSettings:
    """omega: Ω, None for ∞. lookahead: frames, None for all that matter. alone: each chunk is vocoded alone.

    temperature: 0 is greedy. Raises ConfigError naming the setting that is out of range, or that has no meaning.
    """

    omega: int | None = 10
    lookahead: int | None = None
    alone: bool = False
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    max_new_tokens: int = 256

    def __post_init__(self) -> None:
        if self.omega is not None and (isinstance(self.omega, bool) or not isinstance(self.omega, int)
                                       or self.omega < 1):
            raise ConfigError(f"omega: found {self.omega!r}; expected a number of units, 1 or more, or inf")
        if self.lookahead is not None and (self.alone or self.omega is None):
            why = "alone=true speaks each chunk without the next" if self.alone else "omega=inf has all units at once"
            raise ConfigError(f"lookahead: found {self.lookahead}; {why}, so leave it out")
        SamplingSettings(self.temperature, self.top_p, self.top_k, self.seed)
        ReplySettings(lookahead=self.lookahead, max_new_tokens=self.max_new_tokens)


class OmniSystem:
    """A model that answers in text and speech at the same time. Raises CheckpointError: one that cannot speak."""

    name = "omni"

    def __init__(self, omni: Omni, model: str, settings: OmniSettings | None = None) -> None:
        if not omni.can_speak:
            raise CheckpointError(f"{model}: has no vocoder; download\n  {weights.VOCODER.wanted(Path(model))}\n"
                                  "or name another folder by vocoder=")
        self.model, self.asked = model, settings or OmniSettings()
        self.omni = OmniAlone(omni.model, omni.vocoder, omni.tokenizer, omni.prompt) if self.asked.alone else omni

    @classmethod
    def load(cls, model: str = "nano", *, omega: int | None = 10, lookahead: int | None = None, alone: bool = False,
             temperature: float = 0.0, top_p: float = 1.0, top_k: int = 0, seed: int = 0, max_new_tokens: int = 256,
             device: str = "auto", dtype: str = "auto", whisper: str | None = None, vocoder: str | None = None) -> Self:
        """Any checkpoint that `omnivox.load` takes, by the same arguments. Raises CheckpointError, ConfigError."""
        settings = OmniSettings(omega, lookahead, alone, temperature, top_p, top_k, seed, max_new_tokens)
        return cls(load_omni(model, device=device, dtype=dtype, whisper=whisper, vocoder=vocoder), model, settings)

    @property
    def sample_rate(self) -> int:
        return self.omni.sample_rate

    def settings(self) -> Mapping[str, Any]:
        """`omega` is null where everything is vocoded at the end."""
        return {"model": self.model, "dtype": str(self.omni.embedding.weight.dtype).removeprefix("torch."),
                **asdict(self.asked)}

    def respond(self, question: Tensor) -> Iterator[Event]:
        asked = self.asked
        return self.omni.respond(question, chunk_units=ALL if asked.omega is None else asked.omega,
                                 lookahead=asked.lookahead, temperature=asked.temperature, top_p=asked.top_p,
                                 top_k=asked.top_k, seed=asked.seed, max_new_tokens=asked.max_new_tokens)

    def at(self, **changes: Any) -> Self:
        """The same model with other settings: one more point of a curve."""
        omni = self.omni
        if self.asked.alone:
            omni = Omni(omni.model, omni.vocoder, omni.tokenizer, omni.prompt)
        return type(self)(omni, self.model, replace(self.asked, **changes))


def load_omni(model: str, *, device: str = "auto", dtype: str = "auto", whisper: str | None = None,
              vocoder: str | None = None) -> Omni:
    """A checkpoint, ready to answer. Raises CheckpointError, which says what to download; ConfigError."""
    with weights.told_how(model, weights.OMNI, weights.ENCODER, weights.VOCODER):
        return Omni.from_checkpoint(load_checkpoint(model, device=device, dtype=dtype, whisper=whisper,
                                                    vocoder=vocoder))
