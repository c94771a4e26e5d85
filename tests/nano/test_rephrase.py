"""Phrasings that nobody wrote ask about the same things as those that somebody did."""

import random

from omnivox.nano.rephrase import EDITS, GLUE, rephrase

QUESTION = ["what", "is", "the", "capital", "of", "france"]


def test_rephrasing_touches_small_words_only() -> None:
    edited = [rephrase(QUESTION, 0.9, random.Random(seed)) for seed in range(300)]
    for words in edited:
        assert [word for word in words if word not in GLUE] == ["capital", "france"]
        assert abs(len(words) - len(QUESTION)) <= EDITS
    assert min(map(len, edited)) < len(QUESTION) < max(map(len, edited))


def test_what_is_asked_about_stays_though_it_is_a_small_word() -> None:
    question = ["what", "is", "the", "past", "tense", "of", "find"]
    edited = [rephrase(question, 0.9, random.Random(seed), kept={"find"}) for seed in range(300)]
    assert all("find" in words for words in edited)
    assert not all("find" in rephrase(question, 0.9, random.Random(seed)) for seed in range(300))


def test_nothing_is_put_in_that_could_be_asked_about() -> None:
    asked = ["add", "three", "to", "ten"]
    sums = [rephrase(asked, 0.9, random.Random(seed), kept={"one", "three"}) for seed in range(300)]
    assert not any("one" in words for words in sums)
    assert any("one" in rephrase(asked, 0.9, random.Random(seed)) for seed in range(300))


def test_without_a_chance_nothing_is_edited() -> None:
    assert rephrase(QUESTION, 0.0, random.Random(1)) == QUESTION
