"""Recogniser → language model → voice, the way that spoken assistants were built before.

Bundled: nano's own recogniser (its transcription prompt), nano's LLM asked in writing, and the voice that nano learned
from, through flite: the same knowledge by the longer road. General: Whisper, any LLM, any voice.
Shapes: n samples at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from omnivox.checkpoint.load import pick_device
from omnivox.data.recognise import FasterWhisper, Whisper, recogniser
from omnivox.errors import ConfigError
from omnivox.rates import SAMPLE_RATE
from omnivox.runtime.respond import Omni
from omnivox.sound import read_audio
from omnivox.systems import weights
from omnivox.systems.llm import INSTRUCTIONS, LLM, CausalLLM, OwnLLM, ServedLLM
from omnivox.systems.omni import load_omni
from omnivox.systems.system import Event, Making, Parts, answered
from omnivox.systems.tts import NANO, PAPER, TTS, find_tts, spoken
from omnivox.systems.writer import Choosing

WHISPER = f"whisper:{weights.WHISPER}"


class Ears(Protocol):
    """A recogniser."""

    def settings(self) -> Mapping[str, Any]:
        """All that it hears depends on, as JSON."""
        ...

    def transcribe(self, wave: Tensor) -> str:
        """What is said in `wave` [n]."""
        ...


@dataclass(frozen=True)
class OmniEars:
    """A spoken model, asked for the words of the question. Raises ConfigError: it was not trained to give them."""

    omni: Omni
    model: str

    def __post_init__(self) -> None:
        if self.omni.prompt.transcribe is None:
            raise ConfigError(f"asr: {self.model} names no transcription prompt in its config.json; expected nano, or "
                              "whisper:NAME")

    def settings(self) -> Mapping[str, Any]:
        return {"recogniser": "omni", "model": self.model}

    def transcribe(self, wave: Tensor) -> str:
        return self.omni.transcribe(wave)


class Cascade:
    """Hears, then writes, and speaks what is written as its voice is told to. What it does not hear it does not answer.

    Of the timings, encode is the recogniser's time.
    """

    name = "cascade"

    def __init__(self, ears: Ears, llm: LLM, tts: TTS) -> None:
        self.ears, self.llm, self.tts = ears, llm, tts

    @classmethod
    def load(cls, llm: str = "nano", *, asr: str | None = None, tts: TTS | None = None, temperature: float = 0.0,
             top_p: float = 1.0, top_k: int = 0, seed: int = 0, max_new_tokens: int = 256,
             instructions: str | None = None, llm_model: str | None = None, api_key: str | None = None,
             device: str = "auto", dtype: str = "auto") -> Self:
        """llm: nano, omni:MODEL (a checkpoint of ours), a folder or hub name of a causal LM, or the URL of an
        OpenAI-compatible server, whose model `llm_model` names.

        asr: nano, omni:MODEL, whisper:NAME or faster-whisper:NAME. Default of it and of `tts`: nano's for nano, else
        the paper's Whisper and VITS. instructions: what an LLM is told before the question.
        Raises ConfigError; CheckpointError, which says what to download.
        """
        choosing = Choosing(temperature, top_p, top_k, seed=seed, max_new_tokens=max_new_tokens)
        models = _Models(device, dtype)
        if ours := _own(llm):
            if instructions is not None:
                raise ConfigError(f"instructions: found {instructions[:40]!r}; {llm} is asked as it was trained, so "
                                  "leave them out")
            writer: LLM = OwnLLM(models.omni(ours), ours, choosing)
        elif llm.startswith(("http://", "https://")):
            if not llm_model:
                raise ConfigError(f"llm_model: found none; expected the name of a model that {llm} has")
            writer = ServedLLM(llm, llm_model, choosing, _told(instructions), api_key)
        else:
            writer = CausalLLM(llm, choosing, _told(instructions), device, dtype)
        heard = models.ears(asr or ("nano" if ours else WHISPER))
        return cls(heard, writer, tts or find_tts(NANO if ours else PAPER, device=str(pick_device(device))))

    @property
    def sample_rate(self) -> int:
        return self.tts.sample_rate

    def settings(self) -> Mapping[str, Any]:
        return {"asr": dict(self.ears.settings()), "llm": dict(self.llm.settings()),
                "tts": dict(self.tts.settings())}

    def respond(self, question: Tensor) -> Iterator[Event]:
        return answered(partial(self._parts, read_audio(question)), self.sample_rate)

    def _parts(self, question: Tensor, making: Making) -> Parts:
        words = self.ears.transcribe(question)
        making.timings.encode = making.clock.lap()
        if not words.strip():
            return
        with closing(self.llm.write(words, making)) as written:
            yield from spoken(written, self.tts)


@dataclass
class _Models:
    """Those that are being loaded, each once."""

    device: str
    dtype: str

    def __post_init__(self) -> None:
        self._loaded = dict[str, Omni]()

    def omni(self, model: str) -> Omni:
        if model not in self._loaded:
            self._loaded[model] = load_omni(model, device=self.device, dtype=self.dtype)
        return self._loaded[model]

    def ears(self, spec: str) -> Ears:
        """A recogniser that has heard something already: it is loaded, and its first question takes no longer."""
        if ours := _own(spec):
            return OmniEars(self.omni(ours), ours)
        found = recogniser(spec, str(pick_device(self.device))) if spec.partition(":")[0].endswith("whisper") else None
        if not isinstance(found, Whisper | FasterWhisper):
            raise ConfigError(f"asr: found {spec!r}; expected nano, omni:MODEL, whisper:NAME or faster-whisper:NAME")
        with weights.told_how(found.name, weights.WHISPER):
            found.transcribe(torch.zeros(SAMPLE_RATE // 10))
        return found


def _own(spec: str) -> str | None:
    """The checkpoint of ours that `spec` names, if it does."""
    if spec == "nano":
        return spec
    return spec.removeprefix("omni:") if spec.startswith("omni:") else None


def _told(instructions: str | None) -> str:
    return INSTRUCTIONS if instructions is None else instructions
