"""What a build will ask of a language model, before it is asked: calls, tokens, money and time.

Tokens are counted by the characters of the very prompts, four to a token; what comes back has the length that the
prompt allows, or, once there are replies in the cache, their mean. Time assumes a rate for each of the calls at once,
and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from omnivox.data.answer import AnswerByLLM
from omnivox.data.cache import ReplyCache, digest
from omnivox.data.llm import Request
from omnivox.data.prompts import ANSWER_SCHEMA, REWRITE_SCHEMA
from omnivox.data.records import Row
from omnivox.data.rewrite import RewriteByLLM

CHARACTERS = 4  # in a token of English
TOKENS = 1.4  # in a word of English
JSON_TOKENS = 12  # around the text of a reply


@dataclass(frozen=True)
class Rates:
    """Prices: money for a million tokens. speed: tokens a second of one call; latency: seconds before its first."""

    price_in: float = 0.0
    price_out: float = 0.0
    speed: float = 30.0
    latency: float = 0.5
    concurrency: int = 32


@dataclass(frozen=True)
class Estimate:
    """calls: still to be made. cached: those that are not, for their replies are there."""

    stage: str
    calls: int
    cached: int
    tokens_in: int
    tokens_out: int
    cost: float
    seconds: float
    assumed: str = ""  # of the time

    def __str__(self) -> str:
        cost = f", cost {self.cost:,.2f}" if self.cost else ""
        return (f"{self.stage}: {self.calls:,} calls ({self.cached:,} more are in the cache), about "
                f"{self.tokens_in:,} tokens in and {self.tokens_out:,} out{cost}, {duration(self.seconds)}"
                f"{f' if {self.assumed}' if self.calls and self.assumed else ''}")


def duration(seconds: float) -> str:
    """In the largest unit that gives a number above 1."""
    for name, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 1.5 * length:
            return f"about {seconds / length:.1f} {name}"
    return f"about {seconds:.0f} seconds"


def estimate(stage: RewriteByLLM | AnswerByLLM, rows: Iterable[Row], cache: ReplyCache, rates: Rates) -> Estimate:
    """For `stage` over `rows`. Its questions are taken as they stand, where they have not been rewritten yet."""
    rewriting = isinstance(stage, RewriteByLLM)
    form: Mapping[str, object] = REWRITE_SCHEMA if rewriting else ANSWER_SCHEMA
    words = stage.saying.words / 2 if rewriting else stage.saying.words
    each_out = JSON_TOKENS + words * TOKENS
    cached, characters, seen = 0, 0, set[str]()
    measured: list[int] = []
    for row in rows:
        for prompt in stage.prompts(row):
            key = digest({**stage.llm.settings(), **Request(prompt, form).asked()})
            if found := cache.get(key):
                measured += [found.tokens_out] if found.tokens_out else []
                cached += key not in seen
            elif key not in seen:
                characters += len(prompt)
            seen.add(key)
    calls = len(seen) - cached
    if len(measured) >= 20:
        each_out = sum(measured) / len(measured)
    tokens_in, tokens_out = characters // CHARACTERS, round(calls * each_out)
    cost = (tokens_in * rates.price_in + tokens_out * rates.price_out) / 1e6
    together = min(rates.concurrency, max(calls, 1))
    return Estimate(stage.name, calls, cached, tokens_in, tokens_out, cost,
                    calls / together * (rates.latency + each_out / rates.speed),
                    f"each of {together} at once makes {rates.speed:g} tokens a second")
