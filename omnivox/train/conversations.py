"""What is learnt from: conversations of spoken questions and written, spoken answers, wherever they are kept.

    a folder of Parquet shards       as `omnivox data build` writes them
    a .jsonl file, or a folder       {"id", "turns": [{"question_audio": "q.flac", "answer": "text", "units": [1, 2]}]}
                                     one conversation a line; sounds beside the file, in any format libsndfile reads

Shapes: n samples, U units.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import soundfile
import torch
from torch import Tensor

from omnivox.errors import AudioError, DataError
from omnivox.sound import read_audio


class Turn(Protocol):
    """A question and its answer."""

    @property
    def question(self) -> Tensor:
        """Float32 [n] at 16 kHz."""

    @property
    def answer(self) -> str:
        """What is to be written."""

    @property
    def units(self) -> Tensor | None:
        """What is to be spoken: int64 [U] without equal neighbours; None where the answer was not spoken."""


class Conversation(Protocol):
    """One or several turns."""

    @property
    def id(self) -> str:
        """Its name, in messages and logs."""

    @property
    def turns(self) -> Sequence[Turn]:
        """Oldest first."""


class Size(Protocol):
    """How long a conversation is, known without decoding its sound."""

    @property
    def turns(self) -> int:
        """How many."""

    @property
    def question_seconds(self) -> float:
        """Of all turns."""

    @property
    def answer_characters(self) -> int:
        """Of all turns."""

    @property
    def units(self) -> int:
        """Of all turns; 0 where they were not spoken."""


class Conversations(Protocol):
    """A data set. It travels to loading processes by pickle; item i depends on i alone."""

    @property
    def sizes(self) -> Sequence[Size]:
        """Of each conversation."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Conversation:
        """Raises DataError or AudioError where it cannot be used."""


@dataclass(frozen=True)
class SpokenTurn:
    """A question and its answer, in memory."""

    question: Tensor
    answer: str
    units: Tensor | None = None


@dataclass(frozen=True)
class SpokenConversation:
    """One or several turns, in memory."""

    id: str
    turns: tuple[SpokenTurn, ...]


@dataclass(frozen=True)
class TurnsSize:
    """How long a conversation is."""

    turns: int
    question_seconds: float
    answer_characters: int
    units: int


class InMemory:
    """Conversations in a list."""

    def __init__(self, rows: Sequence[SpokenConversation]) -> None:
        self.rows = rows
        self.sizes = [TurnsSize(len(row.turns), sum(len(turn.question) for turn in row.turns) / 16_000,
                                sum(len(turn.answer) for turn in row.turns),
                                sum(0 if turn.units is None else len(turn.units) for turn in row.turns))
                      for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> SpokenConversation:
        return self.rows[index]


class Part:
    """Some conversations of a data set."""

    def __init__(self, whole: Conversations, rows: Sequence[int]) -> None:
        self.whole, self.rows = whole, rows
        self.sizes = [whole.sizes[row] for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Conversation:
        return self.whole[self.rows[index]]


def hold_out(data: Conversations, rows: int, seed: int) -> tuple[Conversations, Conversations]:
    """A data set in two: to train on, and about `rows` (a tenth at most) to measure on."""
    order = list(range(len(data)))
    random.Random(f"held {seed}").shuffle(order)
    held = min(rows, len(data) // 10)
    return Part(data, sorted(order[held:])), Part(data, sorted(order[:held]))


class Recordings:
    """Conversations in JSON lines, their questions in sound files beside. Raises DataError naming file and line."""

    def __init__(self, path: Path) -> None:
        files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not files:
            raise DataError(f"{path}: holds no .jsonl file; expected conversations, one a line")
        self.path = path
        self._rows = [(file, number, row) for file in files for number, row in _lines(file)]
        self.sizes = [_size(file.parent, row) for file, _, row in self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> SpokenConversation:
        file, number, row = self._rows[index]
        try:
            turns = tuple(SpokenTurn(read_audio(file.parent / turn["question_audio"]), turn["answer"], _units(turn))
                          for turn in row["turns"])
        except AudioError as error:
            raise DataError(f"{file}, line {number}: {error}") from error
        return SpokenConversation(str(row.get("id", f"{file.name}:{number}")), turns)


def open_conversations(path: str | Path, max_bad: int = 0) -> Conversations:
    """The data set in a folder or file. max_bad: conversations in Parquet shards that may be lost with a damaged one.

    Raises DataError: nothing there that is a data set, or more is lost."""
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; expected a data set (`omnivox data build` makes one)")
    if path.suffix == ".jsonl" or (any(path.glob("*.jsonl")) and not any(path.rglob("[!.]*.parquet"))):
        return Recordings(path)
    from omnivox.data.dataset import SpokenDataset

    dataset: Conversations = SpokenDataset(path, max_bad=max_bad)
    return dataset


def _lines(file: Path) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    try:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                rows.append((number, _row(json.loads(line), f"{file}, line {number}")))
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: cannot be read as JSON lines ({error})") from error
    return rows


def _row(row: Any, where: str) -> dict[str, Any]:
    turns = row.get("turns") if isinstance(row, dict) else None
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{where}: has no turns; expected {{\"turns\": [{{\"question_audio\", \"answer\"}}]}}")
    for turn in turns:
        for key in ("question_audio", "answer"):
            if not isinstance(turn, dict) or not isinstance(turn.get(key), str):
                raise DataError(f"{where}: a turn has no {key!r}; expected a text")
    return dict(row)


def _units(turn: dict[str, Any]) -> Tensor | None:
    units = turn.get("units")
    return None if units is None else torch.tensor(units, dtype=torch.long)


def _size(folder: Path, row: dict[str, Any]) -> TurnsSize:
    turns = row["turns"]
    seconds = sum(_seconds(folder / turn["question_audio"], turn.get("question_seconds")) for turn in turns)
    return TurnsSize(len(turns), seconds, sum(len(turn["answer"]) for turn in turns),
                     sum(len(turn.get("units") or ()) for turn in turns))


def _seconds(path: Path, stated: float | None) -> float:
    """0 where the sound cannot be read: whoever decodes it will say so."""
    if stated is not None:
        return float(stated)
    try:
        return float(soundfile.info(path).duration)
    except (soundfile.LibsndfileError, OSError):
        return 0.0
