"""Colours of things, and animals."""

from __future__ import annotations

from omnivox.nano.topics.phrasing import Relation, relation, single_facts, table, with_article

COLOUR = """
what color is {x}
which color is {x}
what is the color of {x}
what's the color of {x}
tell me the color of {x}
name the color of {x}
~what color {x} is
~what the color of {x} is
=the color of {x}
say the color of {x}
what color does {x} have
*which color does {x} have
*give me the color of {x}
*what is the color that {x} has
"""
SOUND = """
what does {a} say
what sound does {a} make
which sound does {a} make
what noise does {a} make
how does {a} sound
what is the sound of {a}
~what sound {a} makes
~what {a} says
tell me the sound of {a}
make the sound of {a}
what sound does the {x} make
what does the {x} say
*which noise does {a} make
*what noise does the {x} make
*give me the sound of {a}
"""
LEGS = """
how many legs does {a} have
how many legs are on {a}
how many legs has {a}
what number of legs does {a} have
~how many legs {a} has
how many legs does the {x} have
tell me the number of legs of {a}
what is the number of legs of {a}
*how many legs does every {x} have
*how many legs are there on {a}
*what is the number of legs on {a}
"""
YOUNG = """
what is a baby {x} called
what's a baby {x} called
what do you call a baby {x}
what is the name for a baby {x}
~what a baby {x} is called
what is a young {x} called
what do you call a young {x}
=the name for a baby {x}
what is the young of {a} called
*what is the baby of {a} called
*what is the name for a young {x}
*how do you call a baby {x}
"""
HOME = """
where does {a} live
where do you find {a}
what is the home of {a}
what is the home of {a} called
~where {a} lives
where does the {x} live
what does {a} live in
tell me the home of {a}
=the home of {a}
*what is the home of the {x} called
*where would you find {a}
*~what {a} lives in
"""
GROUP = """
what is a group of {xs} called
what's a group of {xs} called
what do you call a group of {xs}
what is the name for a group of {xs}
~what a group of {xs} is called
what are many {xs} together called
=the name for a group of {xs}
what do you call many {xs} together
*how do you call a group of {xs}
*what is the name of a group of {xs}
"""
FOOD = """
what does {a} eat
what do {xs} eat
what does {a} like to eat
what is the food of {a}
~what {a} eats
what does the {x} eat
what food does {a} eat
tell me what {a} eats
*~what food {a} eats
*what kind of food does {a} eat
*which food does {a} eat
"""


def relations() -> list[Relation]:
    """All that is asked about colours and animals."""
    colours = [{"x": thing, "y": colour} for thing, colour in table("colours")]
    columns = ("x", "sound", "legs", "young", "home", "group", "food", "xs")
    animals = [{**dict(zip(columns, row, strict=True)), "a": with_article(row[0])} for row in table("animals")]

    def having(*keys: str) -> list[dict[str, str]]:
        return [row for row in animals if all(row[key] != "-" for key in keys)]

    homes = [{**row, "home": _in_a(row["home"])} for row in having("home")]
    young = [{**row, "young": with_article(row["young"])} for row in having("young")]
    groups = [{**row, "group": with_article(row["group"])} for row in having("group", "xs")]
    food = [{**row, "xs": row["x"] + "s"} if row["xs"] == "-" else dict(row) for row in having("food")]
    return [
        relation("colours", COLOUR, colours, "{x} is {y}.", 40),
        relation("animal sounds", SOUND, having("sound"), "{a} says {sound}.", 24),
        relation("animal legs", LEGS, having("legs"), "{a} has {legs} legs.", 28),
        relation("animal young", YOUNG, young, "a baby {x} is called {young}.", 30),
        relation("animal homes", HOME, homes, "{a} lives in {home}.", 20),
        relation("animal groups", GROUP, groups, "a group of {xs} is called {group}.", 18),
        relation("animal food", FOOD, food, "{a} eats {food}.", 20),
        *single_facts("animals", "animals_facts", 0.7),
    ]


def _in_a(place: str) -> str:
    return f"the {place}" if place in ("ocean", "forest", "jungle", "desert", "river") else with_article(place)
