"""Training from written Parquet: conversations by their index, sizes known without decoding, bad ones counted.

A conversation is bad where its page does not match its checksum, a sound cannot be decoded, a text is empty or a unit
is none of the data set's. `data[i]` raises; `data.get(i)` gives None and counts, up to `max_bad`.
"""

from __future__ import annotations

import io
import json
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from omnivox.data.write import arrow
from omnivox.errors import DataError
from omnivox.rates import SAMPLE_RATE

DESCRIPTION = "dataset.json"
_SIZES = ["id", "turn", "answer", "units", "question_seconds"]
_GROUPS = 4  # row groups kept decoded: neighbours are often asked for together


@dataclass(frozen=True)
class SpokenTurn:
    """question: float32 [n] at 16 kHz. units: int64 [U], repeats merged; None where the data was not quantised.
    answer_audio: float32 [m] at 16 kHz; None unless the data set was opened with it."""

    question: Tensor
    question_text: str
    answer: str
    units: Tensor | None
    answer_audio: Tensor | None


@dataclass(frozen=True)
class SpokenDialogue:
    """A conversation of one turn or several."""

    id: str
    turns: tuple[SpokenTurn, ...]


@dataclass(frozen=True)
class Sizes:
    """Of one conversation, all its turns together; all zero where its file cannot be opened. units: 0 where there are
    none."""

    id: str
    turns: int
    question_seconds: float
    answer_words: int
    answer_characters: int
    units: int


class _BadError(Exception):
    """A conversation that cannot be used."""


@dataclass(frozen=True)
class _Place:
    """Where a conversation stands: its file, its row group, its first row there, how many rows."""

    file: int
    group: int
    row: int
    rows: int


class SpokenDataset:
    """folder: a build's `write` folder, or any with Parquet files of this kind. max_bad: how many bad conversations
    are skipped before `get` raises.

    Raises DataError: no such files, or one that cannot be opened while `max_bad` is 0. Picklable; each process opens
    the files for itself, and counts for itself.
    """

    def __init__(self, folder: str | Path, *, answer_audio: bool = False, max_bad: int = 0) -> None:
        self.folder, self.answer_audio, self.max_bad = Path(folder), answer_audio, max_bad
        self.describe = _description(self.folder)
        self.units: int | None = self.describe.get("units")
        listed = {shard["file"]: shard["dialogues"] for shard in self.describe.get("shards", [])}
        self.files = [self.folder / name for name in listed] or sorted(self.folder.rglob("[!.]*.parquet"))
        if not self.files:
            raise DataError(f"{self.folder}: holds no Parquet files; expected a build's folder 'write'")
        self.sizes: list[Sizes] = []
        self.bad: dict[int, str] = {}
        self._places: list[_Place | None] = []
        for number, file in enumerate(self.files):
            try:
                self._scan(number, file)
            except _BadError as error:
                count = listed.get(str(file.relative_to(self.folder)), 0)
                self._lost(str(error), count)
        if len(self.bad) > self.max_bad:
            raise self._too_many(next(iter(self.bad.values())))
        self._opened: dict[int, Any] = {}
        self._tables: dict[tuple[int, int], Any] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> SpokenDialogue:
        try:
            return self._read(range(len(self))[index])
        except _BadError as error:
            raise DataError(f"{error}; build it again, or allow some bad conversations") from error

    def get(self, index: int) -> SpokenDialogue | None:
        """The conversation, or None if it is bad. Raises DataError once more than `max_bad` were."""
        index = range(len(self))[index]
        try:
            return self._read(index)
        except _BadError as error:
            self.bad[index] = str(error)
            if len(self.bad) > self.max_bad:
                raise self._too_many(str(error)) from error
            return None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": {}, "_tables": {}}

    # -- opening

    def _scan(self, number: int, file: Path) -> None:
        """Learn the places and sizes of a file's conversations."""
        try:
            with self._parquet(file) as parquet:
                starts, total = [], 0
                for group in range(parquet.num_row_groups):
                    starts.append(total)
                    total += parquet.metadata.row_group(group).num_rows
                columns = parquet.read(columns=_SIZES).to_pydict()
            if missing := [name for name in _SIZES if name not in columns]:
                raise ValueError(f"no column {missing[0]}; expected those of a build")
            first = [row for row, turn in enumerate(columns["turn"]) if turn == 0]
            spans = list(pairwise([*first, total]))
            sizes = [_sizes(columns, row, after) for row, after in spans]
        except Exception as error:  # pyarrow raises OSError, ValueError and kinds of its own
            raise _BadError(f"{file}: cannot be read ({_first_line(error)})") from error
        for row, after in spans:
            group = bisect_right(starts, row) - 1
            self._places.append(_Place(number, group, row - starts[group], after - row))
        self.sizes += sizes

    def _lost(self, reason: str, count: int) -> None:
        """A whole file: its conversations keep their indices."""
        if self.max_bad == 0 or not count:
            raise DataError(f"{reason}; build it again, or allow some bad conversations")
        for _ in range(count):
            self.bad[len(self._places)] = reason
            self._places.append(None)
            self.sizes.append(Sizes("", 0, 0.0, 0, 0, 0))

    @staticmethod
    def _parquet(file: Path) -> Any:
        return arrow().parquet.ParquetFile(file, page_checksum_verification=True)

    def _too_many(self, reason: str) -> DataError:
        return DataError(f"{self.folder}: {len(self.bad)} bad conversations, more than the {self.max_bad} allowed; "
                         f"the last: {reason}")

    # -- reading

    def _read(self, index: int) -> SpokenDialogue:
        place = self._places[index]
        if place is None:
            raise _BadError(self.bad[index])
        where = f"{self.files[place.file]}: conversation {self.sizes[index].id}"
        try:
            table = self._table(place.file, place.group)
            rows = table.slice(place.row, place.rows).to_pylist()
        except Exception as error:  # pyarrow raises OSError, ValueError and kinds of its own
            raise _BadError(f"{where}: cannot be read ({_first_line(error)})") from error
        if len(rows) != place.rows:
            raise _BadError(f"{where}: {len(rows)} of its {place.rows} turns stand in its row group; expected all")
        return SpokenDialogue(rows[0]["id"], tuple(self._turn(row, f"{where}, turn {row['turn'] + 1}") for row in rows))

    def _table(self, file: int, group: int) -> Any:
        if (file, group) not in self._tables:
            if file not in self._opened:
                self._opened[file] = self._parquet(self.files[file])
            columns = ["id", "turn", "question", "answer", "units", "question_audio"]
            table = self._opened[file].read_row_group(
                group, columns=[*columns, "answer_audio"] if self.answer_audio else columns)
            while len(self._tables) >= _GROUPS:
                del self._tables[next(iter(self._tables))]
            self._tables[file, group] = table
        return self._tables[file, group]

    def _turn(self, row: dict[str, Any], where: str) -> SpokenTurn:
        for name in ("question", "answer"):
            if not (row[name] or "").strip():
                raise _BadError(f"{where}: {name} is empty; expected words")
        units = None if row["units"] is None else torch.tensor(row["units"], dtype=torch.int64)
        if units is not None and len(units) and self.units is not None:
            low, high = int(units.min()), int(units.max())
            if low < 0 or high >= self.units:
                raise _BadError(f"{where}: units are {low} to {high}; expected 0 to {self.units - 1}")
        heard = _decoded(row["answer_audio"], f"{where}: answer_audio") if self.answer_audio else None
        return SpokenTurn(_decoded(row["question_audio"], f"{where}: question_audio"), row["question"], row["answer"],
                          units, heard)


def _sizes(columns: dict[str, list[Any]], row: int, after: int) -> Sizes:
    """Of the conversation in the rows from `row` to before `after`."""
    turns = slice(row, after)
    answers = [answer or "" for answer in columns["answer"][turns]]
    return Sizes(columns["id"][row], after - row, sum(seconds or 0.0 for seconds in columns["question_seconds"][turns]),
                 sum(len(answer.split()) for answer in answers), sum(map(len, answers)),
                 sum(len(units or ()) for units in columns["units"][turns]))


def _decoded(audio: dict[str, Any] | None, where: str) -> Tensor:
    data = (audio or {}).get("bytes")
    if not data:
        raise _BadError(f"{where}: holds no sound")
    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    except (soundfile.LibsndfileError, TypeError) as error:
        raise _BadError(f"{where}: cannot be decoded ({_first_line(error)})") from error
    if rate != SAMPLE_RATE or samples.ndim != 1 or not len(samples):
        raise _BadError(f"{where}: has shape {list(samples.shape)} at {rate} Hz; expected [n] at {SAMPLE_RATE} Hz")
    return torch.from_numpy(np.ascontiguousarray(samples))


def _description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or any({"file", "dialogues"} - shard.keys() for shard in found["shards"]):
            raise ValueError("no list of shards")
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise DataError(f"{path}: cannot be read ({error}); remove it, or write the data set again") from error
    return found


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
