"""Questions outside the domain: many kinds, one polite answer.

Templates and fillers of the held split are never seen in training, so that declining them is a real generalisation.
Tables: facts/decline_templates.tsv (`template`, `*` marks held), facts/decline_fillers.tsv (`slot<TAB>a | b | *held`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from omnivox.nano.topics.phrasing import Split, Template, around, pick, table

ANSWER = "Sorry, I don't know that."


@dataclass(frozen=True)
class Outside:
    """templates and fillers (by slot) of each split."""

    templates: dict[Split, tuple[Template, ...]]
    fillers: dict[Split, dict[str, tuple[str, ...]]]

    def ask(self, rng: random.Random, split: Split) -> str:
        """A question that is to be declined."""
        template = pick(rng, self.templates[split])
        fillers = self.fillers[split]
        question = re.sub(r"\{(\w+)\}", lambda slot: pick(rng, fillers[slot[1]]), template.text)
        return around(rng, question, template.form, split)

    def texts(self, *splits: Split) -> Iterator[str]:
        """Every piece of text that a question can be made of, in all splits if none is named."""
        for split in splits or self.templates:
            yield from (re.sub(r"\{\w+\}", " ", template.text) for template in self.templates[split])
            for group in self.fillers[split].values():
                yield from group


@cache
def outside() -> Outside:
    """The one asker of questions outside the domain."""
    parsed = [Template.parse(row[0]) for row in table("decline_templates")]
    fillers: dict[Split, dict[str, tuple[str, ...]]] = {"train": {}, "held": {}}
    for slot, listed in table("decline_fillers"):
        items = [item.strip() for item in listed.split("|")]
        fillers["train"][slot] = tuple(item for item in items if not item.startswith("*"))
        fillers["held"][slot] = tuple(item[1:] for item in items if item.startswith("*"))
    templates: dict[Split, tuple[Template, ...]] = {
        "train": tuple(t for t in parsed if not t.held),
        "held": tuple(t for t in parsed if t.held),
    }
    return Outside(templates, fillers)
