"""The tables as one HTML page that needs nothing else: figures, plots drawn here, and sound to listen to.

    Table ─► <table>        latency against quality ─► <svg>        answers of table 4 ─► <audio>, the sound inside

Shapes of a plot: x to the right in milliseconds, y up in the measure's unit, both in pixels of a fixed view.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from omnivox.errors import DataError
from omnivox.evaluate.summary import find_runs, summarise
from omnivox.evaluate.tables import (
    DNSMOS,
    FIRST_AUDIO,
    MEASURED,
    PLCMOS,
    UTMOS,
    WER,
    Column,
    Row,
    Said,
    Table,
    Tables,
    as_json,
    footnotes,
    machines,
    make_tables,
    markdown,
    paper,
)
from omnivox.writing import atomic

PLOTTED = (PLCMOS, UTMOS, DNSMOS, WER)
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 320, 56, 44, 12, 12  # pixels
COLOURS = ("#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626", "#0891b2", "#65a30d", "#db2777")
_STYLE = """:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;
padding:0 1rem}table{border-collapse:collapse;font-size:.85rem}.wide{overflow-x:auto}
th,td{padding:.25rem .6rem;border-bottom:1px solid #8884;text-align:right}
th:first-child,td:first-child,th:nth-child(2),td:nth-child(2){text-align:left}tr.paper{opacity:.65}
figure{display:inline-block;margin:.5rem 1rem .5rem 0;max-width:100%}svg{max-width:100%;height:auto}
svg text{font-size:12px;fill:currentColor}audio{width:100%;min-width:16rem;height:2rem}small,li{color:#777}
.say td{text-align:left}"""


@dataclass(frozen=True)
class Point:
    """Milliseconds to the first sound, a quality, and what it is of."""

    x: float
    y: float
    label: str


@dataclass(frozen=True)
class Series:
    """Points of one kind. joined: a line leads through them."""

    name: str
    points: Sequence[Point]
    joined: bool


def write(work: Path) -> tuple[str, dict[str, str]]:
    """Write tables.md, tables.json and report.html of all runs under `work`; the Markdown, and the files' paths.

    Raises DataError: there are no runs.
    """
    runs = [summarise(run) for run in find_runs(work)]
    if not runs:
        raise DataError(f"{work}: holds no runs; make some with: omnivox evaluate --system SPEC --work {work}")
    found = make_tables(runs)
    texts = {"tables": ("tables.md", markdown(found)), "report": ("report.html", html(found)),
             "json": ("tables.json", json.dumps(as_json(found), indent=1, ensure_ascii=False) + "\n")}
    for name, text in texts.values():
        with atomic(work / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return texts["tables"][1], {key: str(work / name) for key, (name, _) in texts.items()}


def html(found: Sequence[Tables]) -> str:
    """The page. Raises OSError: a sound of table 4 cannot be read."""
    body = "\n".join(_set(tables) for tables in found)
    sources = _list([f"Paper, {name}: {text}" for name, text in paper()["sources"].items()])
    return ('<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>What was measured</title>'
            f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
            f"<body><h1>What was measured</h1>\n{body}\n{sources}</body></html>\n")


def _set(tables: Tables) -> str:
    parts = []
    for table in tables.tables:
        parts.append(_table(table))
        if table.named:
            parts += [plot(table, column) for column in PLOTTED if column in table.columns]
    if tables.said:
        parts.append(_said(tables.question, tables.said))
    return "\n".join([*parts, "<h2>How it was measured</h2>", _list(machines(tables))])


def _table(table: Table) -> str:
    rows, reasons = table.cells()
    head = "".join(f"<th>{escape(heading)}</th>" for heading in table.headings)
    body = "".join(f'<tr class="{"measured" if row.source == MEASURED else "paper"}">'
                   + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>\n"
                   for row, cells in zip(table.rows, rows, strict=True))
    return (f'<h2>{escape(table.title)}</h2><div class="wide"><table><thead><tr>{head}</tr></thead>\n'
            f"<tbody>{body}</tbody></table></div>{_list(footnotes(table, reasons))}")


def _said(question: str, said: Sequence[Said]) -> str:
    rows = "".join(f"<tr><td>{escape(one.label)}</td><td>{escape(one.text if one.error is None else one.error)}</td>"
                   f"<td>{_player(one)}</td></tr>\n" for one in said)
    return (f"<h2>Table 4. What is answered to “{escape(question)}”</h2>"
            f'<div class="wide"><table class="say"><tbody>{rows}</tbody></table></div>')


def _player(said: Said) -> str:
    if said.sound is None:
        return "<small>no sound</small>"
    data = base64.b64encode(Path(said.sound).read_bytes()).decode()
    return f'<audio controls preload="none" src="data:audio/flac;base64,{data}"></audio>'


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>" if lines else ""


# -- plots ------------------------------------------------------------------------------------------------------------

def series(table: Table, column: Column) -> list[Series]:
    """The rows of table 2 that have both figures, by what they vary: Ω, the lookahead, or nothing."""
    kinds: dict[str, list[Point]] = {}
    for row in table.rows:
        x, y = row.cells[FIRST_AUDIO.key].value, row.cells[column.key].value
        if x is not None and y is not None:
            label = ", ".join([row.label, *(f"{name} {value}" for name, value in row.settings.items() if value)])
            kinds.setdefault(_kind(row), []).append(Point(x * FIRST_AUDIO.scale, y * column.scale, label))
    return [Series(name, sorted(points, key=lambda point: point.x), len(points) > 1 and "Ω" in name)
            for name, points in kinds.items()]


def _kind(row: Row) -> str:
    name = row.label.partition(" (")[0].partition("?")[0].partition(",")[0]
    name = name if row.source == MEASURED else f"{name}, paper"
    if not row.settings.get("Ω"):
        return name
    if row.settings["lookahead"] == "chunks alone":
        return f"{name}, chunks alone, by Ω"
    return f"{name}, by lookahead" if row.settings["lookahead"].isdecimal() else f"{name}, by Ω"


def plot(table: Table, column: Column) -> str:
    """Latency against one quality, as a figure with its legend; nothing where no row has both."""
    drawn = series(table, column)
    points = [point for one in drawn for point in one.points]
    if not points:
        return ""
    x_ticks, y_ticks = ticks([0.0, *(point.x for point in points)]), ticks([point.y for point in points])

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (WIDTH - LEFT - RIGHT)
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (HEIGHT - TOP - BOTTOM)
        return round(LEFT + across, 1), round(HEIGHT - BOTTOM - up, 1)

    parts = [_grid(x_ticks, y_ticks, at, column.heading)]
    for number, one in enumerate(drawn):
        colour = COLOURS[number % len(COLOURS)]
        places = [at(point.x, point.y) for point in one.points]
        if one.joined:
            line = " ".join(f"{x},{y}" for x, y in places)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"><title>{escape(point.label)}: {point.x:,.0f} ms, '
                  f"{point.y:.{column.places}f}</title></circle>"
                  for (x, y), point in zip(places, one.points, strict=True)]
    legend = " ".join(f'<span style="color:{COLOURS[number % len(COLOURS)]}">●</span> {escape(one.name)}'
                      for number, one in enumerate(drawn))
    return (f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
            f'aria-label="{escape(column.heading)} against time to the first sound">{"".join(parts)}</svg>'
            f"<figcaption><small>{legend}</small></figcaption></figure>")


def _grid(x_ticks: Sequence[float], y_ticks: Sequence[float], at: Callable[[float, float], tuple[float, float]],
          heading: str) -> str:
    parts = []
    for tick in x_ticks:
        x, _ = at(tick, y_ticks[0])
        parts.append(f'<line x1="{x}" y1="{TOP}" x2="{x}" y2="{HEIGHT - BOTTOM}" stroke="#8883"/>'
                     f'<text x="{x}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:g}</text>')
    for tick in y_ticks:
        _, y = at(x_ticks[0], tick)
        parts.append(f'<line x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}" stroke="#8883"/>'
                     f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return "".join([*parts, f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
                    f'{escape(FIRST_AUDIO.heading)}</text><text transform="translate(14 {middle}) rotate(-90)" '
                    f'text-anchor="middle">{escape(heading)}</text>'])


def ticks(values: Sequence[float], about: int = 5) -> list[float]:
    """Round numbers, evenly apart, that enclose all values: two or more."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    size = 10 ** math.floor(math.log10(span / about))
    step = next(size * times for times in (1, 2, 5, 10) if span / (size * times) <= about)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]
