"""The domain of the bundled model: one right answer for each question, held phrasings made of known words."""

from __future__ import annotations

import random
import re
from collections import Counter
from functools import cache

import pytest

from omnivox.nano.dialogues import (
    Dialogue,
    Split,
    answers,
    question_words,
    sample,
    sample_evenly,
    sample_loosely,
    sample_strange,
    strange_words,
    tokens,
    vocabulary,
    word_salad,
)
from omnivox.nano.english import common_words
from omnivox.nano.rephrase import GLUE
from omnivox.nano.topics import decline

DRAWN = 200_000


@cache
def drawn(split: Split) -> frozenset[Dialogue]:
    rng = random.Random(7)
    return frozenset(sample(rng, split) for _ in range(DRAWN))


@pytest.fixture(params=["train", "held"])
def dialogues(request: pytest.FixtureRequest) -> frozenset[Dialogue]:
    return drawn(request.param)


def test_one_question_has_one_answer() -> None:
    right: dict[str, str] = {}
    for dialogue in drawn("train") | drawn("held"):
        assert right.setdefault(dialogue.question, dialogue.answer) == dialogue.answer, dialogue


def test_held_questions_are_never_trained_on() -> None:
    assert not {d.question for d in drawn("train")} & {d.question for d in drawn("held")}


def test_held_answers_are_trained_on() -> None:
    assert {d.answer for d in drawn("held")} <= {d.answer for d in drawn("train")}


def test_held_words_are_trained_on() -> None:
    """But for what is declined: there new words are the point."""
    known = {word for d in drawn("train") for word in d.question.split()}
    asked = {word for d in drawn("held") if d.topic != "decline" for word in d.question.split()}
    assert not asked - known


def test_questions_are_as_spoken(dialogues: frozenset[Dialogue]) -> None:
    assert not [d.question for d in dialogues if not re.fullmatch(r"[a-z']+( [a-z']+)*", d.question)]


def test_answers_are_short_sentences() -> None:
    for answer in answers():
        assert re.fullmatch(r"[A-Z][A-Za-z' .,?!]*[.?!]", answer), answer
        assert "  " not in answer, answer
        assert len(tokens(answer)) <= 24, answer


def test_vocabulary_covers_everything(dialogues: frozenset[Dialogue]) -> None:
    known = set(vocabulary())
    assert not {t for d in dialogues for text in (d.question, d.answer) for t in tokens(text)} - known
    assert vocabulary() == sorted(known)
    assert len(known) < 4_000


def test_every_sampled_answer_is_listed(dialogues: frozenset[Dialogue]) -> None:
    assert {d.answer for d in dialogues} <= set(answers())
    assert len(answers()) == len(set(answers())) > 1_500


def test_the_same_seed_gives_the_same_dialogues() -> None:
    first, second = ([sample(rng, "train") for _ in range(50)] for rng in (random.Random(3), random.Random(3)))
    assert first == second


def test_declined_share() -> None:
    rng = random.Random(1)
    share = sum(sample(rng, "train").answer == decline.ANSWER for _ in range(20_000)) / 20_000
    assert 0.10 < share < 0.14


def test_topics_are_sampled_more_evenly_and_say_nothing_else() -> None:
    rng = random.Random(2)
    by_weight, evenly = (Counter(draw(rng, "train").topic for _ in range(20_000)) for draw in (sample, sample_evenly))
    assert by_weight.keys() == evenly.keys()
    assert evenly["arithmetic"] < by_weight["arithmetic"] / 1.5
    assert evenly["sports"] > 1.5 * by_weight["sports"]
    assert evenly["decline"] / 20_000 == pytest.approx(0.12, abs=0.01)
    asked = {sample_evenly(rng, "held").question for _ in range(2_000)}
    assert not asked & {d.question for d in drawn("train")}


def test_loosened_questions_ask_about_the_same_things_in_other_words_of_training() -> None:
    rng = random.Random(3)
    loose = [sample_loosely(rng, "train") for _ in range(20_000)]
    known = {word for d in drawn("train") for word in d.question.split()} | {*GLUE}
    assert {d.answer for d in loose} <= {*answers()}
    assert not {word for d in loose for word in d.question.split()} - known
    written = {d.question for d in drawn("train")}
    plain = [sample_evenly(rng, "train").question in written for _ in range(20_000)]
    assert sum(d.question in written for d in loose) < 0.75 * sum(plain)
    assert not {d.question for d in loose} & {d.question for d in drawn("held")}


def test_salads_hold_every_word_that_training_asks_with_and_no_held_one() -> None:
    rng = random.Random(3)
    heard = {word for _ in range(20_000) for word in word_salad(rng, "train").question.split()}
    assert heard == set(question_words())
    trained = {word for d in drawn("train") for word in d.question.split()}
    assert heard <= trained
    assert not word_salad(rng, "train").answer


def test_strange_questions_are_declined_and_are_none_of_the_domain() -> None:
    rng = random.Random(4)
    strange = [sample_strange(rng) for _ in range(2_000)]
    assert {d.answer for d in strange} == {decline.ANSWER}
    inside = {d.question for split in ("train", "held") for d in drawn(split) if d.topic != "decline"}
    assert not inside & {d.question for d in strange}
    made_up = set(strange_words())
    share = sum(bool(made_up & set(d.question.split())) for d in strange) / len(strange)
    assert 0.4 < share < 0.55


def test_words_made_up_are_no_words_of_the_domain_nor_like_one() -> None:
    words = strange_words()
    assert len(words) > 3_900
    assert len(set(words)) == len(words)
    assert not set(words) & {word.lower() for word in vocabulary()}
    assert all(re.fullmatch(r"[a-z]{6,13}", word) for word in words)
    common = sorted({word for listed in common_words().values() for word in listed})
    for word in words[:300]:  # of no word more than two thirds at either end
        assert not any(len(other) > 5 and (word.startswith(other[: len(other) * 2 // 3 + 2])
                                           and word.endswith(other[-2:])) for other in common)


def test_templates_are_english_where_they_were_put_together() -> None:
    texts = {d.question for split in ("train", "held") for d in drawn(split)}
    wrong = re.compile(r"\b(of|about) (we|he|she|they|there)\b|\bthere a \w+ \w+ is\b|\bheld are\b")
    assert not {text for text in texts if wrong.search(text)}
