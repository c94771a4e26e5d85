"""Asking a language model about many rows: what is asked, and whoever answers.

The work on one row is a generator that yields requests, is sent their texts, and returns its outcome. An `LLM` drives
many of them: `endpoint.Endpoint` all at once over HTTP, `local.LocalLLM` in batches on a model of this process.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from omnivox.data.records import Rejected, Row

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """One question to a model: a single user's message, for some chat templates know no other role.

    schema: of the JSON object that is to come back. attempt: 0, then one more each time the reply was of no use.
    """

    prompt: str
    schema: Mapping[str, Any]
    attempt: int = 0

    def asked(self) -> dict[str, Any]:
        """The fields of an OpenAI-compatible request that are of this question alone."""
        form = {"name": "reply", "strict": True, "schema": dict(self.schema)}
        return {"messages": [{"role": "user", "content": self.prompt}], "seed": self.attempt,
                "response_format": {"type": "json_schema", "json_schema": form}}


Conversation = Generator[Request, str, Row | Rejected]
Asking = Generator[Request, str, T | Rejected]


class LLM(ABC):
    """Something that answers requests. Picklable: connections and weights are made when they are first needed."""

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """What its replies depend on, as JSON: the model and how it samples."""

    @abstractmethod
    def converse(self, conversations: Sequence[Conversation], cache: Path) -> Iterator[Row | Rejected]:
        """The outcomes, in order. `cache` is a folder that keeps every reply."""

    def close(self) -> None:  # noqa: B027
        """Let go of connections; calls under way are given up."""


class UnusableError(ValueError):
    """A reply that does not say what it should; its text is the reason."""


def ask(prompt: str, schema: Mapping[str, Any], read: Callable[[dict[str, Any]], T], attempts: int) -> Asking[T]:
    """What `read` makes of the reply; asked again with another seed while it raises UnusableError, then rejected."""
    reason = ""
    for attempt in range(attempts):
        text = yield Request(prompt, schema, attempt)
        try:
            return read(json_object(text, schema))
        except UnusableError as error:
            reason = str(error)
    return Rejected(f"reply: {reason} ({attempts} attempts)")


def json_object(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object in `text`, which may stand in a fence or among words.

    Raises UnusableError: there is none, or a field is missing or of another kind.
    """
    found = None
    for start in (match.start() for match in re.finditer(r"\{", text)):
        try:
            found, _ = json.JSONDecoder().raw_decode(text, start)
            break
        except (ValueError, RecursionError):
            continue
    if not isinstance(found, dict):
        raise UnusableError(f"no JSON object in {_shown(text)}")
    kinds = {"string": str, "boolean": bool}
    for name in schema["required"]:
        kind = schema["properties"][name]["type"]
        if not isinstance(found.get(name), kinds[kind]):
            raise UnusableError(f"{name} is no {kind} in {_shown(text)}")
    return found


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 80 else text[:77] + "...")


def schema(**kinds: str) -> dict[str, Any]:
    """Of an object that has these fields and no others."""
    return {"type": "object", "properties": {name: {"type": kind} for name, kind in kinds.items()},
            "required": list(kinds), "additionalProperties": False}
