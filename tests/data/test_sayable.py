"""Written English as it is said, and what cannot be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnivox.data import numbers
from omnivox.data.sayable import sentences, spoken, unsayable, words

SPOKEN = {
    "It cost $1,234.56.": "It cost one thousand two hundred and thirty-four dollars and fifty-six cents.",
    "It cost €5 million, $5k or £0.99.": "It cost five million euros, five thousand dollars or ninety-nine pence.",
    "one is $1, two are $2": "one is one dollar, two are two dollars",
    "music from the 1920s": "music from the nineteen twenties",
    "the '90s and the 80s": "the nineties and the eighties",
    "a 20 sided die": "a twenty sided die",
    "the 14th century": "the fourteenth century",
    "in 1905, 1984, 2001 and 2024": "in nineteen oh five, nineteen eighty-four, two thousand and one and "
                                    "twenty twenty-four",
    "the year 3000": "the year three thousand",
    "1,500 people": "one thousand five hundred people",
    "on May 5, 2020": "on May fifth, twenty twenty",
    "on 2024-12-01": "on December first, twenty twenty-four",
    "at 5:30 pm or 17:05": "at five thirty p m or seventeen oh five",
    "70kg, 180 cm, 1 km": "seventy kilograms, one hundred and eighty centimetres, one kilometre",
    "at 100 km/h and 20°C": "at one hundred kilometres per hour and twenty degrees Celsius",
    "give me 5 in total": "give me five in total",
    "50% off, or 3.5 %": "fifty percent off, or three point five percent",
    "from 5-10 and 1990–1995": "from five to ten and nineteen ninety to nineteen ninety-five",  # noqa: RUF001
    "3/4 of it, 1/2, 2/3": "three quarters of it, one half, two thirds",
    "it is -5 now": "it is minus five now",
    "f(x) = 5x^3 - 2x + 3": "f of x equals five x cubed minus two x plus three",
    "from (2, -2) to (10, 4)": "from two comma minus two to ten comma four",
    "C++ and C#": "C plus plus and C sharp",
    "CRISPR-Cas9, S&W": "CRISPR-Cas nine, S and W",
    "call 5551234567": "call five five five one two three four five six seven",
    "Dr. Smith vs. Mr. Jones": "Doctor Smith versus Mister Jones",
    "fruit, e.g. plums, etc.": "fruit, for example plums, et cetera",
    "he/she and/or they": "he or she and or they",
    "**Bold** and *it* (see below).": "Bold and it, see below.",
    "1. Buy milk\n2. Buy eggs\n": "Buy milk. Buy eggs.",
    "Don’t “do” it — now…": "Don't \"do\" it, now...",  # noqa: RUF001
    "Recipe for Flæskesteg?": "Recipe for Flæskesteg?",
    "Nothing to change, is there?": "Nothing to change, is there?",
}


@pytest.mark.parametrize("text", SPOKEN)
def test_text_as_it_is_said(text: str) -> None:
    assert spoken(text) == SPOKEN[text]
    assert unsayable(spoken(text)) is None


@pytest.mark.parametrize("text", SPOKEN.values())
def test_what_is_said_stays(text: str) -> None:
    assert spoken(text) == text


@given(st.from_regex(r"[A-Za-z ,.?!'0-9$%()+=/:-]{0,60}", fullmatch=True))
def test_no_digit_is_left_and_no_text_breaks_it(text: str) -> None:
    said = spoken(text)
    if said != text:
        assert not any(character.isdigit() for character in said)
    assert "\n" not in said
    assert "  " not in said or said == text


@pytest.mark.parametrize(("text", "why"), [
    ("", "empty"), ("...", "empty"), ("see https://a.org/b", "link"), ("write to me@home.org", "link"),
    ("on wikipedia.org there is", "link"), ("def f(x): return x", "code"), ("run `ls`\n```\nls\n```", "code"),
    ("<b>bold</b>", "code"), ("my_variable is", "code"), ("| a | b |", "code"), ("\\frac{1}{2} of it", "code"),
    ("SELECT name FROM users", "code"), ("there are 3", "digits"), ("ten ½", "digits"), ("I am \U0001f600", "symbols"),
    ("five + six", "symbols"), ("say \u4f60\u597d", "script"), ("say да", "script")])
def test_what_cannot_be_said_is_named(text: str, why: str) -> None:
    assert str(unsayable(text)).startswith(why + ": ")


def test_other_scripts_where_the_voices_know_them() -> None:
    assert unsayable("\u4f60\u597d\u3002", None) is None
    assert str(unsayable("\u4f60\u597d 3", None)).startswith("digits")


@pytest.mark.parametrize("text", ["Wait for me; I run (fast)!", "Ask Dr. Who: \"why\"?", "from me to you", "class act",
                                  "a function of time", "import duties from Spain"])
def test_plain_speech_is_not_taken_for_code(text: str) -> None:
    assert unsayable(text) is None


def test_words_and_sentences() -> None:
    assert words("Well, don't; twenty-one isn't a lot.") == 6
    assert sentences('Yes. "No way!" At 5 p.m. or so? Fine') == ['Yes.', '"No way!" At 5 p.m. or so?', 'Fine']


@pytest.mark.parametrize(("number", "said"), [
    (0, "zero"), (13, "thirteen"), (21, "twenty-one"), (100, "one hundred"), (105, "one hundred and five"),
    (1000, "one thousand"), (2005, "two thousand and five"), (1_000_001, "one million and one"),
    (12_345_678, "twelve million three hundred and forty-five thousand six hundred and seventy-eight"),
    (-7, "minus seven"), (10 ** 19, "one" + 19 * " zero")])
def test_cardinals(number: int, said: str) -> None:
    assert numbers.cardinal(number) == said


@given(st.integers(0, 10 ** 18 - 1))
def test_cardinals_can_be_read_back(number: int) -> None:
    """An independent reader of number words finds the number again."""
    values = {**{word: i for i, word in enumerate(numbers.ONES)}, **{word: 10 * i for i, word in enumerate(numbers.TENS)
                                                                     if word}}
    scales = {word.strip(): 1000 ** i for i, word in enumerate(numbers.SCALES) if word}
    total = group = 0
    for word in numbers.cardinal(number).replace("-", " ").split():
        if word in values:
            group += values[word]
        elif word == "hundred":
            group *= 100
        elif word in scales:
            total, group = total + group * scales[word], 0
        else:
            assert word == "and"
    assert total + group == number


@pytest.mark.parametrize(("number", "said"), [(1, "first"), (2, "second"), (12, "twelfth"), (20, "twentieth"),
                                              (21, "twenty-first"), (100, "one hundredth"),
                                              (103, "one hundred and third")])
def test_ordinals(number: int, said: str) -> None:
    assert numbers.ordinal(number) == said


@pytest.mark.parametrize(("number", "said"), [(1066, "ten sixty-six"), (1900, "nineteen hundred"),
                                              (2000, "two thousand"), (2010, "twenty ten"), (1905, "nineteen oh five")])
def test_years(number: int, said: str) -> None:
    assert numbers.year(number) == said
