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
which color would you paint {x} | what color would you paint {x} | which color do i need to paint {x}
what color do i need to draw {x} | in what color should i paint {x} | in which color do you draw {x}
what color can you see on {x} | what color would {x} be | of what color is {x} | of which color is {x}
do you know the color of {x} | i forgot the color of {x} | i want to paint {x} what color do i need
i want to draw {x} which color do i take | help me with the color of {x} | {x} has which color | {x} has what color
{x} is what color | {x} is which color | find the color of {x} | describe the color of {x} | ~which color {x} is
~what color {x} has
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
what does {a} sound like | which sound comes from {a} | what sound do you hear from {a} | what would {a} say
what sound would {a} make | what is the noise of {a} | what noise comes from {a}
what do you hear when you listen to {a} | what can {a} say | do you know the sound of {a}
i forgot what sound {a} makes | i forgot what {a} says | say what {a} says | say something like {a}
speak like {a} | talk like {a} | {a} makes what sound | {a} says what | ~what noise {a} makes | =the sound of {a}
=the noise of {a}
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
{a} has how many legs | on how many legs does {a} walk | on how many legs does {a} stand
how many legs do you count on {a} | how many legs can you see on {a} | how many legs would {a} have
do you know how many legs {a} has | i forgot how many legs {a} has | count the legs of {a} | count the legs on {a}
say how many legs {a} has | if i draw {a} how many legs do i need | if you see {a} how many legs do you see
=the number of legs of {a} | ~how many legs the {x} has | does {a} have two legs or four or how many
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
what would you call a baby {x} | what do people call a baby {x} | what is the word for a baby {x}
what is the right word for a baby {x} | which word means a baby {x} | what is the name of a baby {x}
a baby {x} is called what | do you know the name for a baby {x} | do you know what a baby {x} is called
i forgot what a baby {x} is called | i forgot the name for a baby {x} | tell me the name for a baby {x}
tell me the word for a baby {x} | give me the word for a baby {x} | name the young of {a}
the child of {a} is called what | what do you call the child of {a} | what do you call the young of {a}
when {a} has a baby what is it called | ~what you call a baby {x} | ~what the young of {a} is called
=the word for a baby {x}
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
where is the home of {a} | where would {a} live | where does {a} sleep at night | where does {a} like to live
in what does {a} live | in what does the {x} live | what kind of home does {a} have
what kind of place does {a} live in | what do you call the home of {a} | what do you call the place where {a} lives
what is the name for the home of {a} | what is the place where {a} lives | where should i look for {a}
where do i have to go to see {a} | do you know where {a} lives | do you know the home of {a}
i forgot where {a} lives | name the home of {a} | say where {a} lives | {a} lives where | the home of {a} is what
~where the home of {a} is | =the place where {a} lives
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
what would you call a group of {xs} | what do people call a group of {xs} | what is the word for a group of {xs}
what is the right word for a group of {xs} | which word means a group of {xs} | a group of {xs} is called what
a group of {xs} has what name | do you know the name for a group of {xs}
do you know what a group of {xs} is called | i forgot what a group of {xs} is called
i forgot the word for a group of {xs} | i see many {xs} what do i call them
if many {xs} live together what are they called | if {xs} are in a group what do you call them
tell me the word for a group of {xs} | give me the word for a group of {xs} | name a group of {xs}
~what you call a group of {xs} | ~what many {xs} together are called | =the word for a group of {xs}
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
what would {a} eat | what is the favorite food of {a} | what does {a} like most to eat
what does {a} have for dinner | what does {a} have for breakfast | what do i give {a} to eat
what should i give to {a} to eat | what should {a} eat | what can i give {a} as food | what do {xs} like to eat
what food do {xs} like | on what does {a} live as food | do you know what {a} eats | i forgot what {a} eats
i have {a} what does it eat | say what {a} eats | name the food of {a} | {a} eats what
when {a} is hungry what does it eat | ~what {xs} eat | =the food of {a}
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
