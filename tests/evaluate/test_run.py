"""A run: what is kept, what goes on after a kill, what is refused, what is measured and how often."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import Tensor

from omnivox.errors import ConfigError, DataError
from omnivox.evaluate import folder as folders
from omnivox.evaluate.folder import RunFolder
from omnivox.evaluate.questions import QuestionSet, find_questions
from omnivox.evaluate.run import answer, measure, parse_shard
from omnivox.runtime.events import Done
from omnivox.systems.system import Event
from tests.evaluate.answering import RATE, Loudness, Tones, write_questions

KILLED = """
import os, signal, sys
from pathlib import Path
from omnivox.evaluate.questions import find_questions
from omnivox.evaluate.run import answer
from tests.evaluate.answering import Tones

class Dying(Tones):
    def respond(self, question):
        if len(self.heard) == 4:  # the warm-up, then three
            os.kill(os.getpid(), signal.SIGKILL)
        yield from super().respond(question)

answer(Dying(), find_questions(sys.argv[1]), Path(sys.argv[2]), echo=False)
"""


@pytest.fixture
def questions(tmp_path: Path) -> QuestionSet:
    return find_questions(str(write_questions(tmp_path / "questions")))


def rows(folder: Path, name: str = "answers.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def all_of(folder: Path) -> dict[str, Any]:
    """What must be equal in equal runs: rows without the time they took, and every byte of sound."""
    return {"rows": sorted(({**row, "text_done": None} for row in rows(folder)), key=lambda row: str(row["id"])),
            "sound": {file.name: file.read_bytes() for file in (folder / "audio").iterdir()}}


# -- answering --------------------------------------------------------------------------------------------------------

def test_a_row_tells_all_of_an_answer(questions: QuestionSet, tmp_path: Path) -> None:
    run = answer(Tones(), questions, tmp_path / "run", seed=3, echo=False)
    [first, *_] = rows(tmp_path / "run")
    text_done = first.pop("text_done")
    assert text_done > 0
    assert first == {"id": "q0", "question": "how long is 0?", "text": "it was 1600 long", "audio": "audio/q0.flac",
                     "sample_rate": RATE, "seconds": 400 / RATE, "units": 3, "lagging_words": 2, "error": None,
                     "timings": {"mel": 0.0, "encode": 0.0, "prefill": 0.0, "first_token": 0.1, "first_units": 0.2,
                                 "first_audio": 0.25, "total": 0.5, "audio_seconds": 400 / RATE,
                                 "real_time_factor": 0.0}}
    sound = run.sound(run.answers()["q0"])
    assert sound is not None
    assert len(sound) == 400
    assert 0.15 < float(sound.abs().max()) < 0.51


def test_what_the_run_is(questions: QuestionSet, tmp_path: Path) -> None:
    answer(Tones(), questions, tmp_path / "run", spec="tones?pitch=200", echo=False)
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["system"] == {"name": "tones", "spec": "tones?pitch=200", "settings": {"pitch": 200.0, "omega": 10}}
    assert about["questions"] == {"name": "questions", "digest": questions.digest, "count": 5}
    assert about["seed"] == 0
    assert about["hardware"]["versions"]["torch"]
    assert about["hardware"]["date"]


def test_the_same_run_gives_the_same_wherever_it_was_stopped(questions: QuestionSet, tmp_path: Path) -> None:
    answer(Tones(), questions, tmp_path / "whole", echo=False)
    for limit in (1, 3, None):
        torch.rand(7)  # whatever was drawn before
        answer(Tones(), questions, tmp_path / "parts", limit=limit, echo=False)
        assert len(rows(tmp_path / "parts")) == (limit or 5)
    answer(Tones(), questions, tmp_path / "seeded", seed=1, echo=False)
    assert all_of(tmp_path / "parts") == all_of(tmp_path / "whole")
    assert all_of(tmp_path / "seeded")["sound"] != all_of(tmp_path / "whole")["sound"]


def test_what_is_answered_is_not_asked_again(questions: QuestionSet, tmp_path: Path) -> None:
    first, again = Tones(), Tones()
    answer(first, questions, tmp_path / "run", echo=False)
    assert first.heard == [1600, 1600, 1700, 1800, 1900, 2000]  # the first one to warm up
    answer(again, questions, tmp_path / "run", echo=False)
    assert again.heard == []


def test_a_killed_run_goes_on_and_its_half_written_line_is_cut(questions: QuestionSet, tmp_path: Path, root: Path
                                                               ) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "questions"), str(tmp_path / "run")], cwd=root,
                          env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},  # the same machine
                          capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [row["id"] for row in rows(tmp_path / "run")] == ["q0", "q1", "q2"]
    with (tmp_path / "run" / "answers.jsonl").open("a") as file:
        file.write('{"id": "q3", "question": "how lo')
    assert set(RunFolder(tmp_path / "run").answers()) == {"q0", "q1", "q2"}
    answer(Tones(), questions, tmp_path / "run", echo=False)
    answer(Tones(), questions, tmp_path / "whole", echo=False)
    assert all_of(tmp_path / "run") == all_of(tmp_path / "whole")


def test_shards_share_the_questions_and_one_folder(questions: QuestionSet, tmp_path: Path) -> None:
    heard = []
    for part in range(2):
        tones = Tones()
        answer(tones, questions, tmp_path / "run", shard=(part, 2), echo=False)
        heard.append(tones.heard[1:])
    assert heard == [[1600, 1800, 2000], [1700, 1900]]
    assert set(RunFolder(tmp_path / "run").answers()) == set(questions.ids)
    last = Tones()
    answer(last, questions, tmp_path / "run", echo=False)
    assert last.heard == []


def test_a_failure_is_recorded_counted_and_tried_again(questions: QuestionSet, tmp_path: Path) -> None:
    run = answer(Tones(fails=frozenset({1700})), questions, tmp_path / "run", echo=False)
    assert run.answers()["q1"].error == "RuntimeError: cannot hear"
    assert run.answers()["q1"].audio is None
    assert sum(row.error is None for row in run.answers().values()) == 4
    well = Tones()
    answer(well, questions, tmp_path / "run", echo=False)
    assert well.heard == [1700, 1700]
    assert run.answers()["q1"].text == "it was 1700 long"


def test_a_system_that_answers_nothing_is_stopped(questions: QuestionSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tones answered none of 5 questions; the last: RuntimeError: cannot hear"):
        answer(Tones(fails=frozenset(range(9000))), questions, tmp_path / "run", echo=False)


def test_a_silent_answer_has_no_sound(questions: QuestionSet, tmp_path: Path) -> None:
    run = answer(Tones(silent=True), questions, tmp_path / "run", limit=1, echo=False)
    assert run.answers()["q0"].audio is None
    assert run.answers()["q0"].lagging_words is None
    assert run.sound(run.answers()["q0"]) is None


# -- what is refused --------------------------------------------------------------------------------------------------

def test_half_a_character_costs_no_answer(questions: QuestionSet, tmp_path: Path) -> None:
    class Halves(Tones):
        def respond(self, question: Tensor) -> Iterator[Event]:
            if len(question) == 1700:
                raise RuntimeError("it broke \ud83d")
            for event in super().respond(question):
                yield replace(event, reply=replace(event.reply, text="a \ud83d\ude00 b \ud83d")) if isinstance(
                    event, Done) else event

    answer(Halves(), questions, tmp_path / "run", limit=2, echo=False)
    first, second = rows(tmp_path / "run")
    assert first["text"] == "a \U0001f600 b \ufffd"
    assert second["error"] == "RuntimeError: it broke \ufffd"


def test_another_run_is_refused(questions: QuestionSet, tmp_path: Path) -> None:
    answer(Tones(), questions, tmp_path / "run", limit=1, echo=False)
    for change in ({"system": Tones(300.0)}, {"seed": 1},
                   {"questions": find_questions(str(write_questions(tmp_path / "others", 3)))}):
        asked: dict[str, Any] = {"system": Tones(), "questions": questions, "folder": tmp_path / "run",
                                 "echo": False} | change
        with pytest.raises(DataError, match=f"{next(iter(change))} was .* is asked for; expected the same, or another"):
            answer(**asked)
    assert len(rows(tmp_path / "run")) == 1


def test_another_machine_may_not_go_on_but_nothing_stops_it_when_all_is_done(
        questions: QuestionSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(Tones(), questions, tmp_path / "run", limit=2, echo=False)
    here = folders.hardware()
    monkeypatch.setattr(folders, "hardware", lambda: here | {"cpu": "an abacus"})
    answer(Tones(), questions, tmp_path / "run", limit=2, echo=False)
    with pytest.raises(DataError, match=r"cpu was .* here it is 'an abacus'; timings of two machines"):
        answer(Tones(), questions, tmp_path / "run", echo=False)


def test_two_processes_do_not_answer_in_one_place(questions: QuestionSet, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / "lock"), pytest.raises(DataError, match="another process is answering here"):
        answer(Tones(), questions, tmp_path / "run", echo=False)


def test_a_line_that_was_damaged(questions: QuestionSet, tmp_path: Path) -> None:
    run = answer(Tones(), questions, tmp_path / "run", limit=2, echo=False)
    lines = (tmp_path / "run" / "answers.jsonl").read_text().splitlines()
    (tmp_path / "run" / "answers.jsonl").write_text(f"{lines[0]}\n{lines[1][:30]}\n")
    with pytest.raises(DataError, match=r"answers.jsonl:2: cannot be read .* remove the line"):
        run.answers()


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"run.json: cannot be read .* expected a run's folder"):
        RunFolder(tmp_path).about()


@pytest.mark.parametrize(("place", "value"), [("system", None), ("system", {"name": "mine"}), ("questions", []),
                                              ("questions.name", 3), ("seed", "0"), ("hardware", None)])
def test_a_damaged_run_is_told_by_its_file_and_field(tmp_path: Path, place: str, value: object) -> None:
    about: dict[str, Any] = {"system": {"name": "mine", "spec": "nano", "settings": {}}, "seed": 0, "hardware": {},
                             "questions": {"name": "asked", "digest": "0", "count": 1}}
    *above, last = place.split(".")
    (about[above[0]] if above else about)[last] = value
    (tmp_path / "run.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match=r"run.json: cannot be read .* expected a run's folder"):
        RunFolder(tmp_path).about()


@pytest.mark.parametrize("text", ["4/4", "1", "a/b", "-1/4", "1/0", "/", "1/2/3"])
def test_a_shard_that_makes_no_sense(text: str) -> None:
    with pytest.raises(ConfigError, match="expected I/N with I from 0"):
        parse_shard(text)
    assert parse_shard("3/4") == (3, 4)


# -- measuring --------------------------------------------------------------------------------------------------------

def test_measures_hear_what_is_on_the_disk(questions: QuestionSet, tmp_path: Path) -> None:
    run = answer(Tones(), questions, tmp_path / "run", echo=False)
    measure(run, [Loudness(2.0)], questions, echo=False)
    for row in rows(tmp_path / "run", "scores.jsonl"):
        sound = run.sound(run.answers()[row["id"]])
        assert sound is not None
        assert row == {"id": row["id"], "measure": "loudness", "value": 2 * float(sound.abs().max()),
                       "detail": {"rate": RATE}, "why": None, "by": {"scale": 2.0}}
    assert len(run.scores()) == 5


def test_nothing_is_measured_twice_with_the_same_settings(questions: QuestionSet, tmp_path: Path) -> None:
    run = answer(Tones(), questions, tmp_path / "run", limit=3, echo=False)
    first, more, other, again = Loudness(), Loudness(), Loudness(3.0), Loudness()
    measure(run, [first], questions, limit=2, echo=False)
    answer(Tones(), questions, tmp_path / "run", echo=False)
    measure(run, [more, other], questions, echo=False)
    measure(run, [again], questions, echo=False)
    assert (first.given, more.given, again.given) == (["q0", "q1"], ["q2", "q3", "q4"], [])
    assert other.given == list(questions.ids)
    assert len(rows(tmp_path / "run", "scores.jsonl")) == 10


def test_failures_are_not_measured_and_silence_says_why(questions: QuestionSet, tmp_path: Path) -> None:
    run = answer(Tones(fails=frozenset({1700})), questions, tmp_path / "run", echo=False)
    measure(run, [given := Loudness()], questions, echo=False)
    assert given.given == ["q0", "q2", "q3", "q4"]
    silent = answer(Tones(silent=True), questions, tmp_path / "silent", echo=False)
    measure(silent, [Loudness()], questions, echo=False)
    assert {(score.value, score.why) for score in silent.scores().values()} == {(None, "does not speak")}


def test_a_half_written_score_is_measured_again(questions: QuestionSet, tmp_path: Path) -> None:
    run = answer(Tones(), questions, tmp_path / "run", echo=False)
    measure(run, [Loudness()], questions, echo=False)
    whole = (tmp_path / "run" / "scores.jsonl").read_bytes()
    (tmp_path / "run" / "scores.jsonl").write_bytes(whole[:-20])
    measure(run, [again := Loudness()], questions, echo=False)
    assert again.given == ["q4"]
    assert (tmp_path / "run" / "scores.jsonl").read_bytes() == whole


def test_why_a_measure_could_not_be_had_is_kept(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.keep_unavailable({"utmos": "no weights"})
    run.keep_unavailable({"asr_wer": "no jiwer"})
    assert run.unavailable() == {"utmos": "no weights", "asr_wer": "no jiwer"}
    run.keep_unavailable({"plcmos": "no speechmos"}, measured=["utmos", "exact"])
    assert run.unavailable() == {"asr_wer": "no jiwer", "plcmos": "no speechmos"}
    (tmp_path / "unavailable.json").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"unavailable\.json: cannot be read .*; remove it"):
        run.unavailable()
