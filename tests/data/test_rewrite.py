"""Rewriting and answering by rules: seeds, fillers, what is kept and what is rejected."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from omnivox.data.answer import PLACEHOLDERS, AnswerByRules, AnswerSettings, shortened
from omnivox.data.records import Rejected, Row, Turn
from omnivox.data.rewrite import OPENERS, RewriteByRules, RewriteSettings, with_filler
from omnivox.errors import ConfigError

HERE = Path()


def row(text: str, place: int = 0, **fields: str) -> Row:
    return Row(f"row{place}", "s", "", (Turn(text, **fields),))  # type: ignore[arg-type]


def rewritten(text: str, **settings: float) -> str | Rejected:
    [outcome] = RewriteByRules(RewriteSettings(**({"fillers": 0.0} | settings))).apply([row(text)], HERE)  # type: ignore[arg-type]
    return outcome if isinstance(outcome, Rejected) else str(outcome.turns[0].question)


def answered(turn: Turn, **settings: object) -> str | Rejected:
    [outcome] = AnswerByRules(AnswerSettings(**settings)).apply([Row("a", "s", "", (turn,))], HERE)  # type: ignore[arg-type]
    return outcome if isinstance(outcome, Rejected) else str(outcome.turns[0].answer)


def test_an_instruction_becomes_speech() -> None:
    assert rewritten("List 3 uses of C++, e.g. games") == "List three uses of C plus plus, for example games."
    assert rewritten("how do I peel 2 onions") == "how do I peel two onions?"
    assert rewritten("When you peel onions, do not cry") == "When you peel onions, do not cry."


@pytest.mark.parametrize(("text", "why"), [
    ("Fix this: `def f(x): pass`", "code"), ("Summarise https://a.org", "link"), ("word " * 61, "long: 61 words"),
    ("Translate \u4f60\u597d", "script"), ("???", "empty")])
def test_what_cannot_be_asked_aloud_is_rejected(text: str, why: str) -> None:
    outcome = rewritten(text)
    assert isinstance(outcome, Rejected)
    assert outcome.reason.startswith(why)


def test_fillers_come_at_their_share_and_from_the_seed() -> None:
    rows = [row("What is rain?", place) for place in range(400)]

    def questions(**settings: float) -> list[str]:
        stage = RewriteByRules(RewriteSettings(**settings))  # type: ignore[arg-type]
        return [str(one.turns[0].question) for one in stage.apply(rows, HERE) if isinstance(one, Row)]

    some = questions(fillers=0.4)
    assert 120 < sum(text != "What is rain?" for text in some) < 200
    assert set(some) <= {"What is rain?", *(f"{opener} what is rain?" for opener in OPENERS)}
    assert len(set(some)) == len(OPENERS) + 1
    assert some == questions(fillers=0.4) != questions(fillers=0.4, seed=1)
    stage = RewriteByRules(RewriteSettings())
    assert [*stage.apply(rows[:7], HERE), *stage.apply(rows[7:], HERE)] == list(stage.apply(rows, HERE))


def test_fillers_keep_names_and_greetings() -> None:
    rng = row("x").rng("test")
    assert with_filler("I am cold.", rng).endswith(" I am cold.")
    assert with_filler("Paris is where?", rng).endswith(" Paris is where?")
    assert with_filler("What's rain?", rng).endswith(" what's rain?")
    assert with_filler("As a chef, describe it.", rng).endswith(" as a chef, describe it.")
    assert with_filler("I'm cold.", rng).endswith(" I'm cold.")
    assert with_filler("Hi, who are you?", rng) == "Hi, um, who are you?"


def test_what_is_speech_already_stays_as_it_is() -> None:
    [outcome] = RewriteByRules(RewriteSettings(fillers=1.0)).apply([row("x 1", question="as it was 1")], HERE)
    assert isinstance(outcome, Row)
    assert outcome.turns[0].question == "as it was 1"
    assert answered(Turn("x", question="x", answer="as it was")) == "as it was"


def test_an_answer_of_the_source_is_said_briefly() -> None:
    long = "Water boils at 100°C. " + "It is wet. " * 40
    assert answered(Turn("x", question="x", reference=long), words=12) == (
        "Water boils at one hundred degrees Celsius. It is wet.")


def test_an_announced_list_goes_with_its_announcement() -> None:
    assert shortened("Rest well. Here are some tips: " + "Sleep, " * 40 + "and eat.", 10) == "Rest well."
    assert shortened("Here are some tips: " + "Sleep, " * 40 + "and eat.", 10) is None


def test_without_an_answer_it_is_rejected_or_filled_in() -> None:
    outcome = answered(Turn("x", question="x"))
    assert isinstance(outcome, Rejected)
    assert "use a language model" in outcome.reason
    assert answered(Turn("x", question="x"), placeholders=True) in PLACEHOLDERS
    assert answered(Turn("x", question="x", reference="Yes."), placeholders=True) == "Yes."


@pytest.mark.parametrize(("reference", "why"), [("print(1)", "code"), ("Because " + "so " * 99 + "it is.", "long")])
def test_an_answer_that_cannot_be_said_is_rejected(reference: str, why: str) -> None:
    outcome = answered(Turn("x", question="x", reference=reference))
    assert isinstance(outcome, Rejected)
    assert outcome.reason.startswith(why)


def test_one_turn_that_cannot_be_said_takes_its_conversation_along() -> None:
    [outcome] = RewriteByRules(RewriteSettings()).apply([replace(row("Fine."), turns=(Turn("Hi."), Turn("a_b")))], HERE)
    assert isinstance(outcome, Rejected)


def test_rules_know_english_only() -> None:
    for make in (lambda: RewriteByRules(RewriteSettings(language="German")),
                 lambda: AnswerByRules(AnswerSettings(language="German"))):
        with pytest.raises(ConfigError, match="the rules know English; use a language model"):
            make()
    with pytest.raises(ConfigError, match="fillers: found 2"):
        RewriteSettings(fillers=2)
