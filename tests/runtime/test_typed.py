"""Typed questions reach a model as it knows questions."""

import omnivox
from omnivox.checkpoint import Prompt


def test_a_model_of_spoken_questions_reads_typed_ones_as_they_are_spoken() -> None:
    assert Prompt(spoken=True).typed("What's 3.5, please? Tell me!") == "what's 3.5 please tell me"
    assert Prompt().typed("What is it?") == "What is it?"


def test_capitals_and_stops_change_no_answer_of_nanos() -> None:
    omni = omnivox.load("nano")
    said = []
    for question in ("tell me a poem", "Tell me a poem."):
        *_, done = omni.respond_text(question, speak=False)
        assert isinstance(done, omnivox.Done)
        said.append(done.reply.text)
    assert said[0] == said[1] != "Sorry, I don't know that."
