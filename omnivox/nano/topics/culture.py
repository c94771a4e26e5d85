"""Who made what, where it stands, what it is made of, who does what, what kind of thing it is: pairs from one table."""

from __future__ import annotations

from omnivox.nano.topics.phrasing import Relation, relation, table

# Relation: topic, answer, weight of each pair, templates.
RELATIONS: dict[str, tuple[str, str, float, str]] = {
    "wrote": (
        "people",
        "{y} wrote {x}.",
        0.9,
        """
        who wrote {x}
        who is the author of {x}
        which author wrote {x}
        who is the writer of {x}
        by whom was {x} written
        tell me the author of {x}
        name the author of {x}
        ~who wrote {x}
        ~who the author of {x} is
        *what writer wrote {x}
        *which writer wrote {x}
        *give me the author of {x}""",
    ),
    "painted": (
        "people",
        "{y} painted {x}.",
        0.9,
        """
        who painted {x}
        who is the painter of {x}
        which artist painted {x}
        which painter painted {x}
        by whom was {x} painted
        tell me the painter of {x}
        ~who painted {x}
        ~which artist painted {x}
        *what artist painted {x}
        *name the painter of {x}""",
    ),
    "composed": (
        "people",
        "{y} composed {x}.",
        0.9,
        """
        who composed {x}
        who is the composer of {x}
        which composer wrote {x}
        who wrote the music of {x}
        by whom was {x} composed
        ~who composed {x}
        tell me the composer of {x}
        what composer wrote {x}
        *which composer composed {x}
        *name the composer of {x}""",
    ),
    "invented": (
        "people",
        "{y} invented {x}.",
        0.9,
        """
        who invented {x}
        who is the inventor of {x}
        who was the inventor of {x}
        which inventor made {x}
        by whom was {x} invented
        ~who invented {x}
        tell me the inventor of {x}
        ~who the inventor of {x} was
        *which person invented {x}
        *name the inventor of {x}""",
    ),
    "discovered": (
        "people",
        "{y} discovered {x}.",
        0.9,
        """
        who discovered {x}
        who is the discoverer of {x}
        which person discovered {x}
        by whom was {x} discovered
        ~who discovered {x}
        tell me who discovered {x}
        who first discovered {x}
        who was the discoverer of {x}
        *what person discovered {x}
        *which person first discovered {x}""",
    ),
    "scientist": (
        "people",
        "{x} was {y}.",
        0.9,
        """
        who was {x}
        ~who {x} was
        tell me about {x}
        what was {x}
        what was {x} famous for
        why is {x} famous
        what do you know about {x}
        what is {x} famous for
        what did {x} do
        *why was {x} famous
        *for what was {x} famous
        *tell me something about {x}""",
    ),
    "landmark": (
        "earth",
        "{x} is in {y}.",
        0.9,
        """
        where is {x}
        ~where {x} is
        where can i find {x}
        where would i find {x}
        where do you find {x}
        where can i see {x}
        in which place is {x}
        tell me where to find {x}
        *where can you see {x}
        *in what place is {x}
        *where would i see {x}""",
    ),
    "year": (
        "history",
        "{x} in {y}.",
        0.9,
        """
        when {d}
        in what year {d}
        in which year {d}
        tell me when {x}
        ~when {x}
        in what year was it that {x}
        in which year was it that {x}
        when was it that {x}
        what was the year when {x}
        tell me the year when {x}
        which was the year when {x}
        ~in which year it was that {x}
        what year was it when {x}
        *what year {d}
        *which year was it when {x}
        *give me the year when {x}""",
    ),
    "made": (
        "daily",
        "{x} is made from {y}.",
        0.9,
        """
        what is {x} made of
        what is {x} made from
        what do you make {x} from
        what do you need to make {x}
        ~what {x} is made of
        ~what {x} is made from
        what do people make {x} from
        from what is {x} made
        *what do we make {x} from
        *what do people need to make {x}""",
    ),
    "job": (
        "daily",
        "{x} {y}.",
        0.9,
        """
        what does {x} do
        what is the job of {x}
        what is the work of {x}
        ~what {x} does
        what does {x} do at work
        what kind of work does {x} do
        explain what {x} does
        describe the job of {x}
        *what does {x} do all day
        *what kind of job does {x} have""",
    ),
    "tool": (
        "daily",
        "you can {x} with {y}.",
        0.9,
        """
        what do you need to {x}
        what do i need to {x}
        what do you use to {x}
        which tool do i need to {x}
        what can i use to {x}
        ~what i need to {x}
        with what do you {x}
        what should i use to {x}
        which tool do you use to {x}
        *what tool do i need to {x}
        *what do people use to {x}""",
    ),
    "kind": (
        "kinds",
        "{x} is {y}.",
        0.8,
        """
        what is {x}
        what kind of thing is {x}
        what sort of thing is {x}
        what type of thing is {x}
        ~what kind of thing {x} is
        tell me what kind of thing {x} is
        which kind of thing is {x}
        is {x} an animal a plant or a thing
        what is {x} a kind of
        *what is the kind of thing that {x} is
        *which sort of thing is {x}""",
    ),
    "symbol": (
        "science",
        "the symbol for {x} is {y}.",
        0.9,
        """
        what is the chemical symbol for {x}
        what is the symbol for {x}
        what is the chemical symbol of {x}
        tell me the chemical symbol for {x}
        give me the symbol for {x}
        ~what the chemical symbol for {x} is
        =the chemical symbol for {x}
        what letters stand for {x}
        *name the chemical symbol of {x}
        *tell me the symbol of {x}""",
    ),
    "planet": (
        "science",
        "{y} is the {x} planet from the sun.",
        0.9,
        """
        what is the {x} planet from the sun
        which is the {x} planet from the sun
        which planet is the {x} planet from the sun
        name the {x} planet from the sun
        tell me the {x} planet from the sun
        ~what the {x} planet from the sun is
        =the {x} planet from the sun
        which planet is {x} from the sun
        *what planet is {x} from the sun
        *give me the {x} planet from the sun""",
    ),
    "sport": (
        "sports",
        "in {x} there are {y} players on a team.",
        0.9,
        """
        how many players are on a {x} team
        how many players does a {x} team have
        how many people play on a {x} team
        how many players are there on a {x} team
        ~how many players are on a {x} team
        how big is a {x} team
        how many players are in a {x} team
        =the number of players on a {x} team
        *how many people are on a {x} team
        *how many players has a {x} team""",
    ),
    "part": (
        "body",
        "you {x} with your {y}.",
        0.9,
        """
        what do you {x} with
        what do we {x} with
        with what do you {x}
        with what part of the body do you {x}
        which part of the body do you {x} with
        what part of the body do you {x} with
        ~what you {x} with
        what do people {x} with
        *with which part of the body do you {x}
        *which part of the body do we {x} with""",
    ),
}


def relations() -> list[Relation]:
    """One relation for each kind of pair in the table."""
    rows: dict[str, list[dict[str, str]]] = {name: [] for name in RELATIONS}
    for name, x, y in table("pairs"):
        told, _, asked = x.partition(" / ")
        rows[name].append({"x": told, "d": asked, "y": y})
    return [
        relation(topic, templates, rows[name], answer, each * len(rows[name]))
        for name, (topic, answer, each, templates) in RELATIONS.items()
    ]
