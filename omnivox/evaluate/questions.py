"""What systems are asked: a set of spoken questions by its name.

    nano             the bundled model's held-out questions, in voices heard in training
    nano:KIND        those of another kind: new_voice, new_engine, decline
    FOLDER           sound files with a questions.jsonl: {"id", "text", "audio"}, and "answer", "topic" where known
    FOLDER           a build of `omnivox data build`, or its `write`: the first turn of each conversation

A set knows its ids at once and reads sounds one by one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from omnivox.data.dataset import SpokenDataset
from omnivox.data.records import halved
from omnivox.errors import AudioError, ConfigError, DataError
from omnivox.nano import questions as held
from omnivox.sound import read_audio

MANIFEST = "questions.jsonl"
ID = re.compile(r"\w[\w.-]{0,99}", re.ASCII)  # it names a sound file as well


@dataclass(frozen=True)
class Question:
    """One spoken question. audio: float32 [n] at 16 kHz. answer: the right one, where there is only one."""

    id: str
    text: str
    audio: Tensor
    answer: str | None = None
    topic: str | None = None


@dataclass(frozen=True)
class QuestionSet:
    """Questions in their order. answers: the right ones, where there is only one. digest: of ids, words and lengths, so
    that no other set passes for this one."""

    name: str
    ids: tuple[str, ...]
    answers: tuple[str | None, ...]
    digest: str
    read: Callable[[int], Question]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Question:
        return self.read(index)

    def __iter__(self) -> Iterator[Question]:
        return (self.read(index) for index in range(len(self)))


def find_questions(name: str) -> QuestionSet:
    """The set of that name. Raises ConfigError: there is none. DataError: it cannot be read."""
    kind, _, rest = name.partition(":")
    if kind == "nano":
        return _nano(name, rest or "seen_voice")
    folder = Path(name)
    if not folder.is_dir():
        raise ConfigError(f"questions: found {name!r}; expected nano, nano:KIND, or a folder with {MANIFEST} or of "
                          "`omnivox data build`")
    if (folder / MANIFEST).exists():
        return _sounds(folder)
    return _built(folder / "write" if (folder / "write").is_dir() else folder)


def _set(name: str, ids: list[str], answers: list[str | None], facts: list[Any], read: Callable[[int], Question]
         ) -> QuestionSet:
    """facts: of each question, as JSON. Raises DataError: an id that cannot name a file, or stands there twice."""
    if not ids:
        raise DataError(f"{name}: holds no questions; expected one or more")
    for one in ids:
        if not isinstance(one, str) or not ID.fullmatch(one):
            raise DataError(f"{name}: id {one!r}; expected letters, digits, '.', '_' or '-', 100 at most")
    if twice := [one for one, count in Counter(ids).items() if count > 1]:
        raise DataError(f"{name}: id {twice[0]!r} stands there {ids.count(twice[0])} times; expected it once")
    digest = hashlib.sha256(json.dumps([ids, answers, facts]).encode()).hexdigest()
    return QuestionSet(name, tuple(ids), tuple(answers), digest, read)


# -- the bundled model's ----------------------------------------------------------------------------------------------

def _nano(name: str, kind: str) -> QuestionSet:
    known = get_args(held.Kind)
    if kind not in known:
        raise ConfigError(f"questions: found {name!r}; expected nano, or nano: with one of {', '.join(known)}")
    asked = held.held_out(kind)  # type: ignore[arg-type]  # looked at above
    ids = [f"{kind}-{i:03d}" for i in range(len(asked))]

    def read(index: int) -> Question:
        one = asked[index]
        return Question(ids[index], one.question, torch.from_numpy(one.audio), one.answer, one.topic)

    return _set(name, ids, [one.answer for one in asked], [[one.question, len(one.audio)] for one in asked], read)


# -- a folder of sounds -----------------------------------------------------------------------------------------------

def _sounds(folder: Path) -> QuestionSet:
    rows = list(_rows(folder / MANIFEST))

    def read(index: int) -> Question:
        row = rows[index]
        try:
            audio = read_audio(folder / row["audio"])
        except AudioError as error:
            raise DataError(f"{folder / MANIFEST}: question {row['id']}: {error}") from error
        return Question(row["id"], row["text"], audio, row.get("answer"), row.get("topic"))

    facts = [[row["text"], (folder / row["audio"]).stat().st_size] for row in rows]
    return _set(folder.name, [row["id"] for row in rows], [row.get("answer") for row in rows], facts, read)


def _rows(manifest: Path) -> Iterator[dict[str, str]]:
    for number, line in enumerate(manifest.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        where = f"{manifest}:{number}"
        try:
            text = line.decode("utf-8-sig").strip()
            row = json.loads(text)
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: is not UTF-8 ({error.reason} at byte {error.start}); save it as such") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: is no JSON ({error})") from error
        if not isinstance(row, dict):
            raise DataError(f'{where}: found {text[:40]!r}; expected {{"id", "text", "audio"}}')
        if halved(row):
            raise DataError(f"{where}: holds half a character, which cannot be written; expected whole ones")
        for key in ("id", "text", "audio", "answer", "topic"):
            if not isinstance(row.get(key), str) and (key in ("id", "text", "audio") or row.get(key) is not None):
                raise DataError(f"{where}: {key} is {row.get(key)!r}; expected a string")
        if not os.path.isfile(manifest.parent / row["audio"]):  # noqa: PTH113 (Path raises for a name too long)
            raise DataError(f"{where}: audio: no file {manifest.parent / row['audio']}")
        yield row


# -- a built data set -------------------------------------------------------------------------------------------------

def _built(folder: Path) -> QuestionSet:
    data = SpokenDataset(folder)

    def read(index: int) -> Question:
        dialogue = data[index]
        turn = dialogue.turns[0]
        return Question(dialogue.id, turn.question_text, turn.question)

    facts = [[size.question_seconds, size.answer_characters] for size in data.sizes]
    name = folder.parent.name if folder.name == "write" else folder.name
    return _set(name, [size.id for size in data.sizes], [None] * len(data), facts, read)
