"""What `rewrite` and `answer` have in common: texts made by rules, or by a language model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from omnivox.data.llm import LLM, Conversation
from omnivox.data.records import Row
from omnivox.data.stage import Outcome, Stage
from omnivox.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    class Saying(DataclassInstance, Protocol):
        """Settings of a stage that makes texts."""

        @property
        def words(self) -> int: ...
        @property
        def language(self) -> str: ...
        @property
        def attempts(self) -> int: ...

Settings = TypeVar("Settings", bound="Saying")
CACHE = Path("cache") / "llm"


class ByRules(Stage, Generic[Settings]):
    """Rules know English. used: the settings that what they say depends on."""

    used: ClassVar[tuple[str, ...]]

    def __init__(self, saying: Settings) -> None:
        if saying.language != "English":
            raise ConfigError(f"language: found {saying.language!r}; the rules know English; use a language model")
        self.saying = saying

    def settings(self) -> Mapping[str, Any]:
        return {"by": "rules", **_picked(self.saying, self.used)}

    def apply(self, rows: Sequence[Row], build: Path) -> Iterable[Outcome]:
        return map(self._row, rows)

    @abstractmethod
    def _row(self, row: Row) -> Outcome:
        """The outcome of one row."""


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
