"""The paper's tables, of what was measured here, beside the paper's own figures.

    1   every system: answers as text and as speech (1 to 5), word and character errors, naturalness, first sound
    2   the trade of latency for quality: Ω, lookahead, chunks vocoded alone, pieces of text spoken
    3   decoding time: until the text is there, until the speech is there
    4   one question and what every system answers, to be read and heard

A cell holds a number, or the reason why there is none; nothing is filled in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from omnivox.evaluate.compare import absent_systems
from omnivox.evaluate.measures import MARKS
from omnivox.evaluate.summary import Figure, Summary

MEASURED = "measured"
LONG = 10**9  # Ω of a stream that is none


@dataclass(frozen=True)
class Column:
    """key: of a figure; places: digits behind the point; scale: by which it is shown, 100 for per cent."""

    key: str
    heading: str
    places: int
    scale: float = 1.0


FIRST_AUDIO = Column("first_audio_ms", "first sound, ms", 0)
WER, CER = Column("wer", "WER, %", 2, 100.0), Column("cer", "CER, %", 2, 100.0)
UTMOS, DNSMOS, PLCMOS = (Column(name, name.upper().replace("_", " "), 3) for name in ("utmos", "dnsmos_ovrl", "plcmos"))
JUDGED = [Column(f"{kind}_{mark}", f"{kind.upper()} {mark}", 2)
          for marks in MARKS.values() for mark in marks for kind in ("s2tif", "s2sif")]
EXACT = Column("exact", "exact, %", 1, 100.0)
TABLE1 = [*JUDGED, EXACT, WER, CER, UTMOS, DNSMOS, PLCMOS, FIRST_AUDIO]
TABLE2 = [Column("first_units_ms", "first units, ms", 1), Column("vocoder_ms", "vocoder, ms", 1), FIRST_AUDIO,
          JUDGED[-1], WER, UTMOS, DNSMOS, PLCMOS, Column("words_per_second", "words/s", 2),
          Column("lagging_words", "lagging words", 1)]
TABLE3 = [Column("s2tif_seconds", "text, s", 3), Column("s2sif_seconds", "speech, s", 3)]


@dataclass(frozen=True)
class Row:
    """label: the system and its settings. source: "measured", or which version of the paper."""

    label: str
    source: str
    cells: Mapping[str, Figure]
    settings: Mapping[str, str] = field(default_factory=dict)  # columns of words in front of the figures


@dataclass(frozen=True)
class Table:
    """Rows under columns. named: columns of words in front. absent: columns of which no row has a number, and why."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    named: Sequence[str] = ()
    absent: Mapping[str, str] = field(default_factory=dict)

    def cells(self) -> tuple[list[list[str]], list[str]]:
        """Each row's words and figures as they are shown, and the reasons to which "not measured [1]" points."""
        reasons: list[str] = []
        rows = []
        for row in self.rows:
            cells = [row.label, row.source, *(row.settings.get(name, "") for name in self.named)]
            for column in self.columns:
                figure = row.cells[column.key]
                if figure.value is None and row.source == MEASURED and figure.why not in reasons:
                    reasons.append(str(figure.why))
                cells.append(shown(figure, column, reasons))
            rows.append(cells)
        return rows, reasons

    @property
    def headings(self) -> list[str]:
        """Of the columns."""
        return ["system", "source", *self.named, *(column.heading for column in self.columns)]


@dataclass(frozen=True)
class Said:
    """A system's answer to the one question of table 4; sound: its file."""

    label: str
    text: str
    sound: str | None
    error: str | None


@dataclass(frozen=True)
class Tables:
    """questions: name of the set. question: that of table 4. absent: systems that could not be had, and why."""

    questions: str
    tables: Sequence[Table]
    question: str
    said: Sequence[Said]
    runs: Sequence[Summary]
    absent: Mapping[str, str]


@cache
def paper() -> dict[str, Any]:
    """The paper's figures and their sources."""
    text = resources.files("omnivox.evaluate").joinpath("paper.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def make_tables(runs: Sequence[Summary]) -> list[Tables]:
    """The tables of each set of questions that the runs answered."""
    sets = sorted({run.about["questions"]["name"] for run in runs})
    return [_tables(name, [run for run in runs if run.about["questions"]["name"] == name]) for name in sets]


def _tables(questions: str, runs: Sequence[Summary]) -> Tables:
    principal, ordered = principal_runs(runs), sorted(runs, key=_place)
    tables = [_table("table1", f"Table 1. Systems on {questions}", TABLE1, principal),
              _table("table2", f"Table 2. Latency for quality on {questions}", TABLE2, ordered, ("Ω", "lookahead")),
              _table("table3", f"Table 3. Mean decoding time on {questions}", TABLE3, principal)]
    absent = {spec: why for spec, why in absent_systems(runs[0].folder.parent).items()
              if spec not in {run.spec for run in runs}}
    return Tables(questions, tables, *_said(principal), runs, absent)


def principal_runs(runs: Sequence[Summary]) -> list[Summary]:
    """One run of each system and model: that with the fewest settings of its own."""
    found: dict[str, Summary] = {}
    for run in sorted(runs, key=lambda run: (len(run.spec), run.spec)):
        found.setdefault(run.spec.partition("?")[0], run)
    return sorted(found.values(), key=lambda run: (run.name != "omni", run.spec))


def _place(run: Summary) -> tuple[bool, str, bool, int, int]:
    settings = run.settings
    return (run.name != "omni", run.spec.partition("?")[0], bool(settings.get("alone")),
            LONG if settings.get("omega", 0) is None else settings.get("omega", 0),
            LONG if settings.get("lookahead") is None else settings["lookahead"])


# -- rows -------------------------------------------------------------------------------------------------------------

def _table(key: str, title: str, columns: Sequence[Column], runs: Sequence[Summary], named: Sequence[str] = ()
           ) -> Table:
    """Measured rows, each system's followed by the paper's of the same; the paper's others at the end."""
    theirs = [_paper_row(row, columns) for row in paper()[key]]
    names = [row["system"] for row in paper()[key]]
    rows: list[Row] = []
    for i, run in enumerate(runs):
        rows.append(_measured(run, columns))
        if run.name not in {later.name for later in runs[i + 1:]}:
            rows += [row for row, name in zip(theirs, names, strict=True) if name == run.name]
    here = {run.name for run in runs}
    rows += [row for row, name in zip(theirs, names, strict=True) if name not in here]
    there = [column for column in columns if any(row.cells[column.key].value is not None for row in rows)]
    absent = {column.heading: "; ".join(sorted({str(run.figure(column.key).why) for run in runs}))
              for column in columns if column not in there}
    return Table(title, there, rows, named, absent)


def _measured(run: Summary, columns: Sequence[Column]) -> Row:
    counted = f"{run.answered} answers" + (f", {run.failed} failed" if run.failed else "")
    return Row(f"{run.spec} ({counted})", MEASURED, {column.key: run.figure(column.key) for column in columns},
               {"Ω": _omega(run), "lookahead": _lookahead(run)})


def _omega(run: Summary) -> str:
    if "omega" not in run.settings:
        return ""
    return "∞" if run.settings["omega"] is None else str(run.settings["omega"])


def _lookahead(run: Summary) -> str:
    if run.settings.get("alone"):
        return "chunks alone"
    if run.settings.get("omega") is None:
        return ""
    return "exact" if run.settings.get("lookahead") is None else str(run.settings["lookahead"])


def _paper_row(row: Mapping[str, Any], columns: Sequence[Column]) -> Row:
    cells = {column.key: Figure(row.get(column.key), why=None if column.key in row else "not in the paper")
             for column in columns}
    alone = "chunks alone" if "alone" in row["label"] else ""
    return Row(row["label"], row["source"], cells, {"Ω": row.get("omega", ""), "lookahead": alone})


def _said(runs: Sequence[Summary]) -> tuple[str, list[Said]]:
    """The first question that the first system answered, and every system's row of it."""
    first = min((row for run in runs[:1] for row in run.rows if row.error is None), key=lambda row: row.id,
                default=None)
    if first is None:
        return "", []
    said = [Said(run.spec, row.text, str(run.folder / row.audio) if row.audio else None, row.error)
            for run in runs for row in run.rows if row.id == first.id]
    return first.question, said


# -- as Markdown and JSON ---------------------------------------------------------------------------------------------

def shown(figure: Figure, column: Column, reasons: Sequence[str] = ()) -> str:
    """A figure as it stands in a cell, or the number of the reason why there is none; a dash for the paper's."""
    if figure.value is not None:
        return f"{figure.value * column.scale:,.{column.places}f}"
    return f"not measured [{reasons.index(figure.why) + 1}]" if figure.why in reasons else "-"


def markdown(found: Sequence[Tables]) -> str:
    """All tables of all sets."""
    parts = ["# What was measured"]
    for tables in found:
        for table in tables.tables:
            grid, reasons = table.cells()
            parts += [f"## {table.title}", _grid(table, grid), *_bullets(footnotes(table, reasons))]
        if tables.said:
            parts += [f"## Table 4. What is answered to “{tables.question}”", _answers(tables.said)]
        parts += ["## How it was measured", *_bullets(machines(tables))]
    parts += _bullets([f"Paper, {name}: {text}" for name, text in paper()["sources"].items()])
    return "\n\n".join(parts) + "\n"


def footnotes(table: Table, reasons: Sequence[str]) -> list[str]:
    """What "not measured" stands for, and the columns that are not there."""
    return [*(f"[{number}] {reason}" for number, reason in enumerate(reasons, 1)),
            *(f"{heading} was not measured: {why}" for heading, why in table.absent.items())]


def machines(tables: Tables) -> list[str]:
    """Where the runs were made, by what their answers were measured, and who is missing."""
    found = [f"{spec} could not be had: {why}" for spec, why in tables.absent.items()]
    loads: dict[str, list[float]] = {}
    for run in tables.runs:
        about = run.about["hardware"]
        where = (f"{about.get('gpu') or about.get('cpu')}, {about.get('cores')} cores, {about.get('threads')} threads, "
                 f"{about.get('date')}")
        loads.setdefault(where, []).append(about.get("load_average") or 0.0)
    found += [f"Made on {where}, load {min(some):g} to {max(some):g}" for where, some in loads.items()]
    by = [f"{name}: {json.dumps(dict(figure.by), ensure_ascii=False)}" for run in tables.runs
          for name, figure in run.figures.items() if figure.by]
    return [*found, *dict.fromkeys(by)]


def _grid(table: Table, rows: Sequence[Sequence[str]]) -> str:
    words = len(table.headings) - len(table.columns)
    return "\n".join([_line(table.headings), _line(["---"] * words + ["--:"] * len(table.columns)), *map(_line, rows)])


def _answers(said: Sequence[Said]) -> str:
    rows = [[one.label, one.text if one.error is None else f"failed: {one.error}", one.sound or "no sound"]
            for one in said]
    return "\n".join([_line(["system", "answer", "sound"]), _line(["---"] * 3), *map(_line, rows)])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _bullets(lines: Sequence[str]) -> list[str]:
    return ["\n".join(f"* {line}" for line in lines)] if lines else []


def as_json(found: Sequence[Tables]) -> dict[str, Any]:
    """All tables with every cell's number or reason, and how many answers it is over."""
    return {"paper": paper()["sources"], "sets": [{
        "questions": tables.questions,
        "tables": [{"title": table.title, "absent": dict(table.absent),
                    "rows": [{"system": row.label, "source": row.source, **dict(row.settings),
                              "cells": {key: _cell(figure) for key, figure in row.cells.items()}}
                             for row in table.rows]} for table in tables.tables],
        "absent": dict(tables.absent), "question": tables.question, "answers": [vars(one) for one in tables.said],
        "runs": [dict(run.about) for run in tables.runs]} for tables in found]}


def _cell(figure: Figure) -> dict[str, Any]:
    if figure.value is None:
        return {"value": None, "why": figure.why}
    return {"value": round(figure.value, 6), **({"n": figure.n} if figure.n else {})}
