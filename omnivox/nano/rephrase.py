"""Questions in phrasings that nobody wrote: their small words lost, added or exchanged by chance."""

from __future__ import annotations

import random
from collections.abc import Container

GLUE = ("what", "which", "what's", "the", "a", "is", "are", "of", "in", "do", "does", "you", "me", "tell", "please",
        "can", "could", "would", "give", "name", "say", "to", "it", "that", "there", "i", "for", "have", "has", "so",
        "hey", "okay", "well", "now", "right", "every", "called", "find", "know", "if", "get", "on", "at", "one")
"""Small words that carry a phrasing and seldom its meaning."""

EDITS = 4  # of them in a question, at most


def rephrase(words: list[str], glue: float, rng: random.Random, kept: Container[str] = ()) -> list[str]:
    """`words` after up to `EDITS` edits, each made with probability `glue`: one of `GLUE` lost, added or exchanged.

    kept: words that can be asked about: they stay, and none is put in; "find" carries a phrasing, but not where its
    past tense is wanted, nor "one" where numbers are added.
    """
    words, others = list(words), [word for word in GLUE if word not in kept]
    for _ in range(EDITS):
        if rng.random() >= glue:
            continue
        small = [i for i, word in enumerate(words) if word in GLUE and word not in kept]
        edit = rng.choice(("exchange", "lose", "add"))
        if edit == "exchange" and small:
            words[rng.choice(small)] = rng.choice(others)
        elif edit == "lose" and len(small) > 1:
            del words[rng.choice(small)]
        elif edit == "add":
            words.insert(rng.randint(0, len(words)), rng.choice(others))
    return words
