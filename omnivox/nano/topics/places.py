"""Countries: capitals, continents, languages, currencies."""

from __future__ import annotations

from omnivox.nano.topics.phrasing import Relation, relation, table

CAPITAL = """
what is the capital of {x}
what's the capital of {x}
name the capital of {x}
tell me the capital of {x}
which city is the capital of {x}
what is the capital city of {x}
=the capital of {x}
=capital of {x}
~what the capital of {x} is
~which city is the capital of {x}
what is {s} capital
what city is the capital of {x}
say the capital of {x}
i forgot {s} capital | name {s} capital | tell me {s} capital | which city is {s} capital | do you know {s} capital
{s} capital is what | ={s} capital | ~what {s} capital is | what city is the main city of {x} its capital
what do you call the capital of {x} | what would be the capital of {x} | do you know the capital of {x}
i forgot the capital of {x} | help me with the capital of {x} | what is the capital called in {x}
how do you call the capital of {x} | which one is the capital of {x} | which capital does {x} have
what capital does {x} have | {x} has which capital | {x} has what city as its capital
the capital of {x} is which city | the capital of {x} is what | i need the capital of {x}
i want the capital of {x} | find the capital of {x} | which city does {x} have as its capital
in which city is the government of {x} | =what about the capital of {x} | =the name of the capital of {x}
where is the government of {x} | do you remember the capital of {x} | ~which city {x} has as its capital
~what the capital of {x} is called
*give me the capital city of {x}
*what is the name of the capital of {x}
*~what the capital city of {x} is
"""
CAPITAL_OF = """
which country is {y} the capital of
what country is {y} the capital of
{y} is the capital of which country
{y} is the capital of what country
which country has {y} as its capital
what country has {y} as its capital
which country has the capital {y}
~which country {y} is the capital of
~what country {y} is the capital of
{y} is the capital of what
name the country whose capital is {y}
tell me which country has the capital {y}
what is {y} the capital of | {y} is the capital of what country in the world
{y} is a capital but of which country | whose capital is {y} | do you know which country has {y} as its capital
i forgot which country {y} is the capital of | in what country is {y} the capital city
{y} is the capital city of which country | find the country whose capital is {y} | tell me whose capital {y} is
say which country {y} is the capital of | ~whose capital {y} is | ~which country has {y} as its capital
*what country has the capital {y}
*of which country is {y} the capital
*what is the country whose capital is {y}
"""
CONTINENT = """
which continent is {x} in
what continent is {x} in
on which continent is {x}
what continent is {x} on
which continent is {x} on
where is {x}
~which continent {x} is in
name the continent of {x}
{x} is in which continent
tell me which continent {x} is in
in what continent is {x}
which continent would you find {x} on | which continent do you find {x} on | on which continent can i find {x}
where in the world is {x} | where on earth is {x} | where can i find {x} on earth
in what part of the world is {x} | which part of the world is {x} in | which continent has {x} on it
{x} is on what continent | {x} is part of which continent | which continent is {x} a part of
of which continent is {x} a part | i forgot which continent {x} is on | do you know the continent of {x}
find the continent of {x} | ~what continent {x} is on | ~where {x} is | ~where in the world {x} is
say which continent {x} is on | =the continent of {x}
*on what continent is {x}
*in which continent is {x}
*what is the continent of {x}
"""
LANGUAGE = """
what language do they speak in {x}
which language do they speak in {x}
what language is spoken in {x}
which language is spoken in {x}
what do people speak in {x}
what language do people speak in {x}
~what language they speak in {x}
~which language is spoken in {x}
what is the language of {x}
what is the main language spoken in {x}
name the language of {x}
how do people talk in {x} | which language do the people of {x} speak | what language do the people in {x} speak
what language would i hear in {x} | which language would i hear in {x} | what language do i need in {x}
what do they speak in {x} | in {x} people speak what language | in {x} what language do they speak
in {x} which language is spoken | do you know the language of {x} | i forgot what they speak in {x}
i go to {x} what language do i need | tell me the language of {x} | say which language they speak in {x}
=the language of {x} | ~what people speak in {x} | ~what the language of {x} is
~which language the people of {x} speak
*which language do people speak in {x}
*what is the main language of {x}
*what is the main language in {x}
"""
CURRENCY = """
what is the currency of {x}
what's the currency of {x}
what currency does {x} use
which currency does {x} use
what money do they use in {x}
what currency do they use in {x}
~what the currency of {x} is
~what currency {x} uses
name the currency of {x}
what is the money of {x} called
=the currency of {x}
what money does {x} use | what money do i need in {x} | which money do people use in {x}
what do people pay with in {x} | how do people pay in {x} | what do you pay with in {x}
with what money do you pay in {x} | what do they call their money in {x} | what is the currency called in {x}
which currency would i need in {x} | what currency do people use in {x} | do you know the currency of {x}
i forgot the currency of {x} | i go to {x} what money do i need | tell me the currency of {x}
find the currency of {x} | in {x} what money do they use | ~what money they use in {x} | ~how people pay in {x}
=the money of {x}
*what is the money in {x} called
*which currency do they use in {x}
*what kind of money do they use in {x}
"""


def relations() -> list[Relation]:
    """All that is asked about countries."""
    rows = [
        {
            "x": country,
            "s": f"{country}'" if country.endswith("s") else f"{country}'s",
            "y": capital,
            "continent": continent,
            "language": language,
            "currency": currency,
            "is": "are" if country in ("the Philippines", "the Bahamas") else "is",
        }
        for country, capital, continent, language, currency in table("countries")
    ]

    def having(key: str) -> list[dict[str, str]]:
        return [row for row in rows if row[key] != "-"]

    own = [row for row in having("y") if row["y"] != f"{row['x']} City"]
    return [
        relation("capitals", CAPITAL, having("y"), "the capital of {x} is {y}.", 90),
        relation("capitals", CAPITAL_OF, own, "{y} is the capital of {x}.", 60),
        relation("continents", CONTINENT, having("continent"), "{x} {is} in {continent}.", 50),
        relation("languages", LANGUAGE, having("language"), "in {x} people speak {language}.", 40),
        relation("currencies", CURRENCY, having("currency"), "the currency of {x} is the {currency}.", 28),
    ]
