"""Arithmetic, comparing and counting, over every pair of numbers in a small range."""

from __future__ import annotations

from collections.abc import Iterable

from omnivox.nano.topics.phrasing import Relation, Row, number, relation

PLUS = """
what is {a} plus {b}
what's {a} plus {b}
how much is {a} plus {b}
add {a} and {b}
add {b} to {a}
what is the sum of {a} and {b}
={a} plus {b}
what does {a} plus {b} make
how much do {a} and {b} make
calculate {a} plus {b}
~what {a} plus {b} is
~how much {a} plus {b} is
what do you get if you add {a} and {b}
work out {a} plus {b}
*what do {a} and {b} add up to
*what does {a} plus {b} equal
*if i add {a} and {b} what do i get
*find the sum of {a} and {b}
"""
MINUS = """
what is {a} minus {b}
what's {a} minus {b}
how much is {a} minus {b}
={a} minus {b}
calculate {a} minus {b}
subtract {b} from {a}
take {b} away from {a}
what is {a} take away {b}
what does {a} minus {b} make
what does {a} minus {b} equal
~what {a} minus {b} is
~how much {a} minus {b} is
work out {a} minus {b}
what do you get if you take {b} from {a}
*what is left if you take {b} away from {a}
*what do you get if you subtract {b} from {a}
*how much is {a} take away {b}
"""
TIMES = """
what is {a} times {b}
what's {a} times {b}
how much is {a} times {b}
={a} times {b}
calculate {a} times {b}
multiply {a} by {b}
what is {a} multiplied by {b}
what does {a} times {b} make
~what {a} times {b} is
~how much {a} times {b} is
work out {a} times {b}
what is the product of {a} and {b}
what do you get if you multiply {a} by {b}
*how much is {a} multiplied by {b}
*find the product of {a} and {b}
*what does {a} times {b} equal
"""
DIVIDED = """
what is {a} divided by {b}
what's {a} divided by {b}
how much is {a} divided by {b}
={a} divided by {b}
calculate {a} divided by {b}
divide {a} by {b}
what does {a} divided by {b} make
~what {a} divided by {b} is
~how much {a} divided by {b} is
work out {a} divided by {b}
what do you get if you divide {a} by {b}
how many times does {b} go into {a}
*what does {a} divided by {b} equal
*if i divide {a} by {b} what do i get
"""
HALF = """
what is half of {a}
what's half of {a}
how much is half of {a}
=half of {a}
calculate half of {a}
~what half of {a} is
what is one half of {a}
give me half of {a}
*find half of {a}
*what do you get if you take half of {a}
"""
DOUBLE = """
what is double {a}
what's double {a}
what is twice {a}
how much is twice {a}
double {a}
what is the double of {a}
~what double {a} is
calculate the double of {a}
give me twice {a}
*how much is double {a}
*find the double of {a}
*what do you get if you double {a}
"""
SQUARE = """
what is {a} squared
what's {a} squared
what is the square of {a}
calculate the square of {a}
how much is {a} squared
~what {a} squared is
={a} squared
give me the square of {a}
*find the square of {a}
*what does {a} squared make
"""
BIGGER = """
which is bigger {a} or {b}
what is bigger {a} or {b}
which number is bigger {a} or {b}
which is greater {a} or {b}
which is larger {a} or {b}
~which is bigger {a} or {b}
is {a} bigger or {b}
=bigger {a} or {b}
*which number is greater {a} or {b}
*what number is larger {a} or {b}
"""
SMALLER = """
which is smaller {a} or {b}
what is smaller {a} or {b}
which number is smaller {a} or {b}
which is less {a} or {b}
~which is smaller {a} or {b}
is {a} smaller or {b}
which number is less {a} or {b}
=smaller {a} or {b}
*what number is smaller {a} or {b}
*what is less {a} or {b}
"""
PARITY = """
is {a} even or odd
is {a} odd or even
is {a} an even number
is {a} an odd number
is the number {a} even or odd
~if {a} is even or odd
~if {a} is an odd number
=even or odd {a}
what is {a} even or odd
*is the number {a} odd or even
*is {a} an odd number or an even number
"""
COUNT = """
count from {a} to {b}
count up from {a} to {b}
say the numbers from {a} to {b}
count the numbers from {a} to {b}
give me the numbers from {a} to {b}
tell me the numbers from {a} to {b}
=the numbers from {a} to {b}
list the numbers from {a} to {b}
*count for me from {a} to {b}
*count from {a} up to {b}
"""
COUNT_TO = """
count to {b}
count up to {b}
count all the way to {b}
say the numbers up to {b}
tell me the numbers up to {b}
give me the numbers up to {b}
=counting to {b}
list the numbers up to {b}
*count for me to {b}
*count all the way up to {b}
"""
COUNT_DOWN = """
count backwards from {a}
count down from {a}
count backwards from {a} to one
count down from {a} to one
say the numbers backwards from {a}
give me the numbers backwards from {a}
list the numbers down from {a}
tell me the numbers backwards from {a}
*count for me backwards from {a}
*say the numbers from {a} down to one
"""
COUNT_BY = """
count by {k} to {b}
count by {k} up to {b}
count in {k} to {b}
count in {k} up to {b}
say the numbers by {k} up to {b}
give me the numbers by {k} to {b}
=counting by {k} to {b}
list the numbers by {k} to {b}
*count for me by {k} to {b}
*say the numbers in {k} up to {b}
"""
AFTER = """
what number comes after {a}
which number comes after {a}
what comes after {a}
what comes after the number {a}
what number is after {a}
what is the number after {a}
what is the next number after {a}
~what number comes after {a}
name the number after {a}
tell me the number after {a}
=the number after {a}
what number is right after {a}
*which number is after {a}
*~which number comes right after {a}
*give me the number that comes after {a}
"""
BEFORE = """
what number comes before {a}
which number comes before {a}
what comes before {a}
what comes before the number {a}
what number is before {a}
what is the number before {a}
what is the number just before {a}
~what number comes before {a}
name the number before {a}
tell me the number before {a}
=the number before {a}
*which number is before {a}
*give me the number that comes before {a}
"""
BETWEEN = """
what number is between {a} and {b}
which number is between {a} and {b}
what number comes between {a} and {b}
what is between {a} and {b}
~which number is between {a} and {b}
name the number between {a} and {b}
=the number between {a} and {b}
tell me the number between {a} and {b}
*which number comes between {a} and {b}
*give me the number between {a} and {b}
"""


def _rows(triples: Iterable[tuple[int, int, int]]) -> list[Row]:
    return [{"a": number(a), "b": number(b), "c": number(c)} for a, b, c in triples]


def _series(numbers: Iterable[int]) -> str:
    return ", ".join(number(n) for n in numbers)


def arithmetic() -> list[Relation]:
    """The four operations, halves, doubles, squares, comparing, even and odd."""
    sums = [(a, b, a + b) for a in range(21) for b in range(21)]
    tens = [(a, b, a + b) for a in range(10, 100, 10) for b in range(10, 110 - a, 10) if max(a, b) > 20]
    differences = [(a, b, a - b) for a in range(21) for b in range(a + 1)]
    products = [(a, b, a * b) for a in range(13) for b in range(13)]
    quotients = [(a * b, b, a) for a in range(1, 13) for b in range(1, 13)]
    unequal = [(a, b, 0) for a in range(1, 21) for b in range(1, 21) if a != b]
    far = [(a, b, 0) for a in range(10, 101, 10) for b in range(10, 101, 10) if a != b]
    pairs = unequal + [pair for pair in far if pair not in unequal]
    parity = [{"a": number(n), "kind": ("an even" if n % 2 == 0 else "an odd")} for n in range(1, 101)]
    greater = [
        {"a": number(a), "b": number(b), "high": number(max(a, b)), "low": number(min(a, b))} for a, b, _ in pairs
    ]
    topic = "arithmetic"
    return [
        relation(topic, PLUS, _rows(sums + tens), "{a} plus {b} is {c}.", 110),
        relation(topic, MINUS, _rows(differences), "{a} minus {b} is {c}.", 70),
        relation(topic, TIMES, _rows(products), "{a} times {b} is {c}.", 70),
        relation(topic, DIVIDED, _rows(quotients), "{a} divided by {b} is {c}.", 50),
        relation(topic, HALF, _rows((2 * n, 0, n) for n in range(1, 51)), "half of {a} is {c}.", 18),
        relation(topic, DOUBLE, _rows((n, 0, 2 * n) for n in range(1, 51)), "double {a} is {c}.", 18),
        relation(topic, SQUARE, _rows((n, 0, n * n) for n in range(1, 13)), "{a} squared is {c}.", 8),
        relation("comparing", BIGGER, greater, "{high} is bigger than {low}.", 25),
        relation("comparing", SMALLER, greater, "{low} is smaller than {high}.", 22),
        relation("comparing", PARITY, parity, "{a} is {kind} number.", 22),
    ]


def counting() -> list[Relation]:
    """Counting up, down and in steps; the numbers beside a number."""
    spans = [(a, b) for a in range(1, 20) for b in range(a + 2, min(a + 9, 26))]
    up = [{"a": number(a), "b": number(b), "series": _series(range(a, b + 1))} for a, b in spans]
    to = [{"b": number(b), "series": _series(range(1, b + 1))} for b in range(3, 13)]
    down = [{"a": number(a), "series": _series(range(a, 0, -1))} for a in range(3, 13)]
    steps = [(2, "twos", 10), (3, "threes", 8), (5, "fives", 10), (10, "tens", 10)]
    by = [
        {"k": word, "b": number(step * n), "series": _series(range(step, step * n + 1, step))}
        for step, word, most in steps
        for n in range(3, most + 1)
    ]
    topic = "counting"
    return [
        relation(topic, COUNT, up, "{series}.", 40),
        relation(topic, COUNT_TO, to, "{series}.", 10),
        relation(topic, COUNT_DOWN, down, "{series}.", 12),
        relation(topic, COUNT_BY, by, "{series}.", 16),
        relation(topic, AFTER, _rows((n, 0, n + 1) for n in range(100)), "{c} comes after {a}.", 24),
        relation(topic, BEFORE, _rows((n, 0, n - 1) for n in range(1, 101)), "{c} comes before {a}.", 24),
        relation(topic, BETWEEN, _rows((n, n + 2, n + 1) for n in range(1, 50)), "{c} is between {a} and {b}.", 10),
    ]


def relations() -> list[Relation]:
    """All that is asked about numbers."""
    return arithmetic() + counting()
