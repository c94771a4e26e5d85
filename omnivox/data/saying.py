"""What `rewrite` and `answer` have in common: texts made by rules, or by a language model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from omnivox.data.llm import LLM, Conversation
from omnivox.data.records import Rejected, Row, Turn
from omnivox.data.stage import Outcome, Stage
from omnivox.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    class Saying(DataclassInstance, Protocol):
        """Settings of a stage that makes texts."""

        @property
        def words(self) -> int: ...
        @property
        def seed(self) -> int: ...
        @property
        def language(self) -> str: ...
        @property
        def attempts(self) -> int: ...

Settings = TypeVar("Settings", bound="Saying")
CACHE = Path("cache") / "llm"


class ByRules(Stage, Generic[Settings]):
    """Rules know English. used: the settings that what they say depends on. fills: the field of a turn that they fill
    where it is empty."""

    used: ClassVar[tuple[str, ...]]
    fills: ClassVar[str]

    def __init__(self, saying: Settings) -> None:
        if saying.language != "English":
            raise ConfigError(f"language: found {saying.language!r}; the rules know English; use a language model")
        self.saying = saying

    def settings(self) -> Mapping[str, Any]:
        return {"by": "rules", **_picked(self.saying, self.used)}

    def apply(self, rows: Sequence[Row], build: Path) -> Iterable[Outcome]:
        return map(self._row, rows)

    def _row(self, row: Row) -> Outcome:
        rng = row.rng(self.name, self.saying.seed)
        turns: list[Turn] = []
        for turn in row.turns:
            said = getattr(turn, self.fills) or self._said(turn, rng)
            if isinstance(said, Rejected):
                return said
            filled: dict[str, Any] = {self.fills: said}
            turns.append(replace(turn, **filled))
        return row.with_turns(turns)

    @abstractmethod
    def _said(self, turn: Turn, rng: Random) -> str | Rejected:
        """What is said in that turn, or why nothing is."""


class ByLLM(Stage, Generic[Settings]):
    """A language model is asked; its replies are kept in the build."""

    def __init__(self, saying: Settings, llm: LLM) -> None:
        self.saying, self.llm = saying, llm

    def settings(self) -> Mapping[str, Any]:
        return {"by": dict(self.llm.settings()), "prompt": self._template(),
                **_picked(self.saying, ("words", "language", "attempts"))}

    def apply(self, rows: Sequence[Row], build: Path) -> Iterator[Outcome]:
        return self.llm.converse([self._conversation(row) for row in rows], build / CACHE)

    def close(self) -> None:
        self.llm.close()

    @abstractmethod
    def prompts(self, row: Row) -> list[str]:
        """What is asked about a row, where all goes well."""

    @abstractmethod
    def _template(self) -> str:
        """What is asked about nothing: the words around each question."""

    @abstractmethod
    def _conversation(self, row: Row) -> Conversation:
        """The work on one row."""


def _picked(saying: Saying, names: Sequence[str]) -> dict[str, Any]:
    known = asdict(saying)
    return {name: known[name] for name in names}
