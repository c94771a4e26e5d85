"""Common English words, for sentences that mean nothing and for questions about what nano knows nothing of."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def common_words() -> dict[str, list[str]]:
    """Common English words by part of speech: noun, verb, adjective, adverb, determiner, preposition, pronoun, ..."""
    text = resources.files("omnivox.nano").joinpath("facts/words.txt").read_text(encoding="utf-8")
    rows = [line.split(":") for line in text.splitlines() if line and not line.startswith("#")]
    words: dict[str, list[str]] = {}
    for kind, listed in rows:
        words.setdefault(kind, []).extend(listed.split())
    return words
