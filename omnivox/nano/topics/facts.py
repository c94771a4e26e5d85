"""Single facts and small talk: each has its own phrasings, written out in the tables."""

from __future__ import annotations

from omnivox.nano.topics.phrasing import Relation, single_facts

# Table, topic, weight of each fact.
KNOWLEDGE = (("science", 0.9), ("earth", 0.9), ("people", 0.9), ("daily", 0.9))
TALK = (("talk", 1.6), ("jokes", 1.0), ("riddles", 1.0), ("poems", 1.0))


def relations() -> list[Relation]:
    """Small facts, talk, jokes, riddles and poems."""
    found: list[Relation] = []
    for name, weight in KNOWLEDGE:
        found += single_facts(name, name, weight)
    for name, weight in TALK:
        found += single_facts(name, name, weight, chatty=False)
    return found
