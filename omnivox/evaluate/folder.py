"""A run's folder: what one system answered to one set of questions, and what was measured of it.

    run.json           system, settings, questions, seed, hardware, date: what the run is; another run there is refused
    answers.jsonl      a row a question; audio/ID.flac what was said
    shard-0-of-4/      answers.jsonl of a shard that a process of its own answers
    scores.jsonl       a row a measure and answer
    unavailable.json   measures that could not be had, each with the reason

Lines are only ever appended; a process that is killed loses the line it was writing, which is cut off by the next.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import soundfile
from torch import Tensor

from omnivox.errors import DataError
from omnivox.evaluate.questions import QuestionSet
from omnivox.hardware import hardware
from omnivox.sound import read_audio
from omnivox.writing import atomic

KINDS = {"system.name": str, "system.spec": str, "system.settings": dict, "questions.name": str,
         "questions.digest": str, "questions.count": int, "seed": int, "hardware": dict}  # of what stands in run.json
MACHINE = ("cpu", "cores", "threads", "gpu")  # by which timings are of one machine


@dataclass(frozen=True)
class Answered:
    """A row of answers.jsonl. seconds: of sound. timings: of the reply, in seconds. text_done: when the last text came.
    units: how many. lagging_words: written before the first sound. error: why the system failed."""

    id: str
    question: str
    text: str = ""
    audio: str | None = None
    sample_rate: int = 0
    seconds: float = 0.0
    timings: Mapping[str, float] | None = None
    text_done: float | None = None
    units: int = 0
    lagging_words: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Score:
    """A row of scores.jsonl. why: the reason where there is no value. by: the measure's settings."""

    id: str
    measure: str
    value: float | None
    detail: Mapping[str, Any]
    why: str | None
    by: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str, str]:
        """What is not measured twice."""
        return self.id, self.measure, settings_key(self.by)


def settings_key(settings: Mapping[str, Any]) -> str:
    """Equal for equal settings."""
    return json.dumps(settings, sort_keys=True)


R = TypeVar("R", Answered, Score)


class RunFolder:
    """Reads and appends; nothing is made before a method that writes is called."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    # -- what the run is

    def about(self) -> dict[str, Any]:
        """run.json. Raises DataError: there is none, or it cannot be read."""
        try:
            found = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
            for place, kind in KINDS.items():
                if not isinstance(value := reduce(getitem, place.split("."), found), kind):
                    raise TypeError(f"{place}: found {value!r}, not {kind.__name__}")
            return {key: found[key] for key in ("system", "questions", "seed", "hardware")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.path / 'run.json'}: cannot be read ({error}); expected a run's folder") from error

    def claim(self, name: str, spec: str, settings: Mapping[str, Any], questions: QuestionSet, seed: int) -> None:
        """Say what the folder is to hold. spec: what the user called the system. Raises DataError: it holds another
        run."""
        asked = {"system": {"name": name, "spec": spec, "settings": dict(settings)},
                 "questions": {"name": questions.name, "digest": questions.digest, "count": len(questions)},
                 "seed": seed, "hardware": hardware()}
        asked = json.loads(json.dumps(asked))  # as it will be read
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / "run.json").exists():
            with atomic(self.path / "run.json") as temporary:
                temporary.write_text(json.dumps(asked, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            return
        found = self.about()
        for key in ("system", "questions", "seed"):
            if found[key] != asked[key]:
                raise DataError(f"{self.path}: {key} was {found[key]!r}, now {asked[key]!r} is asked for; expected the "
                                "same, or another folder")

    def same_machine(self) -> None:
        """Raises DataError: the answers there were made on another machine, and timings would be of two."""
        found, here = self.about()["hardware"], hardware()
        for key in MACHINE:
            if found.get(key) != here[key]:
                raise DataError(f"{self.path}: {key} was {found.get(key)!r}, here it is {here[key]!r}; timings of two "
                                "machines do not go together; expected the same, or another folder")

    # -- answers

    def answers(self) -> dict[str, Answered]:
        """By id; of a question that was asked again, the last."""
        files = [self.path / "answers.jsonl", *sorted(self.path.glob("shard-*/answers.jsonl"))]
        rows = [row for file in files for row in _rows(file, Answered)]
        return {row.id: row for row in sorted(rows, key=lambda row: row.error is None)}  # an answer before a failure

    def keep_sound(self, identity: str, samples: Tensor, rate: int) -> str:
        """Write samples [n] as 16-bit FLAC; returns the path from the folder."""
        (self.path / "audio").mkdir(parents=True, exist_ok=True)
        name = f"audio/{identity}.flac"
        with atomic(self.path / name) as temporary:
            soundfile.write(temporary, np.clip(samples.numpy(), -1.0, 1.0), rate, subtype="PCM_16", format="FLAC")
        return name

    def sound(self, row: Answered) -> Tensor | None:
        """What was said, float32 [n] at the row's rate; None where nothing was."""
        return None if row.audio is None else read_audio(self.path / row.audio, row.sample_rate)

    # -- scores

    def scores(self) -> dict[tuple[str, str, str], Score]:
        """By (id, measure, settings)."""
        return {score.key: score for score in _rows(self.path / "scores.jsonl", Score)}

    def unavailable(self) -> dict[str, str]:
        """Measures that could not be had, and why. Raises DataError: that cannot be read."""
        return reasons(self.path / "unavailable.json")

    def keep_unavailable(self, missing: Mapping[str, str], measured: Iterable[str] = ()) -> None:
        """Note why measures could not be had, beside what was noted before of others than those now `measured`."""
        before, had = self.unavailable(), set(measured)
        now = {name: why for name, why in before.items() if name not in had} | dict(missing)
        if now != before:
            with atomic(self.path / "unavailable.json") as temporary:
                temporary.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")


def reasons(file: Path) -> dict[str, str]:
    """Who or what could not be had, and why, of a file that may be missing. Raises DataError: it cannot be read."""
    if not file.exists():
        return {}
    try:
        return {str(name): str(why) for name, why in json.loads(file.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError) as error:
        raise DataError(f"{file}: cannot be read ({error}); remove it") from error


def _rows(file: Path, kind: type[R]) -> Iterator[R]:
    """The whole lines of a file that may be missing. Raises DataError, naming the line."""
    if not file.exists():
        return
    names = {one.name for one in fields(kind)}
    lines = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], 1):  # behind the last line end is what a killed process left
        try:
            found = json.loads(line)
            row = kind(**{name: found[name] for name in names & found.keys()})
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{file}:{number}: cannot be read ({error}); remove the line") from error
        yield row


class Journal:
    """Appends rows to a file, each whole and on the disk before the next; a half-written last line is cut first."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            data = path.read_bytes()
            with path.open("r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)
        self._file = path.open("ab")

    def append(self, *rows: Answered | Score) -> None:
        """Write rows, in one piece."""
        lines = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
        self._file.write(lines.encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """No more rows."""
        self._file.close()
