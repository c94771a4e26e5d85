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
