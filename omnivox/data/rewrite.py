"""Stage `rewrite`: each instruction as somebody would say it, by a language model or by rules.

A turn that already has a question (a source of spoken conversations) keeps it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from omnivox.data import prompts
from omnivox.data.llm import Asking, Conversation, UnusableError, ask
from omnivox.data.records import Rejected, Row, Turn
from omnivox.data.sayable import sentences, spoken, unsayable, words
from omnivox.data.saying import ByLLM, ByRules
from omnivox.errors import ConfigError

OPENERS = ("Um,", "Uh,", "Hey,", "So,", "Well,", "Okay, so", "Hmm,", "Right, um,", "Hi there,", "Oh, and")
LOWERED = re.compile(  # first words that lose their capital behind a filler
    r"(?:what|who|where|when|why|how|which|whose|is|are|was|were|do|does|did|can|could|would|should|will|has|have|may|"
    r"give|tell|explain|describe|write|list|name|find|make|create|suggest|compare|imagine|discuss|develop|design|"
    r"generate|identify|provide|summari[sz]e|analy[sz]e|solve|translate|think|if|the|a|an|in|on|my|your|there|some|"
    r"please|given|help|show|recommend|as|you|he|she|it|we|they|this|that|these|those|for|from|of|at|by|with|after|"
    r"before|during|based|pretend|implement|structure|compose|draft|outline|propose|calculate|classify|categori[sz]e|"
    r"convert|determine|edit|evaluate|extract|rewrite|rank|arrange|choose|consider|construct|assume|predict|reword|"
    r"add|answer|take|use|let|come)(?:'\w+)?", re.IGNORECASE)
QUESTION = re.compile(  # how a sentence without its mark begins if it asks
    r"(?:what|who|where|why|how|which|whose|is|are|was|were|does|did|can|could|would|should)(?:'\w+)?\b",
    re.IGNORECASE)


@dataclass(frozen=True)
class RewriteSettings:
    """seed: of the fillers that rules add, to `fillers` of the questions. words: longer questions are rejected.

    Of a language other than English, only a language model knows the rules.
    """

    words: int = 60
    fillers: float = 0.4
    seed: int = 0
    language: str = "English"
    attempts: int = 3

    def __post_init__(self) -> None:
        if not 0 <= self.fillers <= 1:
            raise ConfigError(f"fillers: found {self.fillers}; expected a share from 0 to 1")


class RewriteByRules(ByRules[RewriteSettings]):
    """Number words, symbols, abbreviations and fillers by rule: no model is needed. English."""

    name = "rewrite"
    used = ("words", "fillers", "seed")
    fills = "question"

    def _said(self, turn: Turn, rng: Random) -> str | Rejected:
        said = spoken(turn.instruction)
        if reason := unsayable(said):
            return Rejected(reason)
        if (count := words(said)) > self.saying.words:
            return Rejected(f"long: {count} words; at most {self.saying.words} are asked aloud")
        said = " ".join(_ended(part) for part in sentences(said))
        return with_filler(said, rng) if rng.random() < self.saying.fillers else said


def _ended(sentence: str) -> str:
    if sentence[-1] in ".?!":
        return sentence
    return sentence.rstrip(",;:") + ("?" if QUESTION.match(sentence) else ".")


def with_filler(text: str, rng: Random) -> str:
    """`text` begun as people begin when they think while they speak."""
    first, _, rest = text.partition(" ")
    if first.lower().rstrip(",") in {"hi", "hello", "hey"}:
        return f"{first} um, {rest}" if first.endswith(",") else text
    if LOWERED.fullmatch(first):
        first = first.lower()
    return f"{rng.choice(OPENERS)} {first} {rest}".strip()


class RewriteByLLM(ByLLM[RewriteSettings]):
    """A language model says it; what it says must be sayable once numbers are put into words."""

    name = "rewrite"

    def _template(self) -> str:
        return self._prompt("")

    def prompts(self, row: Row) -> list[str]:
        return [self._prompt(turn.instruction) for turn in row.turns if turn.question is None]

    def _prompt(self, instruction: str) -> str:
        return prompts.rewrite(instruction, self.saying.language, self.saying.words)

    def _conversation(self, row: Row) -> Conversation:
        turns: list[Turn] = []
        for turn in row.turns:
            said = turn.question or (yield from self._ask(turn.instruction))
            if not isinstance(said, str):
                return said
            turns.append(replace(turn, question=said))
        return row.with_turns(turns)

    def _ask(self, instruction: str) -> Asking[str | Rejected]:
        def read(found: dict[str, Any]) -> str | Rejected:
            if not found["sayable"]:
                return Rejected("unsayable: the model finds that it cannot be spoken")
            return sayable(found["question"], self.saying.language, 2 * self.saying.words)

        return ask(self._prompt(instruction), prompts.REWRITE_SCHEMA, read, self.saying.attempts)


def sayable(text: str, language: str, most: int) -> str:
    """What a model said, numbers in words. Raises UnusableError: it cannot be said, or has more than `most` words."""
    english = language == "English"
    said = spoken(text) if english else " ".join(text.split())
    if reason := unsayable(said, "LATIN" if english else None):
        raise UnusableError(reason)
    if (count := words(said)) > most:
        raise UnusableError(f"{count} words; at most {most} are of use")
    return said
