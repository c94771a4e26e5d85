"""What is measured: answers; and what a measure says of each: a number, or why there is none.

A measure is made once, and says then, by an error, what it lacks: a package, weights, a judge. The same answers give
the same values.

Shapes: n samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from omnivox.errors import AudioError
from omnivox.rates import SAMPLE_RATE
from omnivox.sound import read_audio

SILENT = "nothing was spoken"  # why speech cannot be measured


@dataclass(frozen=True)
class Answer:
    """One answer of a system. question: in words. text: as written. audio: as spoken, float32 [n] at `sample_rate` Hz;
    None where the system does not speak. expected: a right answer, where one is known."""

    id: str
    question: str
    text: str
    audio: Tensor | None = None
    sample_rate: int = SAMPLE_RATE
    expected: str | None = None


@dataclass(frozen=True)
class Value:
    """value: the number, or None; then `why` says in a short sentence what stood against it. detail: all that the
    number was made from, as JSON."""

    value: float | None
    why: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert (self.value is None) == (self.why is not None), "a value or a reason"
        assert self.value is None or math.isfinite(self.value), f"{self.value} is no finite number"


class Measure(Protocol):
    """Numbers about answers, under one name. Raises ConfigError or CheckpointError when made: what is missing."""

    @property
    def name(self) -> str:
        """For tables and files: "asr_wer"."""
        ...

    def settings(self) -> Mapping[str, Any]:
        """All that its numbers depend on beside the answers, as JSON."""
        ...

    def measure(self, answers: Sequence[Answer]) -> list[Value]:
        """One value an answer, in their order."""
        ...


def speech(answer: Answer) -> Tensor | None:
    """What was spoken, [n] at 16 kHz, n = 0 where it was an empty sound; None where the system does not speak.

    Raises AudioError: samples that are not finite, or longer than can be read.
    """
    if answer.audio is None or not answer.audio.numel():
        return None if answer.audio is None else torch.zeros(0)
    return read_audio(answer.audio, SAMPLE_RATE, source_rate=answer.sample_rate)


def of_speech(answers: Sequence[Answer], judge: Callable[[Answer, Tensor], Value]) -> list[Value]:
    """What `judge` says of each answer and its sound [n] at 16 kHz; no value where there is none that can be heard."""
    return [_of_one(answer, judge) for answer in answers]


def _of_one(answer: Answer, judge: Callable[[Answer, Tensor], Value]) -> Value:
    try:
        wave = speech(answer)
    except AudioError as error:
        return Value(None, str(error))
    return Value(None, SILENT) if wave is None else judge(answer, wave)
