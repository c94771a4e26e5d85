"""What every engine of text to speech is to the build. Samples are float32 [n] at 16 kHz."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import soundfile
import soxr

from omnivox.errors import ConfigError, DataError
from omnivox.nano.voices import PACKAGES, Samples
from omnivox.rates import SAMPLE_RATE

Voices = Mapping[str, Sequence[str]]
"""Names of voices by sex (female, male; "any" where that is not known)."""


class Speaker(Protocol):
    """One engine with the voices to be used of it."""

    @property
    def at_once(self) -> int:
        """How many calls of `speak` run well together."""
        ...

    @property
    def voices(self) -> Voices: ...

    def settings(self) -> Mapping[str, Any]:
        """All that the sound depends on, as JSON."""
        ...

    def speak(self, text: str, voice: str, seed: int | None) -> Samples:
        """`text` in `voice`. The same text, voice and seed give the same samples; None: the voice's own plain manner.

        Raises DataError: this text cannot be spoken. ConfigError, ConnectionError: nothing can.
        """
        ...


def program(name: str) -> str:
    """The path of an engine's program. Raises ConfigError with what to install."""
    if (path := shutil.which(name)) is None:
        raise ConfigError(f"{name}: no such program; install it with: apt-get install {PACKAGES.get(name, name)}")
    return path


def decoded(data: bytes, name: str) -> Samples:
    """Mono samples at 16 kHz of a sound file's bytes. Raises DataError, naming the engine."""
    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: raw samples, which say nothing of themselves
        raise DataError(f"{name}: answered with {len(data):,} bytes that are no sound ({error})") from error
    return at_16k(samples.mean(1), rate)


def at_16k(samples: Samples, rate: int) -> Samples:
    """`samples` [n] at `rate` Hz, at 16 kHz."""
    return np.ascontiguousarray(samples if rate == SAMPLE_RATE else soxr.resample(samples, rate, SAMPLE_RATE),
                                dtype=np.float32)
