"""What the bundled model can be asked and what it answers: sampled endlessly, with phrasings held out.

Every question has exactly one right answer. The facts are the same in both splits; the held split asks about them in
templates, and after openers, that training never shows. What lies outside the domain gets one fixed reply, and there
the held split also asks about other things.
"""

from __future__ import annotations

import random
import re
import sys
from bisect import bisect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from typing import TypeAlias, TypeVar

from omnivox.nano.english import common_words, made_up_words
from omnivox.nano.rephrase import rephrase
from omnivox.nano.topics import culture, decline, facts, nature, numbers, phrasing, places, times, words
from omnivox.nano.topics.phrasing import Relation, Split

__all__ = ["Dialogue", "Split", "answers", "filled_words", "question_words", "sample", "sample_evenly",
           "sample_loosely", "sample_strange", "strange_words", "tokens", "vocabulary", "word_salad"]

Asker: TypeAlias = Relation | decline.Outside
T = TypeVar("T")
DECLINED_SHARE = 0.12
EVENNESS = 0.5  # the power of a topic's weight that `sample_evenly` gives it
LOOSE = 0.6  # share of the questions whose small words `sample_loosely` edits,
LOOSENING = 0.4  # each of a few edits with this chance


@dataclass(frozen=True)
class Dialogue:
    """topic: the family. question: as spoken, lower case without punctuation. answer: as shown and spoken."""

    topic: str
    question: str
    answer: str


@cache
def _relations() -> tuple[Relation, ...]:
    modules = (numbers, places, times, words, nature, culture, facts)
    return tuple(relation for module in modules for relation in module.relations())


@cache
def _askers() -> tuple[tuple[Asker, ...], tuple[float, ...]]:
    """Everything that asks, with its cumulative weights."""
    relations = _relations()
    inside = [relation.weight for relation in relations]
    outside = sum(inside) * DECLINED_SHARE / (1 - DECLINED_SHARE)
    return (*relations, decline.outside()), tuple(accumulate([*inside, outside]))


def sample(rng: random.Random, split: Split) -> Dialogue:
    """One question and its answer, as often as its topic's weight says."""
    return _asked(rng, _weighted(rng, *_askers()), split)


def _weighted(rng: random.Random, items: Sequence[T], cumulative: Sequence[float]) -> T:
    """One of `items`, as often as its weight says."""
    return items[min(bisect(cumulative, rng.random() * cumulative[-1]), len(items) - 1)]


def _asked(rng: random.Random, asker: Asker, split: Split) -> Dialogue:
    if isinstance(asker, Relation):
        row = phrasing.pick(rng, asker.rows)
        return Dialogue(asker.topic, asker.ask(rng, row, split), asker.reply(row))
    return Dialogue("decline", asker.ask(rng, split), decline.ANSWER)


@cache
def _by_topic() -> dict[str, tuple[tuple[Asker, ...], tuple[float, ...]]]:
    """The askers of each topic with their cumulative weights; a topic's own weight is the last of them."""
    askers, cumulative = _askers()
    grouped: dict[str, list[tuple[Asker, float]]] = {}
    for asker, low, high in zip(askers, (0.0, *cumulative), cumulative, strict=False):
        topic = asker.topic if isinstance(asker, Relation) else "decline"
        grouped.setdefault(topic, []).append((asker, high - low))
    return {topic: (tuple(a for a, _ in pairs), tuple(accumulate(w for _, w in pairs)))
            for topic, pairs in grouped.items()}


@cache
def _even_topics() -> tuple[tuple[str, ...], tuple[float, ...]]:
    topics = {topic: cumulative[-1] for topic, (_, cumulative) in _by_topic().items()}
    inside = {topic: weight ** EVENNESS for topic, weight in topics.items() if topic != "decline"}
    inside["decline"] = sum(inside.values()) * DECLINED_SHARE / (1 - DECLINED_SHARE)
    return tuple(inside), tuple(accumulate(inside.values()))


def sample_evenly(rng: random.Random, split: Split) -> Dialogue:
    """As `sample`, but with topics closer to equal shares, so that speech of the small ones is not too rare."""
    return _asked(rng, _weighted(rng, *_by_topic()[_weighted(rng, *_even_topics())]), split)


@cache
def _held_phrasings() -> dict[str, tuple[re.Pattern[str], ...]]:
    """By topic, what a question in each held template contains."""
    held = [(relation.topic, template.text) for relation in _relations() for template in relation.held]
    held += [("decline", template.text) for template in decline.outside().templates["held"]]
    found: dict[str, tuple[re.Pattern[str], ...]] = {}
    for topic, text in dict.fromkeys(held):
        parts = (re.escape(part) for part in re.split(r"\{\w+\}", text.lower()))
        found[topic] = (*found.get(topic, ()), re.compile(rf"\b{'.+'.join(parts)}\b"))
    return found


def sample_loosely(rng: random.Random, split: Split) -> Dialogue:
    """As `sample_evenly`, most of them `rephrase`d: spoken in written phrasings alone, these are learned by heart.

    What becomes a held phrasing by chance stays as it was.
    """
    dialogue = sample_evenly(rng, split)
    if rng.random() >= LOOSE:
        return dialogue
    words = rephrase(dialogue.question.split(), LOOSENING, rng, filled_words().get(dialogue.topic, ()))
    question = " ".join(words)
    held = _held_phrasings().get(dialogue.topic, ())
    if any(one.search(question) and not one.search(dialogue.question) for one in held):
        return dialogue
    return replace(dialogue, question=question)


def _texts(relation: Relation, templates: Sequence[phrasing.Template]) -> Iterator[str]:
    """What questions in `templates` can be made of, lower case: the templates, and what fills their slots."""
    yield from (re.sub(r"\{\w+\}", " ", template.text) for template in templates)
    yield from _fillers(relation, templates)


def _fillers(relation: Relation, templates: Sequence[phrasing.Template]) -> Iterator[str]:
    """What fills the slots of `templates`, lower case."""
    used = dict.fromkeys(slot for template in templates for slot in re.findall(r"\{(\w+)\}", template.text))
    yield from (row[slot].lower() for row in relation.rows for slot in used)


@cache
def _relation_words() -> dict[int, frozenset[str]]:
    """Every word that a question of each relation may hold, by the relation's id."""
    return {id(relation): frozenset(word for text in _texts(relation, relation.train + relation.held)
                                    for word in text.split()) for relation in _relations()}


@cache
def _spread_of_words() -> Mapping[str, int]:
    """In how many relations' questions each word occurs."""
    return Counter(word for words in _relation_words().values() for word in words)


@cache
def filled_words() -> Mapping[str, frozenset[str]]:
    """By topic, the words that fill the slots of its questions: what is asked about, whatever they are elsewhere."""
    found: dict[str, frozenset[str]] = {}
    for relation in _relations():
        words = {word for text in _fillers(relation, relation.train) for word in text.split()}
        found[relation.topic] = found.get(relation.topic, frozenset()) | words
    return found


def sample_strange(rng: random.Random, _: Split = "train") -> Dialogue:
    """A question of the domain about what it cannot be asked about, which is declined.

    What fills a slot is exchanged for words that no question of the relation holds, in half of the cases of no
    language; where there is no slot, the word that the fewest relations share. The phrasing stays: what is asked about
    decides, not how.
    """
    while True:
        asker = _weighted(rng, *_by_topic()[phrasing.pick(rng, _even_topics()[0])])
        if not isinstance(asker, Relation) or not asker.chatty:
            continue
        row, own = phrasing.pick(rng, asker.rows), _relation_words()[id(asker)]
        strangers = _strangers() if rng.random() < 0.5 else strange_words()
        others = [word for word in rng.choices(strangers, k=8) if word not in own]
        other = " ".join(others[: rng.choice((1, 1, 1, 2))])
        if row:
            said = asker.ask(rng, {**row, phrasing.pick(rng, sorted(row)): other}, "train")
        else:
            words = asker.ask(rng, row, "train").split()
            places = [i for i, word in enumerate(words) if word in own]
            words[min(places, key=lambda i: _spread_of_words()[words[i]])] = other
            said = " ".join(words)
        if other and f" {other} " in f" {said} ":
            return Dialogue("strange", said, decline.ANSWER)


@cache
def _strangers() -> tuple[str, ...]:
    """Words of the domain's questions, and names and things that it knows nothing of."""
    known = question_words()
    listed = {word for kind in ("noun", "name", "verb", "adjective") for word in common_words()[kind]}
    return *known, *sorted(listed - {*known})


@cache
def strange_words() -> tuple[str, ...]:
    """Words made up that are no tokens: whatever sounds like none of the domain's words is to be declined."""
    known = {word.lower() for word in _vocabulary()}
    return tuple(word for word in made_up_words() if word not in known)


def tokens(text: str) -> list[str]:
    """The words and the punctuation of `text`."""
    return re.findall(r"[A-Za-z']+|[.,?!]", text)


@cache
def _all_answers() -> tuple[str, ...]:
    found = dict.fromkeys(relation.reply(row) for relation in _relations() for row in relation.rows)
    return (*found, decline.ANSWER)


@cache
def _vocabulary() -> tuple[str, ...]:
    found = {token for answer in _all_answers() for token in tokens(answer)}
    for relation in _relations():
        found.update(token for text in _texts(relation, relation.train + relation.held) for token in tokens(text))
    for tables in (phrasing.OPENERS, phrasing.HELD_OPENERS, phrasing.CLOSERS):
        found.update(token for group in tables.values() for text in group for token in tokens(text))
    found.update(token for text in decline.outside().texts() for token in tokens(text))
    return tuple(sorted(found))


@cache
def question_words() -> tuple[str, ...]:
    """Every word of two letters or more that the split "train" may ask with, lower case, sorted."""
    found = {token for relation in _relations() for text in _texts(relation, relation.train) for token in tokens(text)}
    for group in (*phrasing.OPENERS.values(), *phrasing.CLOSERS.values()):
        found.update(token for text in group for token in tokens(text))
    found.update(token for text in decline.outside().texts("train") for token in tokens(text))
    return tuple(sorted(word for word in found if len(word) > 1))


def word_salad(rng: random.Random, _: Split) -> Dialogue:
    """Four to seven words of the domain in no order, asking nothing: every word is heard often, whatever it is for."""
    words = question_words()
    return Dialogue("words", " ".join(phrasing.pick(rng, words) for _ in range(rng.randint(4, 7))), "")


def vocabulary() -> list[str]:
    """Every token of any question (lower case) or answer (case kept) of either split, sorted."""
    return list(_vocabulary())


def answers() -> list[str]:
    """Every distinct answer, in a fixed shuffled order."""
    found = sorted(_all_answers())
    random.Random(0).shuffle(found)
    return found


def main(samples: int = 200_000) -> None:
    """Print a summary: topics, how many different questions and answers, the size of the vocabulary, mean words."""
    rng = random.Random(0)
    drawn = [sample(rng, "train") for _ in range(samples)]
    spoken = [(dialogue.question, dialogue.answer) for dialogue in drawn]
    by_topic = Counter(dialogue.topic for dialogue in drawn)
    questions = Counter(topic for topic, _ in {(d.topic, d.question) for d in drawn})
    replies = Counter(topic for topic, _ in {(d.topic, d.answer) for d in drawn})
    lines = [f"{'topic':16}{'share':>8}{'questions':>11}{'answers':>9}"]
    for topic, count in by_topic.most_common():
        lines.append(f"{topic:16}{count / samples:8.1%}{questions[topic]:11}{replies[topic]:9}")
    lines.append(f"distinct questions: {sum(questions.values())} in {samples}; answers in all: {len(answers())}")
    asked, answered = (sum(len(tokens(text)) for text in texts) / samples for texts in zip(*spoken, strict=True))
    lines.append(f"vocabulary: {len(vocabulary())}; mean tokens: question {asked:.1f}, answer {answered:.1f}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
