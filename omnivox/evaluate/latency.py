"""How long after the end of a question does each part of the answer come? Every figure is defined in docs/latency.md.

Questions are asked one after another, each answered to its end; where two ways of answering are compared, they take
turns, so that a machine that slows down slows both.

Shapes: n samples at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from omnivox.errors import ConfigError
from omnivox.evaluate.pace import lagging_words, words_per_second
from omnivox.evaluate.published import Published
from omnivox.rates import SAMPLE_RATE
from omnivox.runtime.clock import Clock
from omnivox.runtime.events import Audio, Done, Reply, Text, Timings
from omnivox.runtime.respond import Omni

PARTS = ("mel", "encode", "prefill", "first_token", "first_units", "first_audio", "total")
PERCENTS = (50, 95, 99)
OURS, PUBLISHED = "ours", "published"
WARM_UP = 2  # replies of each way that are not counted


@dataclass(frozen=True)
class LatencySettings:
    """How the questions are asked. runs: how often each. published: also in the published implementation's way."""

    omega: int = 10
    lookahead: int | None = None
    max_new_tokens: int = 256
    runs: int = 1
    published: bool = False

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise ConfigError(f"runs: found {self.runs}; expected 1 or more")


@dataclass(frozen=True)
class Answered:
    """One reply. lagging: words written before its first sound; None without a sound or without words."""

    reply: Reply
    timings: Timings
    lagging: int | None


class WaitingClock(Clock):
    """A clock that lets a GPU finish before it reads a lap, so that each part is charged with its own work."""

    def __init__(self, wait: Callable[[], None]) -> None:
        super().__init__()
        self.wait = wait

    def lap(self) -> float:
        self.wait()
        return super().lap()


def noise(seconds: float, seed: int = 0) -> Tensor:
    """A question [n] about nothing, for models that know nothing."""
    return 0.1 * torch.randn(round(seconds * SAMPLE_RATE), generator=torch.Generator().manual_seed(seed))


# -- asking -----------------------------------------------------------------------------------------------------------

def measure(omni: Omni, questions: Sequence[Tensor], settings: LatencySettings, *, echo: bool = True
            ) -> dict[str, Any]:
    """Ask every question and say what it took: `variants` (`ours` and, if asked for, `published`), their `ratios`, and
    how many replies of both have the same text and the same units. Raises ConfigError: no question, or no sound.
    """
    if not questions:
        raise ConfigError("questions: found none; expected one or more")
    ways: dict[str, Omni] = {OURS: omni} | ({PUBLISHED: Published.of(omni)} if settings.published else {})
    cold = {}
    for name, way in ways.items():
        cold[name], *_ = [ask(way, questions[0], settings) for _ in range(WARM_UP)]
    answered: dict[str, list[Answered]] = {name: [] for name in ways}
    turns = [(question, name) for _ in range(settings.runs) for question in questions for name in ways]
    for question, name in track(turns, "latency", console=Console(stderr=True), disable=not echo):
        answered[name].append(ask(ways[name], question, settings))
    variants = {name: summary(found) | {"cold_first_audio_ms": _ms(cold[name].timings.first_audio)}
                for name, found in answered.items()}
    result: dict[str, Any] = {"variants": variants}
    if settings.published:
        pairs = list(zip(answered[OURS], answered[PUBLISHED], strict=True))
        result["ratios"] = ratios(variants[PUBLISHED], variants[OURS])
        result["same_tokens"] = sum(a.reply.token_ids == b.reply.token_ids for a, b in pairs)
        result["same_units"] = sum(a.reply.units == b.reply.units for a, b in pairs)
    return result


def ask(omni: Omni, question: Tensor, settings: LatencySettings) -> Answered:
    """One reply to its end."""
    text, lagging = "", None
    options: dict[str, Any] = {"chunk_units": settings.omega, "lookahead": settings.lookahead}
    for event in omni.respond(question, max_new_tokens=settings.max_new_tokens, **options):
        match event:
            case Text(delta):
                text += delta
            case Audio() if lagging is None and omni.tokenizer is not None:
                lagging = lagging_words(text)
            case Done(reply):
                return Answered(reply, _own_times(omni, question, reply.timings), lagging)
    raise AssertionError("a reply ends in Done")


def _own_times(omni: Omni, question: Tensor, timings: Timings) -> Timings:
    """On a GPU, mel, encode and prefill of one more reply, one that waits for each: otherwise they are launched and
    their time is charged to the first token, the first that is waited for."""
    kind = omni.embedding.weight.device.type
    if kind == "cpu":
        return timings
    usual, omni.clock = omni.clock, lambda: WaitingClock(torch.accelerator.synchronize)
    try:
        *_, done = omni.respond(question, max_new_tokens=1, speak=False)
    finally:
        omni.clock = usual
    assert isinstance(done, Done)
    waited = done.reply.timings
    return replace(timings, mel=waited.mel, encode=waited.encode, prefill=waited.prefill)


# -- summing up -------------------------------------------------------------------------------------------------------

def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99, between two values by linear interpolation. Raises ValueError: no values."""
    if not values:
        raise ValueError("percentiles: found no values; expected one or more")
    return {f"p{percent}": float(np.percentile(values, percent)) for percent in PERCENTS}


def summary(answered: Sequence[Answered]) -> dict[str, Any]:
    """What the replies took. Units and sound are of those that were spoken. Raises ConfigError: none was."""
    spoken = [one for one in answered if len(one.reply.audio)]
    if not spoken:
        raise ConfigError("latency: no question was answered in speech; ask others, or allow longer replies")
    parts = {}
    for part in PARTS:
        of = spoken if part in ("first_units", "first_audio") else answered
        parts[part] = {name: _ms(value) for name, value in percentiles([getattr(a.timings, part) for a in of]).items()}
    seconds = sum(one.timings.audio_seconds for one in spoken)
    rate = words_per_second(" ".join(one.reply.text for one in spoken), seconds)
    lagging = [one.lagging for one in spoken if one.lagging is not None]
    return {
        "ms": parts, "replies": len(answered), "spoken": len(spoken),
        "real_time_factor": round(sum(one.timings.total for one in spoken) / seconds, 4),
        "decoding_seconds": round(float(np.mean([one.timings.total for one in answered])), 4),
        "answer_seconds": round(seconds / len(spoken), 2),
        "tokens": round(float(np.mean([len(one.reply.token_ids) for one in answered])), 1),
        "units": round(float(np.mean([len(one.reply.units) for one in spoken])), 1),
        "words_per_second": round(rate, 2) if rate else None,
        "lagging_words": round(float(np.mean(lagging)), 2) if lagging else None,
    }


def ratios(of: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, float]:
    """How many times as long `of` takes at the median as `over`: each part, and the real-time factor."""
    found = {part: _ratio(of["ms"][part]["p50"], over["ms"][part]["p50"]) for part in PARTS}
    found["real_time_factor"] = _ratio(of["real_time_factor"], over["real_time_factor"])
    return {name: value for name, value in found.items() if value is not None}


def _ratio(above: float, below: float) -> float | None:
    return round(above / below, 2) if below else None


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)
