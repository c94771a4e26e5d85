"""Stage 6: leave out what would teach the wrong thing. Each rejected row keeps every reason, with the measured value.

Duplicates are found among all rows of the input, by the words of their questions; the first of them stays.

A recogniser that does not understand every voice first hears some clips of each. Where it gets most of them wrong its
word error rates tell of itself, not of the speech: it does not judge that voice, and those rows have no such score.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from omnivox.checkpoint.files import find_folder
from omnivox.checkpoint.load import NANO
from omnivox.data.recognise import Recogniser
from omnivox.data.records import Clip, Rejected, Row, Turn
from omnivox.data.sayable import unsayable, words
from omnivox.data.stage import Outcome, Stage
from omnivox.errors import AudioError, CheckpointError, ConfigError
from omnivox.rates import SAMPLE_RATE, exact_div
from omnivox.sound import read_audio

FULL_SCALE = 0.999  # a sample as loud is taken to be clipped
UNDERSTOOD = 2 / 3  # of the recogniser's limit: the median rate over a voice's clips, at most, where it can judge it
_FRAME = exact_div(SAMPLE_RATE, 50)  # samples of 20 ms, over which loudness is measured
_QUIET = 10 ** (-40 / 20)  # of the loudest frame: silence


@dataclass(frozen=True)
class FilterSettings:
    """What is let through. Raises ConfigError.

    question_wer, answer_wer: at most; None: what the recogniser takes for broken. seconds_per_word: both sides.
    clipped, silent: the largest shares of samples at full scale and of time 40 dB below the loudest. peak: the loudest
    sample, at least. question_seconds: at most; Whisper's encoder hears 30. upsample: λ, for more units than λ x tokens
    cannot be aligned. tokenizer: the LLM's (a folder, a hub name, nano); None: words and punctuation marks are counted,
    which are fewer. script: the one whose letters the voices know; None: any.
    """

    question_wer: float | None = None
    answer_wer: float | None = None
    seconds_per_word: tuple[float, float] = (0.12, 2.0)
    clipped: float = 0.001
    silent: float = 0.7
    peak: float = 0.01
    question_seconds: float = 30.0
    upsample: int = 25
    tokenizer: str | None = None
    script: str | None = "LATIN"
    duplicates: bool = True

    def __post_init__(self) -> None:
        low, high = self.seconds_per_word
        if not 0 <= low < high:
            raise ConfigError(f"seconds_per_word: found {low} to {high}; expected the smaller first, neither below 0")
        for name in ("clipped", "silent", "peak"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: found {getattr(self, name)}; expected a share, 0 to 1")
        if self.upsample < 1:
            raise ConfigError(f"upsample: found {self.upsample}; expected 1 or more")


class FilterStage(Stage):
    """recogniser: measures word error rates; None: nobody does. What was measured is kept in `Row.scores`, of a
    conversation the worst of its turns."""

    name = "filter"

    def __init__(self, settings: FilterSettings | None = None, recogniser: Recogniser | None = None) -> None:
        self.limits, self.recogniser = settings or FilterSettings(), recogniser
        self._doubles: dict[str, str] = {}  # the reason, by the row's id
        self._foreign: set[str] = set()  # voices that the recogniser does not understand
        self._heard: dict[str, float | None] = {}  # word error rates that are known already, by the clip's path

    def settings(self) -> Mapping[str, Any]:
        return {**asdict(self.limits), "recogniser": self.recogniser.settings() if self.recogniser else None}

    def begin(self, build: Path, rows: Iterable[Row]) -> None:
        first: dict[str, tuple[str, str]] = {}
        said: list[tuple[str, Clip | None]] = []
        for row in rows:
            if self.recogniser:
                said += [(text, clip) for turn in row.turns for text, clip in (
                    (turn.question, turn.question_audio), (turn.answer, turn.answer_audio)) if text]
            exact = "\n".join(turn.question or turn.instruction for turn in row.turns)
            one, same = first.setdefault(" ".join(re.findall(r"\w+", exact.lower())), (row.id, exact))
            if one != row.id:
                how = "asked before" if same == exact else "asked before in other letters"
                self._doubles[row.id] = f"duplicate: {how}, by row {one}"
        if self.recogniser:
            self.recogniser.begin(text for text, _ in said)
            if self.recogniser.auditions:
                self._audition(self.recogniser, said, build)

    def _audition(self, recogniser: Recogniser, said: Iterable[tuple[str, Clip | None]], build: Path) -> None:
        """Learn which voices `recogniser` understands, from the first clips of each that it can judge."""
        rates: dict[str, list[float]] = {}
        for text, clip in said:
            if clip is None or len(found := rates.setdefault(clip.voice, [])) == recogniser.auditions:
                continue
            try:
                rate = self._heard[clip.path] = recogniser.errors([text], [_read(clip, build)])[0]
            except AudioError:  # `judge` says so
                continue
            found += [] if rate is None else [rate]
        self._foreign = {voice for voice, found in rates.items()
                         if found and median(found) > UNDERSTOOD * recogniser.max_wer}

    def apply(self, rows: Sequence[Row], build: Path) -> Iterator[Outcome]:
        for row in rows:
            yield self.judge(row, build)

    def judge(self, row: Row, build: Path) -> Outcome:
        """The row with its scores, or all that is wrong with it."""
        reasons = [self._doubles[row.id]] if self.limits.duplicates and row.id in self._doubles else []
        scores: dict[str, float] = {}
        for index, turn in enumerate(row.turns, 1):
            where = f" of turn {index}" if len(row.turns) > 1 else ""
            reasons += [f"{kind}: {told}{where}" for kind, told in self._texts(turn)]
            try:
                waves = [None if clip is None else _read(clip, build)
                         for clip in (turn.question_audio, turn.answer_audio)]
            except AudioError as error:
                reasons.append(f"sound: {error}")
                continue
            for name, value in self._measured(turn, waves).items():
                worst = min if name.endswith("_peak") else max
                scores[name] = worst(value, scores.get(name, value))
                if told := self._beyond(name, value):
                    reasons.append(f"{told}{where}")
        if reasons:
            return Rejected("; ".join(dict.fromkeys(reasons)))
        return replace(row, scores={**row.scores, **scores})

    def _texts(self, turn: Turn) -> Iterator[tuple[str, str]]:
        for side in ("question", "answer"):
            text = getattr(turn, side)
            if text is None:
                yield "unanswered", f"no {side} as speech"
            elif found := unsayable(text, self.limits.script):
                yield "unsayable", f"{side}, {found}"

    def _measured(self, turn: Turn, waves: list[Tensor | None]) -> dict[str, float]:
        """Every value by its name, "side_what"."""
        found: dict[str, float | None] = {}
        for side, wave in zip(("question", "answer"), waves, strict=True):
            text = getattr(turn, side) or ""
            if wave is not None:
                seconds = len(wave) / SAMPLE_RATE
                found |= {f"{side}_seconds": seconds, f"{side}_pace": seconds / max(1, words(text)),
                          f"{side}_peak": float(wave.abs().max()), f"{side}_clipped": clipped(wave),
                          f"{side}_silent": silent(wave)}
                found[f"{side}_wer"] = self._error_rate(text, getattr(turn, f"{side}_audio"), wave)
        if turn.units is not None and turn.answer is not None:
            found["units_per_token"] = len(turn.units) / self.tokens(turn.answer)
        return {name: round(value, 4) for name, value in found.items() if value is not None}

    def _error_rate(self, text: str, clip: Clip, wave: Tensor) -> float | None:
        """None where nobody can judge."""
        if self.recogniser is None or clip.voice in self._foreign:
            return None
        if clip.path in self._heard:
            return self._heard[clip.path]
        return self.recogniser.errors([text], [wave])[0]

    def _beyond(self, name: str, value: float) -> str | None:
        """What is wrong with a value, if anything."""
        limits = self.limits
        side, _, what = name.partition("_")
        low, high = limits.seconds_per_word
        if what == "pace" and not low <= value <= high:
            return f"pace: {side}, {value:.2f} s per word; expected {low:g} to {high:g}"
        if what == "peak" and value < limits.peak:
            return f"silence: {side}, nothing louder than {value:.4f}; expected {limits.peak:g}"
        if what == "silent" and value > limits.silent:
            return f"silence: {side}, {value:.0%} of the time; expected {limits.silent:.0%} at most"
        if what == "clipped" and value > limits.clipped:
            return f"clipping: {side}, {value:.2%} of the samples; expected {limits.clipped:.2%} at most"
        if name == "question_seconds" and value > limits.question_seconds:
            return f"length: question, {value:.1f} s; expected {limits.question_seconds:g} at most"
        if what == "wer" and self.recogniser:
            limit = getattr(limits, name)
            limit = self.recogniser.max_wer if limit is None else limit
            return f"wer: {side}, {value:.2f}; expected {limit:.2f} at most" if value > limit else None
        if name == "units_per_token" and value > limits.upsample:
            return f"units: {value:.1f} per token; expected λ = {limits.upsample} at most"
        return None

    def tokens(self, text: str) -> int:
        """How many positions of the LLM an answer has, its end included."""
        if self.limits.tokenizer is None:
            return len(re.findall(r"\w+|[^\w\s]", text)) + 1
        return len(_tokenizer(self.limits.tokenizer)(text, add_special_tokens=False).input_ids) + 1


def _read(clip: Clip, build: Path) -> Tensor:
    return read_audio(build / clip.path, max_seconds=3600.0)


def clipped(wave: Tensor) -> float:
    """The share of samples of `wave` [n] at full scale."""
    return float((wave.abs() >= FULL_SCALE).float().mean())


def silent(wave: Tensor) -> float:
    """The share of the 20 ms frames of `wave` [n] that are 40 dB or more below the loudest one."""
    frames = torch.nn.functional.pad(wave, (0, -len(wave) % _FRAME)).view(-1, _FRAME)
    loudness = frames.square().mean(1).sqrt()
    return float((loudness <= _QUIET * loudness.max()).float().mean())


@cache
def _tokenizer(name: str) -> Any:
    from transformers import AutoTokenizer

    folder = NANO if name == "nano" else find_folder(name)
    try:
        return AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # transformers, tokenizers and sentencepiece each raise their own
        raise CheckpointError(f"{folder}: its tokenizer cannot be read ({type(error).__name__}: {error})") from error
