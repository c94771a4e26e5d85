"""Common English words, for sentences that mean nothing and for questions about what nano knows nothing of."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from random import Random

MADE_UP = 4000


@cache
def common_words() -> dict[str, list[str]]:
    """Common English words by part of speech: noun, verb, adjective, adverb, determiner, preposition, pronoun, ..."""
    text = resources.files("omnivox.nano").joinpath("facts/words.txt").read_text(encoding="utf-8")
    rows = [line.split(":") for line in text.splitlines() if line and not line.startswith("#")]
    words: dict[str, list[str]] = {}
    for kind, listed in rows:
        words.setdefault(kind, []).extend(listed.split())
    return words


@cache
def made_up_words() -> tuple[str, ...]:
    """Words of three or four syllables that are none: the head of one common word before the tail of another.

    Neither is more than two thirds of its word, which would be heard for it.
    """
    known = {word for listed in common_words().values() for word in listed}
    heads, tails = list[list[str]](), list[list[str]]()
    for word in sorted(known):
        parts = re.findall(r"[^aeiouy]*[aeiouy]+(?:[^aeiouy]+$)?", word)
        for i in range(1, len(parts)):
            if len(word) / 3 <= len("".join(parts[:i])) <= len(word) * 2 / 3:
                heads.append(parts[:i])
                tails.append(parts[i:])
    rng, found = Random(0), dict[str, None]()
    while len(found) < MADE_UP:
        parts = [*rng.choice(heads), *rng.choice(tails)]
        word = "".join(parts)
        if len(parts) in (3, 4) and 6 <= len(word) <= 13 and word not in known:
            found[word] = None
    return tuple(found)
