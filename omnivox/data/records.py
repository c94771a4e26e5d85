"""What flows through the stages: a conversation in the making, and the reason why one left.

    Row       a conversation of one turn or several, with where it came from and under which licence
    Turn      what the source said, what is asked and answered in its place, both as speech, and the answer's units
    Clip      a sound file of the build, its seconds, its voice
    Rejected  what a stage returns in place of a row: why it cannot be used

Rows are frozen; a stage answers with a changed copy (`dataclasses.replace`). `to_json` and `from_json` are one line of
JSONL each, with the same keys in the same order, so that equal rows are equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from random import Random
from typing import Any

from omnivox.errors import DataError


@dataclass(frozen=True)
class Clip:
    """A mono sound file. `path` is relative to the build's folder; absolute where it is a source's own."""

    path: str
    seconds: float
    voice: str = ""  # "": not known


@dataclass(frozen=True)
class Turn:
    """One exchange. What is None has not been made yet.

    instruction: as the source has it, in writing. reference: the source's own written answer.
    question, answer: as speech. units: of the answer, repeats merged, as the speech decoder is to predict them.
    """

    instruction: str
    reference: str | None = None
    question: str | None = None
    answer: str | None = None
    question_audio: Clip | None = None
    answer_audio: Clip | None = None
    units: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Row:
    """A conversation. `id` is made of its source and its place there alone; `scores` are what the filter measured."""

    id: str
    source: str
    licence: str
    turns: tuple[Turn, ...]
    scores: Mapping[str, float] = field(default_factory=dict)

    def rng(self, purpose: str, seed: int = 0) -> Random:
        """Random numbers of this row's own, whatever rows stand around it and whichever process asks."""
        return Random(f"{seed} {purpose} {self.id}")

    def with_turns(self, turns: list[Turn] | tuple[Turn, ...]) -> Row:
        """The same row with other turns."""
        return replace(self, turns=tuple(turns))


@dataclass(frozen=True)
class Rejected:
    """A row is left out because of `reason`: a short sentence that begins with a word to count by, then a colon."""

    reason: str


def row_id(source: str, place: int | str, text: str) -> str:
    """Sixteen hexadecimal digits for the row that stands at `place` (an index or the source's own id) of `source`."""
    return hashlib.sha256(f"{source}\0{place}\0{text}".encode()).hexdigest()[:16]


# -- JSON -------------------------------------------------------------------------------------------------------------

def to_json(row: Row) -> str:
    """One line, without its end; what is None or empty is left out."""
    return json.dumps(_plain(row), ensure_ascii=False, separators=(",", ":"))


def halved(found: Any) -> bool:
    """Whether some text in JSON's `found` holds half a character, as "\\ud83d" alone is, which cannot be written."""
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _plain(thing: Any) -> Any:
    if isinstance(thing, Clip | Turn | Row):
        values = ((one.name, _plain(getattr(thing, one.name))) for one in fields(thing))
        return {name: value for name, value in values if value is not None and value != {}}
    if isinstance(thing, tuple):
        return [_plain(one) for one in thing]
    if isinstance(thing, Mapping):
        return {name: thing[name] for name in sorted(thing)}
    return thing


def from_json(line: str, where: str = "row") -> Row:
    """The row of a line. Raises DataError, naming `where` and the field: not JSON, a missing, unknown or odd field."""
    try:
        found = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error}); expected one row a line") from error
    return row_from(found, where)


def row_from(found: Any, where: str = "row") -> Row:
    """The row of an object as `to_json` writes it. Raises DataError, naming `where` and the field."""
    row: Row = _read(Row, found, where)
    if not row.turns:
        raise DataError(f"{where}: turns is empty; expected one turn at least")
    return row


def _read(kind: type, found: Any, where: str) -> Any:
    if not isinstance(found, dict):
        raise DataError(f"{where}: found {_shown(found)}; expected an object with {', '.join(_KINDS[kind])}")
    if unknown := found.keys() - _KINDS[kind].keys():
        raise DataError(f"{where}: unknown field {sorted(unknown)[0]!r}; expected {', '.join(_KINDS[kind])}")
    values = {name: _value(expected, found[name], f"{where}: {name}") for name, expected in _KINDS[kind].items()
              if name in found}
    if missing := [name for name in _REQUIRED[kind] if name not in values]:
        raise DataError(f"{where}: {missing[0]} is missing; expected {', '.join(_KINDS[kind])}")
    return kind(**values)


def _value(expected: str, found: Any, where: str) -> Any:
    if expected == "str" and isinstance(found, str):
        return found
    if expected == "seconds" and _finite(found) and found >= 0:
        return float(found)
    if expected == "clip":
        return _read(Clip, found, where)
    if expected == "turns" and isinstance(found, list):
        return tuple(_read(Turn, one, f"{where}[{i}]") for i, one in enumerate(found))
    if expected == "units" and isinstance(found, list) and all(type(one) is int and one >= 0 for one in found):
        return tuple(found)
    if expected == "scores" and isinstance(found, dict) and all(map(_finite, found.values())):
        return {name: float(value) for name, value in found.items()}
    raise DataError(f"{where}: found {_shown(found)}; expected {_MEANT[expected]}")


def _finite(found: Any) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)


def _shown(found: Any) -> str:
    text = json.dumps(found, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


_KINDS: dict[type, dict[str, str]] = {
    Clip: {"path": "str", "seconds": "seconds", "voice": "str"},
    Turn: {"instruction": "str", "reference": "str", "question": "str", "answer": "str", "question_audio": "clip",
           "answer_audio": "clip", "units": "units"},
    Row: {"id": "str", "source": "str", "licence": "str", "turns": "turns", "scores": "scores"},
}
_REQUIRED: dict[type, tuple[str, ...]] = {
    Clip: ("path", "seconds"), Turn: ("instruction",), Row: ("id", "source", "licence", "turns")}
_MEANT = {"str": "a string", "seconds": "a number of seconds", "clip": "an object", "turns": "a list of turns",
          "units": "a list of whole numbers from 0", "scores": "an object of numbers"}
