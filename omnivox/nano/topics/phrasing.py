"""Relations and the ways of asking about them: templates, openers, closers, numbers in words.

A `Relation` joins rows of slots (one row is one fact) with templates of questions and one template of the answer.
A template's form says which openers are grammatical before it:

* direct:  a question in its own right, "what is the capital of {x}"
* command: an imperative, "name the capital of {x}"
* clause:  only after an opener, "what the capital of {x} is" (marked "~")
* bare:    anything else, "the capital of {x}"; stands alone (marked "=" where the first word would mislead)

A mark "*" in front of the others holds a template out of training.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

Split = Literal["train", "held"]
Form = Literal["direct", "yes_no", "command", "clause", "bare"]
Row = Mapping[str, str]
T = TypeVar("T")

TABLES = Path(__file__).parent.parent / "facts"

ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]

ASKING = frozenset(
    [
        "what",
        "who",
        "where",
        "when",
        "which",
        "how",
        "why",
        "whose",
        "what's",
        "who's",
        "where's",
        "at",
        "in",
        "on",
        "from",
        "of",
        "by",
    ]
)
YES_NO = frozenset(
    ["is", "are", "do", "does", "did", "can", "could", "will", "would", "was", "were", "have", "has", "should", "may"]
)
COMMANDS = frozenset(
    [
        "name",
        "tell",
        "give",
        "say",
        "count",
        "spell",
        "repeat",
        "add",
        "subtract",
        "multiply",
        "divide",
        "double",
        "calculate",
        "work",
        "take",
        "find",
        "compare",
        "compute",
        "describe",
        "explain",
        "define",
        "list",
        "show",
        "make",
        "sing",
        "recite",
        "translate",
        "write",
        "define",
        "pick",
        "put",
        "finish",
    ]
)

# What may come before a template of each form, as often as it is listed; then what only the held split may say.
OPENERS: dict[Form, tuple[str, ...]] = {
    "direct": ("",) * 24
    + (
        "hey", "okay", "so", "excuse me", "hello", "tell me", "please tell me", "can you tell me",
        "i have a question", "now tell me", "hi", "and", "well", "please", "one question", "here is a question",
        "my question is", "i want to ask you", "another question", "one more question", "next question", "hi there",
        "hey there", "good morning", "good evening", "hello there", "listen", "all right", "and now", "oh",
        "okay so", "but", "sorry", "my friend", "say", "i forgot", "yes", "help me",
    ),
    "yes_no": ("",) * 12
    + (
        "hey", "okay", "so", "excuse me", "tell me", "please tell me", "hi", "hello", "and", "now", "please",
        "listen", "one question", "my question is", "one more question", "all right", "i want to ask you",
        "hi there", "sorry", "good morning",
    ),
    "command": ("",) * 12
    + (
        "please", "please", "can you", "can you", "could you", "hey", "okay", "can you please", "could you please",
        "i want you to", "now", "would you", "i would like you to", "hello", "hi", "so", "can you now", "will you",
        "will you please", "please can you", "i want to hear you", "and now", "listen", "i would love you to",
        "now please", "could you now", "all right",
    ),
    "clause": (
        "tell me", "please tell me", "can you tell me", "could you tell me", "do you know", "i would like to know",
        "i want to know", "i wonder", "hey do you know", "i need to know", "can you say", "would you tell me",
        "i forgot", "remind me", "please remind me", "can you remind me", "i cannot remember", "do you remember",
        "do you happen to know", "i do not know", "say", "please say", "could you say", "i would love to know",
        "i want to hear", "i want to ask", "can you explain", "help me remember", "teach me", "please teach me",
        "will you tell me", "who knows", "my question is", "explain", "you know", "now tell me", "i never know",
        "excuse me do you know", "hello do you know",
    ),
    "bare": ("",),
}
HELD_OPENERS: dict[Form, tuple[str, ...]] = {
    "direct": (
        "excuse me please",
        "so tell me",
        "okay now",
        "hello can you tell me",
        "hey i have a question",
        "could you tell me",
    ),
    "yes_no": ("excuse me please", "well", "hey tell me"),
    "command": ("hey can you", "would you please", "okay now", "i need you to"),
    "clause": (
        "can you please tell me",
        "hey tell me",
        "i would like you to tell me",
        "would you please tell me",
        "so do you know",
    ),
    "bare": ("",),
}
CLOSERS: dict[Form, tuple[str, ...]] = {
    "direct": ("",) * 36
    + (
        "please", "do you know", "can you tell me", "now", "please tell me", "i forgot", "i want to know",
        "my friend", "tell me", "i wonder", "if you know", "do you happen to know", "if i may ask",
    ),
    "yes_no": ("",) * 30
    + (
        "please", "do you know", "now", "tell me", "i forgot", "i wonder", "i want to know", "if you know",
    ),
    "command": ("",) * 18
    + (
        "please", "for me", "now", "if you can", "will you", "can you", "my friend", "to me", "for me please",
        "if you know",
    ),
    "clause": ("",) * 24 + ("please", "now", "if you can", "my friend", "if you know"),
    "bare": ("",) * 30 + ("please", "now", "tell me", "please tell me", "my friend"),
}


def pick(rng: random.Random, items: Sequence[T]) -> T:
    """One of `items`, uniformly; from `random()` alone, whose stream no Python version has changed."""
    return items[int(rng.random() * len(items))]


def number(n: int) -> str:
    """`n` in words, 0 to 9999: 365 is "three hundred and sixty five"."""
    assert 0 <= n < 10000, n
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + (f" {ONES[n % 10]}" if n % 10 else "")
    unit, word = (100, "hundred") if n < 1000 else (1000, "thousand")
    rest = n % unit
    joint = " and " if rest < 100 else " "
    return f"{number(n // unit)} {word}" + (joint + number(rest) if rest else "")


def sentence(text: str) -> str:
    """`text` with a capital first letter."""
    return text[:1].upper() + text[1:]


def with_article(noun: str) -> str:
    """`noun` after a or an, by its first letter."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


@dataclass(frozen=True)
class Template:
    """One way of asking; `text` has {slots}."""

    text: str
    form: Form
    held: bool

    @classmethod
    def parse(cls, marked: str) -> Template:
        """From text with its marks; the first word tells the form where no mark does."""
        held = marked.startswith("*")
        text = marked.removeprefix("*")
        if text[0] in "~=":
            return cls(text[1:], "clause" if text[0] == "~" else "bare", held)
        first = text.split()[0]
        form: Form = (
            "direct" if first in ASKING else "yes_no" if first in YES_NO else "command" if first in COMMANDS else "bare"
        )
        return cls(text, form, held)


@dataclass(frozen=True)
class Relation:
    """Facts of one shape.

    topic: the family's name. rows: slots of each fact. answer: template over the same slots. weight: relative share of
    the samples. chatty: whether openers and closers may surround the templates.
    """

    topic: str
    train: tuple[Template, ...]
    held: tuple[Template, ...]
    rows: tuple[Row, ...]
    answer: str
    weight: float
    chatty: bool = True

    def reply(self, row: Row) -> str:
        """The one right answer about `row`."""
        return sentence(self.answer.format_map(row))

    def ask(self, rng: random.Random, row: Row, split: Split) -> str:
        """A question about `row`, phrased as `split` allows."""
        template = pick(rng, self.train if split == "train" else self.held)
        question = template.text.format_map(row).lower()
        return around(rng, question, template.form, split) if self.chatty or template.form == "clause" else question


def around(rng: random.Random, question: str, form: Form, split: Split) -> str:
    """`question` between an opener and a closer that suit its form."""
    openers = HELD_OPENERS if split == "held" and rng.random() < 0.3 else OPENERS
    opener = pick(rng, openers[form])
    closer = pick(rng, CLOSERS[form]) if not opener else ""
    return " ".join(part for part in (opener, question, closer) if part)


def relation(
    topic: str, templates: str, rows: Iterable[Row], answer: str, weight: float, *, chatty: bool = True
) -> Relation:
    """A relation from marked templates, a line each or parted by |; every one must have templates in both splits."""
    parsed = [Template.parse(part.strip()) for line in templates.strip().splitlines() for part in line.split("|")]
    train = tuple(t for t in parsed if not t.held)
    held = tuple(t for t in parsed if t.held)
    assert train, f"{topic}: no template to train on in {templates!r}"
    assert held, f"{topic}: no template held out in {templates!r}"
    return Relation(topic, train, held, tuple(rows), answer, weight, chatty)


def embedded(question: str) -> str | None:
    """A direct question as a clause, where a rule is safe: "who is the king" -> "who the king is"."""
    if match := re.fullmatch(r"(what|who|where) (is|are|was|were) (the [a-z' ]+)", question):
        asker, verb, subject = match.groups()
        if not re.search(r"\b(called|made|used|known|named|for|located|found|that|who)\b", subject):
            return f"{asker} {subject} {verb}"
        return None
    if match := re.fullmatch(r"(how many [a-z' ]+?) (are|is) (in|on) ([a-z' ]+)", question):
        return f"{match[1]} there {match[2]} {match[3]} {match[4]}"
    if match := re.fullmatch(r"(how many [a-z' ]+?) does ([a-z' ]+) have", question):
        return f"{match[1]} {match[2]} has"
    if re.match(
        r"who (wrote|painted|invented|discovered|composed|built|made|sculpted|created|walked|sang|led)\b", question
    ):
        return question
    return None


@cache
def table(name: str) -> tuple[tuple[str, ...], ...]:
    """Rows of facts/<name>.tsv; lines that start with # are comments."""
    lines = (TABLES / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    return tuple(tuple(line.split("\t")) for line in lines if line.strip() and not line.startswith("#"))


def single_facts(topic: str, name: str, weight: float, *, chatty: bool = True) -> list[Relation]:
    """Relations of one row each, weight for each, from a table of `answer<TAB>phrasing | phrasing | *held phrasing`."""
    found: list[Relation] = []
    for answer, phrasings in table(name):
        marked = [part.strip() for part in phrasings.split("|")]
        for phrase in list(marked) if chatty else []:
            clause = embedded(phrase)
            if clause is not None:
                marked.append(f"~{clause}")
        found.append(relation(topic, "\n".join(marked), [{}], answer, weight, chatty=chatty))
    return found
