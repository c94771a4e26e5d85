"""The tables: every cell from what was measured, or its reason; beside the paper's, which are as printed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omnivox.evaluate.exact import Exact
from omnivox.evaluate.folder import Answered, Journal, RunFolder, Score
from omnivox.evaluate.questions import find_questions
from omnivox.evaluate.run import answer, measure
from omnivox.evaluate.summary import Summary, find_runs, summarise
from omnivox.evaluate.tables import (
    FIRST_AUDIO,
    MEASURED,
    WER,
    Tables,
    as_json,
    make_tables,
    markdown,
    paper,
    principal_runs,
)
from tests.evaluate.answering import Loudness, Tones, write_questions


class Ours(Tones):
    """Under the name of ours, with whatever settings."""

    name = "omni"

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.given = {"omega": 10, "lookahead": None, "alone": False} | settings

    def settings(self) -> Mapping[str, Any]:
        return self.given


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of ours at several settings, and of another system; one failed once, one has word errors."""
    folder = tmp_path_factory.mktemp("tables")
    questions = find_questions(str(write_questions(folder / "asked", 3)))
    systems = {"omni": Ours(), "omni?omega=inf": Ours(omega=None), "omni?omega=20": Ours(omega=20),
               "omni?lookahead=4": Ours(lookahead=4), "omni?omega=10&alone=true": Ours(alone=True),
               "tones": Tones(fails=frozenset({1700}))}
    for number, (spec, system) in enumerate(systems.items()):
        run = answer(system, questions, folder / "work" / "asked" / str(number), spec=spec, echo=False)
        measure(run, [Exact(), Loudness()], questions, echo=False)
        run.keep_unavailable({"utmos": "needs its weights"})
    errors(RunFolder(folder / "work" / "asked" / "0"), {"q0": (1, 2), "q1": (0, 8)})
    (folder / "work" / "asked" / "absent.json").write_text(json.dumps({"salmonn:x": "no such folder"}))
    return folder / "work"


def errors(run: RunFolder, edits: dict[str, tuple[int, int]]) -> None:
    journal = Journal(run.path / "scores.jsonl")
    journal.append(*(Score(name, "asr_wer", wrong / words, {"edits": wrong, "words": words}, None, {"asr": "an ear"})
                     for name, (wrong, words) in edits.items()),
                   Score("q2", "asr_wer", None, {}, "the text answer holds no words", {"asr": "an ear"}))
    journal.close()


@pytest.fixture(scope="module")
def runs(work: Path) -> dict[str, Summary]:
    return {run.spec: run for run in map(summarise, find_runs(work))}


@pytest.fixture(scope="module")
def tables(runs: dict[str, Summary]) -> Tables:
    [found] = make_tables(list(runs.values()))
    return found


# -- figures ----------------------------------------------------------------------------------------------------------

def test_figures_of_a_run(runs: dict[str, Summary]) -> None:
    run = runs["tones"]
    assert (run.answered, run.failed) == (2, 1)
    assert run.figure("first_audio_ms").value == pytest.approx(250)
    assert run.figure("first_units_ms").value == pytest.approx(200)
    assert run.figure("vocoder_ms").value == pytest.approx(50)
    assert run.figure("s2sif_seconds").value == pytest.approx(0.5)
    assert run.figure("lagging_words").value == 2
    # four words each; sounds of 400 and 450 samples at 8 kHz
    assert run.figure("words_per_second").value == pytest.approx(8 * 8000 / 850)
    assert run.figure("exact").value == 1.0
    assert run.figure("exact").n == 2
    assert run.figure("loudness").by == {"scale": 1.0}


def test_word_errors_are_pooled_over_answers(runs: dict[str, Summary]) -> None:
    figure = runs["omni"].figure("wer")
    assert figure.value == pytest.approx(1 / 10)
    assert (figure.n, figure.by) == (2, {"asr": "an ear"})


def test_what_was_not_measured_says_why(runs: dict[str, Summary]) -> None:
    assert runs["omni"].figure("utmos").why == "needs its weights"
    assert runs["omni"].figure("wer").value is not None
    assert runs["tones"].figure("wer").why == "--measure asr_wer was not asked for"
    told = runs["omni"].told()
    assert told["figures"]["exact"] == {"value": 1.0, "n": 3}
    assert json.loads(json.dumps(told)) == told


def test_a_measure_without_any_value_gives_its_reason(tmp_path: Path) -> None:
    questions = find_questions(str(write_questions(tmp_path / "asked", 2)))
    run = answer(Tones(silent=True), questions, tmp_path / "run", echo=False)
    measure(run, [Loudness()], questions, echo=False)
    found = summarise(run)
    assert found.figure("loudness").why == "does not speak"
    for name in ("first_audio_ms", "s2sif_seconds", "words_per_second", "lagging_words"):
        assert (found.figure(name).value, found.figure(name).why) == (None, "nothing was spoken")


def test_of_two_settings_of_a_measure_the_later_counts(tmp_path: Path) -> None:
    questions = find_questions(str(write_questions(tmp_path / "asked", 2)))
    run = answer(Tones(), questions, tmp_path / "run", echo=False)
    measure(run, [Loudness(), Loudness(5.0)], questions, echo=False)
    assert summarise(run).figure("loudness").by == {"scale": 5.0}


# -- tables -----------------------------------------------------------------------------------------------------------

def test_the_first_table_has_a_row_a_system_and_the_papers_beside(tables: Tables) -> None:
    labels = [(row.label, row.source) for row in tables.tables[0].rows]
    assert labels[:4] == [("omni (3 answers)", MEASURED), ("LLaMA-Omni 8B, offline", "v2"), ("LLaMA-Omni 8B", "v1"),
                          ("tones (2 answers, 1 failed)", MEASURED)]
    assert {label for label, source in labels[4:]} == {
        "SpeechGPT, offline", "SpeechGPT", "SALMONN + Orca, offline", "SALMONN + VITS", "Qwen2-Audio + Orca, offline",
        "Qwen2-Audio + VITS"}


def test_the_second_table_varies_omega_lookahead_and_seams(tables: Tables) -> None:
    ours = [(row.settings["Ω"], row.settings["lookahead"]) for row in tables.tables[1].rows if row.source == MEASURED]
    assert ours == [("10", "4"), ("10", "exact"), ("20", "exact"), ("∞", ""), ("10", "chunks alone"), ("10", "exact")]
    theirs = [row for row in tables.tables[1].rows if row.source == "v2" and row.settings["Ω"]]
    assert [row.settings["Ω"] for row in theirs] == ["10", "20", "40", "60", "80", "100", "∞", "10"]
    assert theirs[0].cells["utmos"].value == 3.2304


def test_one_run_stands_for_a_system(runs: dict[str, Summary]) -> None:
    assert [run.spec for run in principal_runs(list(runs.values()))] == ["omni", "tones"]


def test_a_cell_holds_a_number_or_points_to_its_reason(tables: Tables) -> None:
    table = tables.tables[0]
    cells, reasons = table.cells()
    wer, utmos = (table.headings.index(heading) for heading in (WER.heading, "UTMOS"))
    assert [cells[0][wer], cells[1][wer], cells[1][utmos]] == ["10.00", "10.82", "3.930"]
    assert cells[0][utmos] == f"not measured [{reasons.index('needs its weights') + 1}]"
    assert cells[3][wer] == f"not measured [{reasons.index('--measure asr_wer was not asked for') + 1}]"
    assert cells[2][utmos] == "-"  # the paper's first version is not asked why
    assert FIRST_AUDIO.heading in table.headings
    assert table.absent["PLCMOS"] == "--measure plcmos was not asked for"
    assert "PLCMOS" not in table.headings


def test_the_fourth_table_is_one_question_to_all(tables: Tables) -> None:
    assert tables.question == "how long is 0?"
    assert [(one.label, one.text) for one in tables.said] == [("omni", "it was 1600 long"),
                                                              ("tones", "it was 1600 long")]
    assert all(one.sound and Path(one.sound).exists() for one in tables.said)


def test_sets_of_questions_are_not_mixed(work: Path, tmp_path: Path) -> None:
    other = find_questions(str(write_questions(tmp_path / "others", 1)))
    run = answer(Tones(), other, tmp_path / "run", echo=False)
    found = make_tables([*map(summarise, find_runs(work)), summarise(run)])
    assert [(one.questions, len(one.runs)) for one in found] == [("asked", 6), ("others", 1)]


def test_markdown_and_json_tell_the_same(tables: Tables) -> None:
    text, told = markdown([tables]), as_json([tables])
    assert json.loads(json.dumps(told)) == told
    first = told["sets"][0]["tables"][0]["rows"][0]
    assert first["cells"]["wer"] == {"value": 0.1, "n": 2}
    assert first["cells"]["utmos"] == {"value": None, "why": "needs its weights"}
    for words in ("## Table 1. Systems on asked", "## Table 4.", "| omni (3 answers) | measured |", "needs its weights",
                  "salmonn:x could not be had: no such folder", 'wer: {"asr": "an ear"}', "arXiv 2409.06666"):
        assert words in text
    for line in text.splitlines():
        assert not line.startswith("|") or line.endswith("|")


def test_what_an_answer_says_does_not_break_a_table(tables: Tables) -> None:
    said = [replace(tables.said[0], text="a | b\nc")]
    assert "| omni | a \\| b c |" in markdown([replace(tables, said=said)])


def test_the_papers_figures_are_as_it_prints_them() -> None:
    found = paper()
    by_omega = {row["omega"]: row for row in found["table2"] if row["system"] == "omni"}
    assert list(by_omega) == ["10", "20", "40", "60", "80", "100", "∞"]
    for row in by_omega.values():  # the paper's own sum, to its rounding
        assert row["first_units_ms"] + row["vocoder_ms"] == pytest.approx(row["first_audio_ms"], abs=0.02)
    offline = next(row for row in found["table1"] if row["system"] == "omni" and row["source"] == "v2")
    for name in ("wer", "utmos", "s2sif_score", "first_audio_ms"):
        assert offline[name] == by_omega["∞"][name]
    assert {row["source"] for key in ("table1", "table2", "table3") for row in found[key]} <= set(found["sources"])


def test_a_run_that_answered_nothing_has_no_fourth_table(tmp_path: Path) -> None:
    questions = find_questions(str(write_questions(tmp_path / "asked", 1)))
    run = answer(Tones(fails=frozenset({1600})), questions, tmp_path / "run", echo=False)
    [found] = make_tables([summarise(run)])
    assert (found.question, list(found.said)) == ("", [])
    assert "Table 4" not in markdown([found])
    assert run.answers()["q0"] == Answered("q0", "how long is 0?", error="RuntimeError: cannot hear")
