"""Whether the written answer is the right one, letter by letter: for questions with one right answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omnivox.evaluate.measure import Answer, Value


class Exact:
    """exact: 1 where the written answer equals the expected one, else 0."""

    name = "exact"

    def settings(self) -> Mapping[str, Any]:
        return {"equal": "letter by letter"}

    def measure(self, answers: Sequence[Answer]) -> list[Value]:
        return [Value(None, "no right answer is known") if answer.expected is None
                else Value(float(answer.text.strip() == answer.expected.strip()), None, {"expected": answer.expected})
                for answer in answers]
