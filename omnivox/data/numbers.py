"""English numbers in words: cardinals, ordinals, years, decades, decimals, money, times of day.

    cardinal(1234) "one thousand two hundred and thirty-four"     ordinal(21) "twenty-first"
    year(1905) "nineteen oh five"                                 decimal("3.14") "three point one four"
"""

from __future__ import annotations

ONES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
        "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SCALES = ("", " thousand", " million", " billion", " trillion", " quadrillion")
LARGEST = 10 ** (3 * len(SCALES)) - 1
ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
            "twelve": "twelfth"}
PARTS = {2: "half", 4: "quarter"}


def cardinal(number: int) -> str:
    """A whole number; digit by digit beyond `LARGEST`."""
    if number < 0:
        return "minus " + cardinal(-number)
    if number > LARGEST:
        return digits(str(number))
    groups: list[tuple[int, str]] = []
    for scale in SCALES:
        number, group = divmod(number, 1000)
        if group:
            groups.append((group, scale))
    if not groups:
        return ONES[0]
    words = [_hundreds(group) + scale for group, scale in reversed(groups)]
    last, scale = groups[0]
    if len(words) > 1 and not scale and last < 100:  # two thousand and five
        words[-1] = "and " + words[-1]
    return " ".join(words)


def _hundreds(number: int) -> str:
    hundreds, rest = divmod(number, 100)
    words = [f"{ONES[hundreds]} hundred"] if hundreds else []
    if rest:
        words.append(_below_hundred(rest))
    return " and ".join(words)


def _below_hundred(number: int) -> str:
    if number < 20:
        return ONES[number]
    tens, ones = divmod(number, 10)
    return TENS[tens] + (f"-{ONES[ones]}" if ones else "")


def digits(text: str) -> str:
    """Every digit of `text` by itself."""
    return " ".join(ONES[int(digit)] for digit in text if digit.isdigit())


def decimal(text: str) -> str:
    """A number as written, with thousands commas and a decimal point where it has them: "1,024.50"."""
    whole, _, part = text.replace(",", "").partition(".")
    spoken = cardinal(int(whole or 0)) if len(whole) < 2 or whole[0] != "0" else digits(whole)
    return f"{spoken} point {digits(part)}" if part else spoken


def ordinal(number: int) -> str:
    """The ordinal of a number: first, twentieth, one hundred and third."""
    words = cardinal(number)
    cut = max(words.rfind(" "), words.rfind("-")) + 1
    last = words[cut:]
    if last in ORDINALS:
        return words[:cut] + ORDINALS[last]
    return words[:cut] + (last[:-1] + "ieth" if last.endswith("y") else last + "th")


def year(number: int) -> str:
    """A year of four digits as people say it: nineteen eighty-four, nineteen hundred, two thousand and one."""
    century, rest = divmod(number, 100)
    if rest == 0:
        return cardinal(number) if century % 10 == 0 else f"{cardinal(century)} hundred"
    if century % 10 == 0 and rest < 10:
        return cardinal(number)
    return f"{cardinal(century)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def plural(words: str) -> str:
    """Of a number's last word: seventies, tens, hundreds."""
    if words.endswith("y"):
        return words[:-1] + "ies"
    return words + ("es" if words.endswith("x") else "s")


def decade(number: int) -> str:
    """1920 and 20 are the (nineteen) twenties, 2000 the two thousands."""
    return plural(year(number) if number >= 1000 else cardinal(number))


def fraction(upper: int, lower: int) -> str:
    """One half, three quarters, two thirds; "over" for what people do not say so."""
    if lower < 2 or lower > 20 or upper < 1:
        return f"{cardinal(upper)} over {cardinal(lower)}"
    part = PARTS.get(lower, ordinal(lower))
    if upper != 1:
        part = "halves" if part == "half" else part + "s"
    return f"{cardinal(upper)} {part}"


def money(amount: str, unit: tuple[str, str, str], scale: str = "") -> str:
    """`amount` as written; unit: one of it, many of it, and a hundredth; scale: "", "million" and so on."""
    one, many, part = unit
    whole, _, cents = amount.replace(",", "").partition(".")
    if scale or (cents and len(cents) != 2):
        return f"{decimal(amount)}{' ' + scale if scale else ''} {many}"
    said = f"{cardinal(int(whole or 0))} {one if int(whole or 0) == 1 else many}"
    if not cents or int(cents) == 0 or not part:
        return said
    small = f"{cardinal(int(cents))} {part if int(cents) == 1 or part == 'pence' else part + 's'}"
    return small if int(whole or 0) == 0 else f"{said} and {small}"


def clock(hours: int, minutes: int) -> str:
    """Five, five thirty, five oh five; the hour alone where there are no minutes."""
    if minutes == 0:
        return cardinal(hours)
    return f"{cardinal(hours)} {'oh ' if minutes < 10 else ''}{cardinal(minutes)}"
