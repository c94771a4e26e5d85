"""Typed questions reach a model as it knows questions."""

import re

from hypothesis import given
from hypothesis import strategies as st

import omnivox
from omnivox.checkpoint import Prompt


def test_a_model_of_spoken_questions_reads_typed_ones_as_they_are_spoken() -> None:
    assert Prompt(spoken=True).typed("What's 3.5, please? Tell me!") == "what's 3.5 please tell me"
    assert Prompt().typed("What is it?") == "What is it?"


@given(st.text(alphabet="ab.,?!;: \n\t"))
def test_stops_are_dropped_where_a_word_ends(question: str) -> None:
    words = [part.rstrip(".,?!;:") for part in re.split(r"(\s+)", question)]
    assert Prompt(spoken=True).typed(question) == "".join(words)


def test_a_question_of_stops_alone_is_read_in_one_pass() -> None:
    stops = 200_000 * "."  # looked at from each of them, it would take many minutes
    assert Prompt(spoken=True).typed(f"a{stops}a b{stops}") == f"a{stops}a b"


def test_capitals_and_stops_change_no_answer_of_nanos() -> None:
    omni = omnivox.load("nano")
    said = []
    for question in ("tell me a poem", "Tell me a poem."):
        *_, done = omni.respond_text(question, speak=False)
        assert isinstance(done, omnivox.Done)
        said.append(done.reply.text)
    assert said[0] == said[1] != "Sorry, I don't know that."
