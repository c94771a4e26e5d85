"""What was built, in figures: a data card beside the paper's own, a description for trainers, rows to listen to.

The paper's: InstructS2S-200K of LLaMA-Omni (arXiv 2409.06666, version 2).
"""

from __future__ import annotations

import base64
import html
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from omnivox.data.dataset import DESCRIPTION
from omnivox.data.manifest import Manifest, StageFolder
from omnivox.data.records import Row, row_from
from omnivox.data.sayable import words
from omnivox.data.stage import STAGES
from omnivox.data.write import arrow, flac
from omnivox.errors import AudioError, DataError
from omnivox.writing import alone, atomic

PAPER = {"turns": 200_000, "question_hours": 418.0, "question_seconds": 7.5, "answer_hours": 1058.0,
         "answer_seconds": 19.0, "answer_words": 39.5, "answer_units": 553.6}
_MEANT = {
    "conversations": "conversations", "turns": "turns", "question_hours": "hours of questions",
    "question_seconds": "seconds a question", "question_words": "words a question",
    "answer_hours": "hours of answers", "answer_seconds": "seconds an answer", "answer_words": "words an answer",
    "answer_units": "units an answer", "units_a_second": "units a second of answer",
    "question_wer": "word error rate of questions, the worst of a conversation",
    "questions_judged": "conversations whose questions it was measured of",
    "answer_wer": "word error rate of answers, likewise",
    "answers_judged": "conversations whose answers it was measured of"}


@dataclass
class Heard:
    """Word error rates: how many, and their sum in ten-thousandths, which adds up the same in any order."""

    count: int = 0
    total: int = 0

    def add(self, rate: float) -> None:
        self.count += 1
        self.total += round(10_000 * rate)

    @property
    def mean(self) -> float:
        return round(self.total / 10_000 / max(1, self.count), 3)


@dataclass
class Statistics:
    """Sums over conversations. heard: by side and voice."""

    conversations: int = 0
    turns: int = 0
    quantised: int = 0  # turns with units
    sums: Counter[str] = field(default_factory=Counter)
    voices: dict[str, Counter[str]] = field(default_factory=lambda: {"question": Counter(), "answer": Counter()})
    heard: dict[str, dict[str, Heard]] = field(default_factory=lambda: {"question": {}, "answer": {}})
    sources: Counter[tuple[str, str]] = field(default_factory=Counter)  # (source, licence)

    def add(self, row: Row) -> None:
        """Count a conversation."""
        self.conversations += 1
        self.sources[row.source, row.licence] += 1
        for side, voices in self.heard.items():
            rate, clip = row.scores.get(f"{side}_wer"), getattr(row.turns[0], f"{side}_audio")
            if rate is not None:
                voices.setdefault(clip.voice or "unknown" if clip else "unknown", Heard()).add(rate)
        for turn in row.turns:
            self.turns += 1
            for side, clip in (("question", turn.question_audio), ("answer", turn.answer_audio)):
                self.sums[f"{side}_words"] += words(getattr(turn, side) or "")
                if clip is not None:
                    self.sums[f"{side}_ms"] += round(1000 * clip.seconds)
                    self.voices[side][clip.voice or "unknown"] += 1
            if turn.units is not None:
                self.quantised += 1
                self.sums["units"] += len(turn.units)
                self.sums["quantised_ms"] += round(1000 * turn.answer_audio.seconds) if turn.answer_audio else 0

    def figures(self) -> dict[str, float]:
        """Means and totals under the names of `_MEANT`; those of units and of word error rates where there are any."""
        each = max(1, self.turns)
        found: dict[str, float] = {"conversations": self.conversations, "turns": self.turns}
        for side in ("question", "answer"):
            seconds = self.sums[f"{side}_ms"] / 1000
            found |= {f"{side}_hours": round(seconds / 3600, 3), f"{side}_seconds": round(seconds / each, 2),
                      f"{side}_words": round(self.sums[f"{side}_words"] / each, 2)}
        if self.quantised:
            found["answer_units"] = round(self.sums["units"] / self.quantised, 1)
            found["units_a_second"] = round(1000 * self.sums["units"] / max(1, self.sums["quantised_ms"]), 1)
        for side, voices in self.heard.items():
            if count := sum(one.count for one in voices.values()):
                found[f"{side}_wer"] = Heard(count, sum(one.total for one in voices.values())).mean
                found[f"{side}s_judged"] = count
        return {name: found[name] for name in _MEANT if name in found}


def finish_dataset(build: str | Path, preview: int = 20) -> Path:
    """Write the card, the description and a preview of the first rows, and of as many that were left out, beside the
    Parquet files of a finished build; the folder they are in. Raises DataError: the stage `write` is not finished."""
    build = Path(build)
    folder = StageFolder(build, "write")
    folder.complete()
    with alone(build, "building"):
        statistics = Statistics()
        for row in folder.rows():
            statistics.add(row)
        stages = _stages(build)
        _write_json(folder.path / DESCRIPTION, describe(folder.path, stages, statistics))
        _write_json(folder.path / "card.json", card(statistics, stages))
        _write(folder.path / "README.md", markdown(card(statistics, stages)))
        _write(folder.path / "preview.html", page(islice(folder.rows(), preview), build, _left(build, preview)))
    return folder.path


def _stages(build: Path) -> dict[str, tuple[Manifest, Counter[str]]]:
    """The manifest of every finished stage, and how many rows it rejected by the word that the reason begins with."""
    found = {}
    for name in STAGES:
        folder = StageFolder(build, name)
        manifest = folder.manifest()
        if manifest is not None and manifest.complete:
            found[name] = (manifest, folder.reasons())
    return found


def _left(build: Path, most: int) -> list[tuple[Row, str]]:
    """Rows that were rejected and why, of the last stages first: those have been spoken."""
    folders = [StageFolder(build, name) for name in reversed(STAGES)]
    left = (one for folder in folders if (found := folder.manifest()) and found.complete for one in folder.rejections())
    return [(row_from(one["row"], "rejected"), f"{one['stage']}: {one['reason']}") for one in islice(left, most)]


def describe(folder: Path, stages: Mapping[str, tuple[Manifest, Counter[str]]],
             statistics: Statistics) -> dict[str, Any]:
    """For trainers: the files with their conversations, how many units there are, who speaks."""
    shards = []
    for file in sorted((folder / "data").glob("train-*.parquet")):
        turns = arrow().parquet.read_table(file, columns=["turn"]).column("turn").to_pylist()
        shards.append({"file": file.relative_to(folder).as_posix(), "dialogues": turns.count(0), "turns": len(turns)})
    if sum(shard["dialogues"] for shard in shards) != statistics.conversations:
        raise DataError(f"{folder / 'data'}: its files do not hold what the manifest says; remove {folder} and run the "
                        "stage 'write' again")
    quantiser = dict(stages["quantise"][0].settings) if "quantise" in stages else {}
    return {"format": 1, "shards": shards, "conversations": statistics.conversations, "turns": statistics.turns,
            "units": quantiser.get("units"), "quantiser": quantiser or None,
            "answer_voices": sorted(statistics.voices["answer"]), "figures": statistics.figures()}


def card(statistics: Statistics, stages: Mapping[str, tuple[Manifest, Counter[str]]]) -> dict[str, Any]:
    """The data card as JSON."""
    return {
        "figures": statistics.figures(), "paper": PAPER,
        "voices": {side: dict(sorted(counts.items())) for side, counts in statistics.voices.items()},
        "word_error_rates": {side: {voice: one.mean for voice, one in sorted(voices.items())}
                             for side, voices in statistics.heard.items()},
        "sources": [{"source": source, "licence": licence, "conversations": count}
                    for (source, licence), count in sorted(statistics.sources.items())],
        "stages": {name: {"rows": manifest.rows, "rejected": manifest.rejected,
                          "reasons": dict(sorted(reasons.items())), "settings": dict(manifest.settings)}
                   for name, (manifest, reasons) in stages.items()}}


def markdown(found: Mapping[str, Any]) -> str:
    """The card as Markdown, with the header that the hub reads."""
    figures = found["figures"]
    lines = ["---", "configs:", "- config_name: default", "  data_files:", "  - split: train",
             "    path: data/*.parquet", "task_categories:", "- audio-to-audio", "- text-to-speech", "---", "",
             "# Spoken instructions", "",
             f"Spoken questions and spoken answers, {'with' if 'answer_units' in figures else 'without'} the answers' "
             "discrete units, built by omnivox after the recipe of LLaMA-Omni (arXiv 2409.06666). A row is a turn; the "
             "turns of a conversation share their `id`.", "",
             "## Figures", "", "| | this data | InstructS2S-200K (the paper's) |", "|---|---|---|"]
    lines += [f"| {_MEANT[name]} | {value:,} | {_cell(PAPER.get(name))} |" for name, value in figures.items()]
    rates = found["word_error_rates"]
    if not any(rates.values()):
        lines += ["", "No recogniser listened: word error rates were not measured."]
    lines += ["", "All speech is synthetic: no person was recorded for it, unless a source below says otherwise.", "",
              "## Sources", "", "| source | licence | conversations |", "|---|---|---|"]
    lines += [f"| {_plain(one['source'])} | {_plain(one['licence'])} | {one['conversations']:,} |"
              for one in found["sources"]]
    for side, heading in (("question", "Voices of the questions"), ("answer", "Voice of the answers")):
        lines += ["", f"## {heading}", "", "| voice | turns | word error rate |", "|---|---|---|"]
        lines += [f"| {_plain(name)} | {count:,} | {rates[side].get(name, 'not judged')} |"
                  for name, count in found["voices"][side].items()]
    lines += ["", "## How it was built", "", "| stage | rows | rejected | reasons |", "|---|---|---|---|"]
    lines += [f"| {name} | {stage['rows']:,} | {stage['rejected']:,} | "
              f"{', '.join(f'{_plain(reason)} {count:,}' for reason, count in stage['reasons'].items())} |"
              for name, stage in found["stages"].items()]
    lines += ["", "Every setting is in `card.json`.", ""]
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:,}"


def _plain(text: str) -> str:
    """`text` in a cell of a Markdown table."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")


_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
article{border-top:1px solid #ccc;padding:1rem 0}audio{width:100%;height:2rem}
small{color:#666;overflow-wrap:anywhere}dt{font-weight:600}dd{margin:0 0 .5rem}"""


def page(rows: Iterable[Row], build: Path, left: Sequence[tuple[Row, str]] = ()) -> str:
    """Rows to listen to, and some that were left out with the reason, as one HTML page that needs nothing else."""
    articles = "\n".join(_article(row, build) for row in rows)
    if left:
        articles += "\n<h1>Left out</h1>\n" + "\n".join(_article(row, build, reason) for row, reason in left)
    return ("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Spoken instructions</title>"
            f"<meta name=\"viewport\" content=\"width=device-width\"><style>{_STYLE}</style></head>\n"
            f"<body><h1>Spoken instructions</h1>\n{articles}\n</body></html>\n")


def _article(row: Row, build: Path, reason: str = "") -> str:
    parts = [f"<article><small>{html.escape(row.id)} · {html.escape(row.source)} · {html.escape(row.licence)}</small>",
             f"<p>{html.escape(reason)}</p>" if reason else ""]
    for turn in row.turns:
        parts.append("<dl>")
        if turn.question is None:
            parts.append(f"<dt>Instruction</dt><dd>{html.escape(turn.instruction)}</dd>")
        for side, text, clip in (("question", turn.question, turn.question_audio),
                                 ("answer", turn.answer, turn.answer_audio)):
            if text is None and clip is None:
                continue
            parts.append(f"<dt>{side.title()}</dt><dd>{html.escape(text or '')}")
            if clip is not None:
                try:
                    data = base64.b64encode(flac(clip, build)).decode()
                    parts.append(f"<audio controls preload=\"none\" src=\"data:audio/flac;base64,{data}\"></audio>")
                except AudioError as error:
                    parts.append(f"<small>{html.escape(str(error))}</small>")
                parts.append(f"<small>{html.escape(clip.voice)} · {clip.seconds:.1f} s</small>")
            parts.append("</dd>")
        if turn.units is not None:
            parts.append(f"<dt>{len(turn.units)} units</dt><dd><small>{' '.join(map(str, turn.units))}</small></dd>")
        parts.append("</dl>")
    if row.scores:
        scores = " · ".join(f"{name} {value:g}" for name, value in sorted(row.scores.items()))
        parts.append(f"<small>{html.escape(scores)}</small>")
    return "".join([*parts, "</article>"])


def _write_json(path: Path, found: Mapping[str, Any]) -> None:
    _write(path, json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def _write(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
