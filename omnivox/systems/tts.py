"""The voice behind a system that answers in writing: all at the end, or piece by piece as the text comes.

    offline(speaker)        the whole answer in one piece, once it is written
    by_sentence(speaker)    each sentence when the next one begins
    by_words(speaker, n)    every n words when they are there

Any engine of `data/speaker.py` speaks. A piece is spoken for itself, with the pauses that its engine puts around it.
Shapes: n samples at 16 kHz.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from omnivox.data.sayable import sentences
from omnivox.data.speaker import Speaker
from omnivox.data.voices import speaker as find_speaker
from omnivox.errors import ConfigError
from omnivox.nano.voices import ANSWER_VOICE
from omnivox.rates import SAMPLE_RATE
from omnivox.runtime.events import Audio, Text
from omnivox.systems import weights
from omnivox.systems.system import Parts

NANO = ANSWER_VOICE.label
"""The voice that nano learned to answer in, through flite."""
PAPER = f"vits:{weights.VITS}"
"""The VITS trained on LJSpeech that spoke for the systems without a voice of their own (LLaMA-Omni, v1)."""


class TTS(Protocol):
    """Text that is still being written in, sound out."""

    @property
    def sample_rate(self) -> int: ...

    def settings(self) -> Mapping[str, Any]:
        """All that the sound depends on, as JSON."""
        ...

    def speak(self, words: Iterator[str]) -> Iterator[Tensor]:
        """Samples [n] of the text that the pieces `words` make, cut anywhere.

        Often none: after each piece that is taken, so that who has written it can show it before it is spoken.
        Raises DataError: a text that cannot be spoken.
        """
        ...


@dataclass(frozen=True)
class Pieces:
    """An engine that is given pieces of a text.

    voice: one of the speaker's. words: in a piece; 0 for a sentence, None for the whole text.
    Raises ConfigError: the speaker has no such voice.
    """

    speaker: Speaker
    voice: str
    words: int | None = None
    sample_rate = SAMPLE_RATE

    def __post_init__(self) -> None:
        known = _voices(self.speaker)
        if self.voice not in known:
            raise ConfigError(f"tts voice: found {self.voice!r}; expected one of {', '.join(known)}")

    def settings(self) -> Mapping[str, Any]:
        say = "offline" if self.words is None else f"words:{self.words}" if self.words else "sentence"
        return {**self.speaker.settings(), "voice": self.voice, "say": say}

    def speak(self, words: Iterator[str]) -> Iterator[Tensor]:
        held = ""
        for some in words:
            yield torch.empty(0)
            pieces = self._cut(held + some)
            held = pieces.pop()
            yield from map(self._say, filter(_sayable, pieces))
        if _sayable(held):
            yield self._say(held)

    def _cut(self, text: str) -> list[str]:
        """The pieces of `text` that are complete, and behind them what is left of it."""
        if self.words is None:
            return [text]
        if self.words == 0:
            *complete, last = sentences(text) or [""]
            return [*complete, last + text[len(text.rstrip()):]]
        *complete, last = re.split(r"\s+", text)
        complete = [word for word in complete if word]
        many = len(complete) // self.words * self.words
        pieces = [" ".join(complete[start:start + self.words]) for start in range(0, many, self.words)]
        return [*pieces, " ".join([*complete[many:], last])]

    def _say(self, text: str) -> Tensor:
        return torch.from_numpy(self.speaker.speak(text.strip(), self.voice, None))


def offline(speaker: Speaker, voice: str | None = None) -> Pieces:
    """All at the end. voice: which of the speaker's; None: its only one."""
    return Pieces(speaker, voice or _only(speaker))


def by_sentence(speaker: Speaker, voice: str | None = None) -> Pieces:
    """Each sentence as soon as the next one begins."""
    return Pieces(speaker, voice or _only(speaker), 0)


def by_words(speaker: Speaker, n: int, voice: str | None = None) -> Pieces:
    """Every `n` words. Raises ConfigError: n is less than 1."""
    if n < 1:
        raise ConfigError(f"say: found words:{n}; expected 1 word or more in a piece")
    return Pieces(speaker, voice or _only(speaker), n)


def find_tts(spec: str, say: str = "offline", *, voice: str | None = None, url: str | None = None,
             model: str | None = None, api_key: str | None = None, device: str = "cpu") -> TTS:
    """The engine that `spec` names as `data.voices.speaker` does, saying its text as `say`: offline, sentence, words:N.

    voice: a VITS's speaker by its number, or the voice of a server at `url` with that `model`. It has spoken once, so
    that it is loaded and its first answer takes no longer. Raises ConfigError; CheckpointError, which says what to
    download.
    """
    named = {"any": (voice,)} if voice and spec != "offline" else None
    try:
        speaker = find_speaker(spec, voices=named, url=url, model=model, api_key=api_key, device=device)
    except ImportError as error:
        raise ConfigError(f"tts: a Python package is missing ({error}); install it with: pip install 'omnivox[data]'"
                          ) from error
    found = _saying(say, speaker, voice)
    with weights.told_how(spec.removeprefix("vits:"), weights.VITS):
        speaker.speak("Ready.", found.voice, None)
    return found


def _saying(say: str, speaker: Speaker, voice: str | None) -> Pieces:
    kind, _, count = say.partition(":")
    if say == "offline":
        return offline(speaker, voice)
    if say == "sentence":
        return by_sentence(speaker, voice)
    if kind == "words" and count.removeprefix("-").isdecimal():
        return by_words(speaker, int(count), voice)
    raise ConfigError(f"say: found {say!r}; expected offline, sentence, or words:N such as words:3")


def spoken(words: Iterator[str], tts: TTS) -> Parts:
    """What is written (`words`) and, through `tts`, what is heard of it, in the order in which it comes to be."""
    shown = list[str]()

    def noted() -> Iterator[str]:
        for some in words:
            shown.append(some)
            yield some

    for samples in tts.speak(noted()):
        while shown:
            yield Text(shown.pop(0))
        if len(samples):
            yield Audio(samples)
    while shown:
        yield Text(shown.pop(0))


def _voices(speaker: Speaker) -> list[str]:
    return [voice for names in speaker.voices.values() for voice in names]


def _only(speaker: Speaker) -> str:
    known = _voices(speaker)
    if len(known) != 1:
        raise ConfigError(f"tts voice: found {len(known)} voices ({', '.join(known[:5])}); say which one is to answer")
    return known[0]


def _sayable(text: str) -> bool:
    return any(character.isalnum() for character in text)
