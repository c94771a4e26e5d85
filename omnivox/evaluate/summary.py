"""A run in figures: each a number, or the reason why there is none.

    first_units_ms, first_audio_ms, vocoder_ms, total_ms     medians over the answers that were spoken
    s2tif_seconds, s2sif_seconds                             means: until the last word was written, the last sound made
    words_per_second                                         words of the text answers by seconds of speech
    lagging_words                                            mean: written before the first sound
    wer, cer                                                 asr_wer, asr_cer: all edits by the length of all
    any other measure, by its name                           mean over the answers that have a value
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from omnivox.evaluate.alignment import corpus_rate
from omnivox.evaluate.folder import Answered, RunFolder, Score
from omnivox.evaluate.measure import Value
from omnivox.evaluate.pace import count_words, words_per_second

POOLED = {"asr_wer": "wer", "asr_cer": "cer"}


@dataclass(frozen=True)
class Figure:
    """value: the number, over `n` answers; or None, and `why`. by: settings of what measured it."""

    value: float | None = None
    n: int = 0
    why: str | None = None
    by: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """answered: with an answer. failed: those on which the system failed. missing: why a measure could not be had."""

    folder: Path
    about: Mapping[str, Any]
    rows: Sequence[Answered]
    figures: Mapping[str, Figure]
    missing: Mapping[str, str]

    @property
    def answered(self) -> int:
        return sum(row.error is None for row in self.rows)

    @property
    def failed(self) -> int:
        return len(self.rows) - self.answered

    @property
    def name(self) -> str:
        """Of the system."""
        return str(self.about["system"]["name"])

    @property
    def spec(self) -> str:
        """What the user called the system."""
        return str(self.about["system"]["spec"])

    @property
    def settings(self) -> Mapping[str, Any]:
        """Of the system."""
        found: Mapping[str, Any] = self.about["system"]["settings"]
        return found

    def told(self) -> dict[str, Any]:
        """As JSON."""
        figures = {name: {"value": round(figure.value, 6), "n": figure.n} if figure.value is not None
                   else {"value": None, "why": figure.why} for name, figure in self.figures.items()}
        return {"system": self.spec, "folder": str(self.folder), "answered": self.answered, "failed": self.failed,
                "figures": figures, "unavailable": dict(self.missing)}

    def figure(self, name: str) -> Figure:
        """That figure; the reason, where there is none."""
        if name in self.figures:
            return self.figures[name]
        pooled = {short: measure for measure, short in POOLED.items()}.get(name, name)
        return Figure(why=self.missing.get(pooled, f"--measure {pooled} was not asked for"))


def find_runs(work: str | Path) -> list[RunFolder]:
    """Every run's folder under `work`, in the order of their paths."""
    return [RunFolder(file.parent) for file in sorted(Path(work).rglob("run.json"))]


def summarise(run: RunFolder) -> Summary:
    """Raises DataError: the folder cannot be read."""
    rows = list(run.answers().values())
    well = [row for row in rows if row.error is None]
    figures = _timings(well) | _pace(well) | _scores(run.scores().values(), {row.id for row in well})
    return Summary(run.path, run.about(), rows, figures, run.unavailable())


def _timings(rows: Sequence[Answered]) -> dict[str, Figure]:
    spoken = [row.timings or {} for row in rows if row.audio is not None]
    units = [timings for timings in spoken if timings.get("first_units")]
    figures = {f"{part}_ms": _over(median, [1000 * one[part] for one in spoken if one.get(part)], "nothing was spoken")
               for part in ("first_audio", "total")}
    none = "the system tells of no units"
    figures["first_units_ms"] = _over(median, [1000 * one["first_units"] for one in units], none)
    waited = [1000 * (one["first_audio"] - one["first_units"]) for one in units]
    figures["vocoder_ms"] = _over(median, waited, none)
    figures["s2sif_seconds"] = _over(fmean, [one["total"] for one in spoken], "nothing was spoken")
    written = [row.text_done for row in rows if row.text_done is not None]
    return figures | {"s2tif_seconds": _over(fmean, written, "nothing was written")}


def _pace(rows: Sequence[Answered]) -> dict[str, Figure]:
    spoken = [row for row in rows if row.seconds and count_words(row.text)]
    lagging = [float(row.lagging_words) for row in spoken if row.lagging_words is not None]
    rate = words_per_second(" ".join(row.text for row in spoken), sum(row.seconds for row in spoken))
    return {"words_per_second": Figure(rate, len(spoken), None if spoken else "nothing was spoken"),
            "lagging_words": _over(fmean, lagging, "nothing was spoken")}


def _scores(scores: Iterable[Score], answered: set[str]) -> dict[str, Figure]:
    """One figure a measure; of a measure that was taken with several settings, of the last."""
    taken: dict[str, dict[str, list[Score]]] = {}
    for score in scores:
        if score.id in answered:
            taken.setdefault(score.measure, {}).setdefault(json.dumps(score.by, sort_keys=True), []).append(score)
    return {POOLED.get(name, name): _figure(name, list(by.values())[-1]) for name, by in taken.items()}


def _figure(name: str, scores: Sequence[Score]) -> Figure:
    valued = [score for score in scores if score.value is not None]
    if not valued:
        return Figure(why=next((score.why for score in scores if score.why), "no answer could be measured"))
    if name in POOLED:
        value = corpus_rate(Value(score.value, None, score.detail) for score in valued)
        return Figure(value, len(valued), None if value is not None else "the answers hold no words", valued[0].by)
    return Figure(fmean(score.value for score in valued if score.value is not None), len(valued), None, valued[0].by)


def _over(of: Any, values: Sequence[float], otherwise: str) -> Figure:
    return Figure(float(of(values)), len(values)) if values else Figure(why=otherwise)
