"""The page: nothing from outside, every figure, plots whose points stand where they should, sound that plays."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import soundfile

from omnivox.errors import DataError
from omnivox.evaluate.report import html, plot, series, ticks, write
from omnivox.evaluate.summary import Figure, find_runs, summarise
from omnivox.evaluate.tables import FIRST_AUDIO, MEASURED, PLCMOS, Row, Table, make_tables
from tests.evaluate.test_tables import work

__all__ = ["work"]  # the fixture


class Tags(HTMLParser):
    """Every start tag, and whether each was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.found, self.open = list[tuple[str, dict[str, str | None]]](), list[str]()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def row(label: str, source: str, ms: float, plcmos: float, omega: str = "", lookahead: str = "") -> Row:
    return Row(label, source, {FIRST_AUDIO.key: Figure(ms), PLCMOS.key: Figure(plcmos)},
               {"Ω": omega, "lookahead": lookahead})


ROWS = [row("omni?omega=20 (3 answers)", MEASURED, 60, 4.0, "20", "exact"),
        row("omni (3 answers)", MEASURED, 40, 4.1, "10", "exact"),
        row("omni?omega=10&alone=true (3 answers)", MEASURED, 35, 3.0, "10", "chunks alone"),
        row("omni?lookahead=4 (3 answers)", MEASURED, 38, 3.5, "10", "4"),
        row("cascade (3 answers)", MEASURED, 140, 3.9), row("LLaMA-Omni 8B, chunks alone", "v2", 236, 3.2, "10")]
TABLE = Table("Table 2", [FIRST_AUDIO, PLCMOS], ROWS, ("Ω", "lookahead"))


def test_the_page_is_whole_and_asks_for_nothing(work: Path) -> None:
    page = html(make_tables([summarise(run) for run in find_runs(work)]))
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    outside = [value for _, attributes in tags.found for name, value in attributes.items()
               if name in ("src", "href", "srcset", "data", "action") and not str(value).startswith("data:")]
    assert outside == []
    assert not {"script", "link", "iframe", "img"} & {tag for tag, _ in tags.found}
    assert "url(" not in page
    assert "@import" not in page
    for words in ("Table 1", "Table 2", "Table 3", "Table 4", "needs its weights", "LLaMA-Omni 8B", "10.82"):
        assert words in page


def test_the_sound_in_the_page_is_the_answers(work: Path) -> None:
    [tables] = make_tables([summarise(run) for run in find_runs(work)])
    sounds = re.findall(r'src="data:audio/flac;base64,([^"]+)"', html([tables]))
    assert len(sounds) == 2
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sounds[0])))
    assert (len(samples), rate) == (400, 8000)


def test_what_was_said_is_shown_and_not_obeyed(work: Path) -> None:
    [tables] = make_tables([summarise(run) for run in find_runs(work)])
    page = html([replace(tables, said=[replace(tables.said[0], text="<script>alert(1)</script>", sound=None)])])
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "no sound" in page


def test_rows_become_series_by_what_they_vary() -> None:
    found = {one.name: ([(point.x, point.y) for point in one.points], one.joined) for one in series(TABLE, PLCMOS)}
    assert found == {"omni, by Ω": ([(40, 4.1), (60, 4.0)], True), "omni, chunks alone, by Ω": ([(35, 3.0)], False),
                     "omni, by lookahead": ([(38, 3.5)], False), "cascade": ([(140, 3.9)], False),
                     "LLaMA-Omni 8B, paper, by Ω": ([(236, 3.2)], False)}


def test_points_stand_where_their_figures_say() -> None:
    drawn = plot(TABLE, PLCMOS)
    svg = ET.fromstring(re.search(r"<svg.*</svg>", drawn)[0])  # type: ignore[index]
    circles = {circle.find("title").text: (float(circle.get("cx")), float(circle.get("cy")))  # type: ignore
               for circle in svg.iter("circle")}
    assert len(circles) == len(ROWS)
    [exact] = [place for title, place in circles.items() if title.startswith("omni (3")]
    [alone] = [place for title, place in circles.items() if "alone=true" in title]
    [slow] = [place for title, place in circles.items() if title.startswith("LLaMA")]
    assert alone[0] < exact[0] < slow[0]
    assert exact[1] < alone[1]  # up is better: y grows downwards
    assert exact[0] - alone[0] == pytest.approx((slow[0] - exact[0]) * 5 / 196, abs=0.2)
    assert len(list(svg.iter("polyline"))) == 1


def test_a_plot_of_nothing_is_none() -> None:
    empty = Row("omni", MEASURED, {FIRST_AUDIO.key: Figure(12.0), PLCMOS.key: Figure(why="no package")},
                {"Ω": "10", "lookahead": ""})
    assert plot(replace(TABLE, rows=[empty]), PLCMOS) == ""


@pytest.mark.parametrize(("values", "expected"), [
    ([0, 236.18], [0, 50, 100, 150, 200, 250]), ([3.2, 3.93], [3.2, 3.4, 3.6, 3.8, 4.0]), ([4.0], [4, 5]),
    ([0.0, 0.0], [0.0, 0.2]), ([-1, 1], [-1, -0.5, 0, 0.5, 1])])
def test_ticks_are_round_and_enclose_all(values: list[float], expected: list[float]) -> None:
    assert ticks(values) == pytest.approx(expected)


def test_the_files_are_written(work: Path, tmp_path: Path) -> None:
    text, files = write(work)
    assert Path(files["tables"]).read_text() == text
    assert Path(files["report"]).read_text().startswith("<!doctype html>")
    assert json.loads(Path(files["json"]).read_text())["sets"][0]["questions"] == "asked"
    with pytest.raises(DataError, match="holds no runs; make some with: omnivox evaluate --system"):
        write(tmp_path)
