"""Stage `answer`: each question answered as speech, by a language model, or by rules from the source's own answer.

A turn that already has an answer keeps it. Turns of one conversation are answered in order, each knowing those before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from omnivox.data import prompts
from omnivox.data.llm import Conversation, ask
from omnivox.data.records import Rejected, Row, Turn
from omnivox.data.rewrite import sayable
from omnivox.data.sayable import sentences, spoken, unsayable, words
from omnivox.data.saying import ByLLM, ByRules
from omnivox.errors import DataError

PLACEHOLDERS = (
    "That is a good question, and I have no answer to it yet.",
    "You have asked me something that I have not been taught.",
    "I heard your question, but there is no model behind me that could answer it.",
    "I would like to help you with that, but I do not know how.",
    "There is much to say about that, and I know none of it.",
)


@dataclass(frozen=True)
class AnswerSettings:
    """words: of an answer; rules cut after a whole sentence, models are told. seed: of the placeholders.

    placeholders: rules answer with an empty phrase what the source does not answer: to try the later stages out, not
    to train on. Otherwise such rows are rejected.
    """

    words: int = 60
    seed: int = 0
    placeholders: bool = False
    language: str = "English"
    attempts: int = 3


class AnswerByRules(ByRules[AnswerSettings]):
    """The source's own answer, put into words and cut to its first sentences. English."""

    name = "answer"
    used = ("words", "seed", "placeholders")
    fills = "answer"

    def _said(self, turn: Turn, rng: Random) -> str | Rejected:
        if turn.reference is None or not turn.reference.strip():
            if self.saying.placeholders:
                return rng.choice(PLACEHOLDERS)
            return Rejected("unanswered: the source has no answer, and rules cannot make one; use a language model, or "
                            "--placeholders to try the stages out")
        said = shortened(spoken(turn.reference), self.saying.words)
        if said is None:
            return Rejected(f"long: no sentence of the answer ends within {self.saying.words} words")
        if reason := unsayable(said):
            return Rejected(reason)
        return said


def shortened(text: str, most: int) -> str | None:
    """The first whole sentences of `text` that have at most `most` words; None where the first has more.

    A last sentence that only announces what has been cut ("Here are some tips:") goes too.
    """
    kept: list[str] = []
    count = 0
    for sentence in sentences(text):
        count += words(sentence)
        if count > most:
            break
        kept.append(sentence)
    while kept and kept[-1].endswith(":"):
        kept.pop()
    return " ".join(kept) or None


class AnswerByLLM(ByLLM[AnswerSettings]):
    """A language model answers, knowing the conversation so far."""

    name = "answer"

    def _template(self) -> str:
        return self._prompt("", ())

    def prompts(self, row: Row) -> list[str]:
        """What is asked about a row, where all goes well and every answer has the length it should have."""
        past: list[tuple[str, str]] = []
        made = list[str]()
        for turn in row.turns:
            question = turn.question or turn.instruction
            if turn.answer is None:
                made.append(self._prompt(question, past))
            past.append((question, turn.answer or "word " * self.saying.words))
        return made

    def _prompt(self, question: str, past: Sequence[tuple[str, str]]) -> str:
        return prompts.answer(question, past, self.saying.language, self.saying.words)

    def _conversation(self, row: Row) -> Conversation:
        turns: list[Turn] = []
        past: list[tuple[str, str]] = []
        for turn in row.turns:
            if turn.question is None:
                raise DataError(f"row {row.id}: has no question; run the stage 'rewrite' first")
            said: str | Rejected
            if turn.answer is not None:
                said = turn.answer
            else:
                said = yield from ask(self._prompt(turn.question, past), prompts.ANSWER_SCHEMA, self._read,
                                      self.saying.attempts)
            if isinstance(said, Rejected):
                return said
            past.append((turn.question, said))
            turns.append(replace(turn, answer=said))
        return row.with_turns(turns)

    def _read(self, found: dict[str, Any]) -> str:
        return sayable(found["answer"], self.saying.language, 2 * self.saying.words)
