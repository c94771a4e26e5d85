"""Written English as it is said: `spoken` puts numbers, symbols, units and abbreviations into words; `unsayable` says
why what is left cannot be read aloud (code, links, tables, digits, other scripts).
"""
# ruff: noqa: RUF001

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from omnivox.data import numbers

Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], str] | str]

CURRENCIES = {"$": ("dollar", "dollars", "cent"), "€": ("euro", "euros", "cent"), "£": ("pound", "pounds", "pence"),
              "¥": ("yen", "yen", ""), "₹": ("rupee", "rupees", "paisa")}
SCALES = {"k": "thousand", "m": "million", "b": "billion", "bn": "billion", "thousand": "thousand",
          "million": "million", "billion": "billion", "trillion": "trillion"}
UNITS = {
    "km/h": "kilometre per hour", "mph": "mile per hour", "m/s": "metre per second", "kwh": "kilowatt hour",
    "km": "kilometre", "cm": "centimetre", "mm": "millimetre", "m": "metre", "mi": "mile", "ft": "foot", "in": "inch",
    "kg": "kilogram", "mg": "milligram", "g": "gram", "lb": "pound", "lbs": "pound", "oz": "ounce", "ml": "millilitre",
    "l": "litre", "gal": "gallon", "tbsp": "tablespoon", "tsp": "teaspoon", "°c": "degree Celsius",
    "°f": "degree Fahrenheit", "°": "degree", "ms": "millisecond", "s": "second", "sec": "second", "min": "minute",
    "h": "hour", "hr": "hour", "hrs": "hour", "kb": "kilobyte", "mb": "megabyte", "gb": "gigabyte", "tb": "terabyte",
    "hz": "hertz", "khz": "kilohertz", "mhz": "megahertz", "ghz": "gigahertz", "w": "watt", "kw": "kilowatt",
    "v": "volt", "cal": "calorie", "kcal": "kilocalorie"}
UNCHANGED = {"hertz", "kilohertz", "megahertz", "gigahertz"}
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")
ABBREVIATIONS = {"mr.": "Mister", "mrs.": "Missus", "ms.": "Miz", "dr.": "Doctor", "prof.": "Professor",
                 "e.g.": "for example", "i.e.": "that is", "etc.": "et cetera", "vs.": "versus", "vs": "versus",
                 "approx.": "approximately", "no.": "number", "dept.": "department", "est.": "established",
                 "w/": "with", "w/o": "without", "a.k.a.": "also known as", "govt.": "government"}
SYMBOLS = {"&": " and ", "+": " plus ", "=": " equals ", "×": " times ", "÷": " divided by ", "±": " plus or minus ",
           "≤": " is at most ", "≥": " is at least ", "<": " is less than ", ">": " is greater than ",
           "≠": " does not equal ", "≈": " is about ", "√": " the square root of ", "π": " pi ", "∞": " infinity ",
           "°": " degrees ", "@": " at ", "%": " percent ", "~": " about ", "½": " one half ", "¼": " one quarter ",
           "¾": " three quarters ", "²": " squared ", "³": " cubed ", "−": " minus ", "→": " to "}
NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.\d+|\d+"


# -- rules, in their order --------------------------------------------------------------------------------------------

def _money(found: re.Match[str]) -> str:
    scale = SCALES.get((found["scale"] or "").lower(), "")
    return numbers.money(found["amount"], CURRENCIES[found["sign"]], scale)


def _unit(found: re.Match[str]) -> str:
    name = UNITS[found["unit"].lower()]
    if float(found["amount"].replace(",", "")) != 1 and name not in UNCHANGED:
        first, *rest = name.split(" ")
        plural = {"foot": "feet", "inch": "inches", "kilowatt": "kilowatt"}.get(first, first + "s")
        name = " ".join([plural, *rest]) + ("s" if first == "kilowatt" and rest else "")
    return f"{numbers.decimal(found['amount'])} {name}"


def _iso_date(found: re.Match[str]) -> str:
    year, month, day = (int(part) for part in found.groups())
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return found[0]
    return f"{MONTHS[month - 1]} {numbers.ordinal(day)}, {numbers.year(year)}"


def _clock(found: re.Match[str]) -> str:
    hours, minutes = int(found["hours"]), int(found["minutes"] or 0)
    half = (found["half"] or "").lower().replace(".", "")
    if hours > 24 or minutes > 59:
        return found[0]
    said = numbers.clock(hours, minutes) + (f" {half[0]} m" if half else "")
    return said if half or minutes else f"{said} o'clock"


def _power(found: re.Match[str]) -> str:
    named = {"2": "squared", "3": "cubed"}
    power = found[1]
    return f" {named[power]} " if power in named else f" to the power of {power} "


def _decade(found: re.Match[str]) -> str:
    return numbers.decade(int(found[1]))


def _plain(found: re.Match[str]) -> str:
    """A number that no other rule took."""
    text = found[0]
    if re.fullmatch(r"1[1-9]\d\d|20\d\d", text):
        return numbers.year(int(text))
    if re.fullmatch(r"0\d+|\d{7,}", text):  # a telephone number, a code
        return numbers.digits(text)
    return numbers.decimal(text)


def _rule(pattern: str, into: Callable[[re.Match[str]], str] | str, flags: int = re.IGNORECASE) -> Rule:
    return re.compile(pattern, flags), into


_BEFORE = r"(?<![\w.,])"
_MONTH = "|".join([*MONTHS, "Jan", "Feb", "Mar", "Apr", "Jun", "Jul", "Aug", "Sept?", "Oct", "Nov", "Dec"])
_UNIT = "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True))
RULES: tuple[Rule, ...] = (
    # markup that only dresses words
    _rule(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", r"\2"),
    _rule(r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=[^\s*])\*(?![\w*])", r"\1"),
    _rule(r"^\s{0,3}#{1,6}\s+", "", re.MULTILINE),
    _rule(r"^\s*(?:[-*•‣]|\d{1,2}[.)])\s+", "", re.MULTILINE),
    _rule(r"(?<=[\w)])[ \t]*\n+", ". "),
    _rule(r"\s+", " "),
    # names of languages that look like sums
    _rule(r"\bC\+\+", "C plus plus"), _rule(r"\b([CF])#", r"\1 sharp"), _rule(r"\.NET\b", "dot net", 0),
    # abbreviations
    _rule(r"(?<![\w.])(?:" + "|".join(map(re.escape, sorted(ABBREVIATIONS, key=len, reverse=True))) + r")(?!\w)",
          lambda found: _abbreviation(found)),
    _rule(r"\bSt\.(?= [A-Z])", "Saint", 0),
    # money, dates, times
    _rule(rf"(?P<sign>[$€£¥₹])\s?(?P<amount>{NUMBER})(?:\s?(?P<scale>thousand|million|billion|trillion|bn|[kmb])\b)?",
          _money),
    _rule(rf"{_BEFORE}(\d{{4}})-(\d{{2}})-(\d{{2}})\b", _iso_date),
    _rule(rf"\b({_MONTH})\.? (\d{{1,2}})(?:st|nd|rd|th)?(?=,? \d{{4}}\b|[,.;?! ]|$)(?! ?[:%])",
          lambda found: f"{found[1]} {numbers.ordinal(int(found[2]))}", 0),
    _rule(rf"{_BEFORE}(?P<hours>\d{{1,2}}):(?P<minutes>\d\d)(?: ?(?P<half>[ap]\.?m\b\.?))?", _clock),
    _rule(rf"{_BEFORE}(?P<hours>\d{{1,2}})(?P<minutes>) ?(?P<half>[ap]\.?m\b\.?)", _clock),
    _rule(r"(?<!\d)'?(\d{4}|\d0)'?s\b", _decade),
    _rule(r"\b(\d+)(?:st|nd|rd|th)\b", lambda found: numbers.ordinal(int(found[1]))),
    # measures and sums
    _rule(rf"{_BEFORE}(?P<amount>{NUMBER})\s?%", lambda found: f"{numbers.decimal(found['amount'])} percent"),
    _rule(rf"{_BEFORE}(?P<amount>{NUMBER}) ?(?P<unit>°[CF]?|km/h|m/s)(?!\w)", _unit),
    _rule(rf"{_BEFORE}(?P<amount>{NUMBER})(?:-| )?(?P<unit>(?:{_UNIT}))(?![\w/°])(?<! in)(?<!\d s)", _unit),
    _rule(r"(?<=\^\d) - (?=[\da-z])", " minus "),
    _rule(r"\b([a-z])\(([a-z]|\d+)\)", r"\1 of \2"),
    _rule(r"\((-?[\d.]+), ?(-?[\d.]+)\)", r"\1 comma \2"),
    _rule(r"(?<=\d)\((?=-?\w+ )", " times ("),
    _rule(r"\^\{?(-?\w+)\}?", _power),
    _rule(r"\b24/7\b", "twenty-four seven"),
    _rule(rf"{_BEFORE}(\d+)/(\d+)(?![\d/])", lambda found: numbers.fraction(int(found[1]), int(found[2]))),
    _rule(rf"(?<=\d)\s?[-–]\s?(?={NUMBER})(?!\d+[-–])", " to "),
    _rule(r"(?<=[\dx-z)])\s*\*\s*(?=[\dx-z(])", " times "),
    _rule(r"(?<=\b[a-z\d]) - (?=[a-z\d]\b|\d)|(?<=\)) - |(?<![\w)])-(?=\d)|(?<=\d[a-z]) - (?=\d)", " minus "),
    _rule(r"(?<=\d)(?=[a-z]\b)|(?<=[a-z])(?=\d)|(?<=\d)(?=[a-z]{2,})", " "),
    _rule(NUMBER, _plain),
    # what is left of symbols
    _rule(r"#(?=\w)", " number "),
    _rule(r"\band/or\b", "and or"),
    _rule(r"(?<=[a-z])\s?/\s?(?=[a-z])", " or "),
    _rule("|".join(map(re.escape, SYMBOLS)), lambda found: SYMBOLS[found[0]]),
    _rule(r"\s*[–—]\s*|\s+-+\s+|\s*--+\s*", ", "),
    _rule(r"\s*[(\[]\s*([^()\[\]]*?)\s*[)\]](?=[.,;:?!])", r", \1"),
    _rule(r"\s*[(\[]\s*([^()\[\]]*?)\s*[)\]]\s*", r", \1, "),
    _rule(r"…", "..."),
    # the joins
    _rule(r"\s+", " "), _rule(r"\s+([.,;:?!])", r"\1"), _rule(r"([,;:])(?:\s*[,;:])+", r"\1"),
    _rule(r",\s*([.?!])", r"\1"), _rule(r"([?!:;,])\.(?=\s|$)", r"\1"), _rule(r"^[\s,;:.]+|[\s,;]+$", ""),
)
_STRAIGHT = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "\u00a0": " ", "\u200b": "", "`": ""})


def _abbreviation(found: re.Match[str]) -> str:
    return ABBREVIATIONS[found[0].lower()]


def spoken(text: str) -> str:
    """`text` with numbers, dates, money, units, symbols and abbreviations in English words, on one line.

    Code and links are left as they are: `unsayable` refuses them.
    """
    if _CODE.search(text) or _LINK.search(text):
        return text
    text = unicodedata.normalize("NFC", text).translate(_STRAIGHT)
    for pattern, into in RULES:
        text = pattern.sub(into, text)
    return text.strip()


# -- what cannot be said ----------------------------------------------------------------------------------------------

_LINK = re.compile(r"\w+://|\bwww\.\w|\b[\w.+-]+@[\w-]+\.\w|\b[\w-]+\.(?:com|org|net|io|html?|php|edu|gov)\b(?:/\S*)?",
                   re.IGNORECASE)
_CODE = re.compile(
    r"```|</?\w[^>\n]*>|\\[a-zA-Z]+\{|\$\$|[{}\\]|;\s*$|\b(?:def|class|function) \w+\s?\(|#include\b|\w+\(\w*\);|"
    r"[=!]=|&&|\|\||->|=>|\w_\w|::|^\s*\|.*\|\s*$|\bSELECT\b.+\bFROM\b|\b(?:import|from) \w+ (?:import|as)\b|"
    r"\w+\.\w+\(|\bprint\(|\bconsole\.log", re.MULTILINE)
_SAID = frozenset(" .,?!'\"-:;()…’‘“”")


def unsayable(text: str, script: str | None = "LATIN") -> str | None:
    """Why `text` cannot be read aloud, or None where it can. `script`: the one that the voices can read; None: any.

    The reason begins with what it is counted by: link, code, digits, symbols, script, empty.
    """
    if not any(letter.isalpha() for letter in text):
        return "empty: holds no words"
    if link := _LINK.search(text):
        return f"link: {link[0][:40]!r} cannot be said"
    if code := _CODE.search(text):
        return f"code: {code[0][:40]!r} cannot be said"
    for character in text:
        if character in _SAID or character.isspace():
            continue
        if script is None and unicodedata.category(character).startswith("P") and character not in "#%&*@\\_":
            continue  # every script has marks of its own
        if character.isnumeric() and not character.isalpha():  # some Chinese letters are numbers too
            return f"digits: {character!r}; numbers stand in words"
        if not (character.isalpha() or unicodedata.category(character).startswith("M")):
            return f"symbols: {character!r} ({unicodedata.name(character, 'unnamed')}) cannot be said"
        if script and character.isalpha() and script not in unicodedata.name(character, ""):
            return f"script: {character!r} ({unicodedata.name(character, 'unnamed')}) is not {script.title()}"
    return None


def words(text: str) -> int:
    """How many words `text` has."""
    return len(re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text))


def sentences(text: str) -> list[str]:
    """`text` cut after its full stops, questions and exclamations."""
    return [part for part in re.split(r"(?<=[.?!])\s+(?=[\"'A-Z])", text.strip()) if part]
