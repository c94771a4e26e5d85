"""Arithmetic, comparing and counting, over every pair of numbers in a small range."""

from __future__ import annotations

from collections.abc import Iterable

from omnivox.nano.topics.phrasing import Relation, Row, number, relation

PLUS = """
what is {a} plus {b} | what's {a} plus {b} | how much is {a} plus {b} | add {a} and {b} | add {b} to {a}
what is the sum of {a} and {b} | ={a} plus {b} | what does {a} plus {b} make | how much do {a} and {b} make
calculate {a} plus {b} | ~what {a} plus {b} is | ~how much {a} plus {b} is | what do you get if you add {a} and {b}
work out {a} plus {b} | what would {a} plus {b} be | put {a} and {b} together | what do i get from {a} plus {b}
what number is {a} plus {b} | i want to add {b} to {a} | help me with {a} plus {b}
if you have {a} and you get {b} more how many do you have | can you add {a} and {b} for me
what comes out if i add {b} to {a} | tell me the sum of {a} and {b} | which number do {a} and {b} make together
{a} plus {b} is what | {a} plus {b} makes what | ~what the sum of {a} and {b} is
what will {a} and {b} be together | do the math {a} plus {b} | my homework says {a} plus {b}
*what do {a} and {b} add up to
*what does {a} plus {b} equal
*if i add {a} and {b} what do i get
*find the sum of {a} and {b}
"""
MINUS = """
what is {a} minus {b} | what's {a} minus {b} | how much is {a} minus {b} | ={a} minus {b} | calculate {a} minus {b}
subtract {b} from {a} | take {b} away from {a} | what is {a} take away {b} | what does {a} minus {b} make
what does {a} minus {b} equal | ~what {a} minus {b} is | ~how much {a} minus {b} is | work out {a} minus {b}
what do you get if you take {b} from {a} | what would {a} minus {b} be | what number is {a} minus {b}
help me with {a} minus {b} | if i have {a} and i lose {b} how many do i have
if you have {a} and give away {b} how many are left | take {b} from {a} | what comes out if i take {b} from {a}
do the math {a} minus {b} | can you subtract {b} from {a} for me | {a} minus {b} is what | {a} minus {b} makes what
what do i get from {a} minus {b} | what is {b} less than {a} | i want to take {b} from {a}
my homework says {a} minus {b}
*what is left if you take {b} away from {a}
*what do you get if you subtract {b} from {a}
*how much is {a} take away {b}
"""
TIMES = """
what is {a} times {b} | what's {a} times {b} | how much is {a} times {b} | ={a} times {b} | calculate {a} times {b}
multiply {a} by {b} | what is {a} multiplied by {b} | what does {a} times {b} make | ~what {a} times {b} is
~how much {a} times {b} is | work out {a} times {b} | what is the product of {a} and {b}
what do you get if you multiply {a} by {b} | what would {a} times {b} be | what number is {a} times {b}
help me with {a} times {b} | do the math {a} times {b} | can you multiply {a} by {b} for me
what comes out if i multiply {a} by {b} | {a} times {b} is what | {a} times {b} makes what
what do i get from {a} times {b} | i want to multiply {a} by {b} | tell me the product of {a} and {b}
~what the product of {a} and {b} is | if you multiply {a} by {b} what will it be | my homework says {a} times {b}
*how much is {a} multiplied by {b}
*find the product of {a} and {b}
*what does {a} times {b} equal
"""
DIVIDED = """
what is {a} divided by {b} | what's {a} divided by {b} | how much is {a} divided by {b} | ={a} divided by {b}
calculate {a} divided by {b} | divide {a} by {b} | what does {a} divided by {b} make | ~what {a} divided by {b} is
~how much {a} divided by {b} is | work out {a} divided by {b} | what do you get if you divide {a} by {b}
how many times does {b} go into {a} | what would {a} divided by {b} be | what number is {a} divided by {b}
help me with {a} divided by {b} | do the math {a} divided by {b} | can you divide {a} by {b} for me
what comes out if i divide {a} by {b} | {a} divided by {b} is what | {a} divided by {b} makes what
what do i get from {a} divided by {b} | i want to divide {a} by {b} | how often does {b} go into {a}
~how many times {b} goes into {a} | find {a} divided by {b} | my homework says {a} divided by {b}
*what does {a} divided by {b} equal
*if i divide {a} by {b} what do i get
"""
HALF = """
what is half of {a} | what's half of {a} | how much is half of {a} | =half of {a} | calculate half of {a}
~what half of {a} is | what is one half of {a} | give me half of {a} | what would half of {a} be
which number is half of {a} | half of {a} is what | i need half of {a} | help me with half of {a}
what is {a} divided in half | divide {a} in half | if i cut {a} in half what do i have | work out half of {a}
tell me half of {a} | how many is half of {a} | ~how much half of {a} is
*find half of {a}
*what do you get if you take half of {a}
"""
DOUBLE = """
what is double {a} | what's double {a} | what is twice {a} | how much is twice {a} | double {a}
what is the double of {a} | ~what double {a} is | calculate the double of {a} | give me twice {a}
what would double {a} be | which number is twice {a} | twice {a} is what | help me with double {a}
what is two times as much as {a} | if you take {a} twice what do you have | work out double {a}
tell me what twice {a} is | =twice {a} | how many is twice {a} | ~how much twice {a} is
what happens to {a} if i double it
*how much is double {a}
*find the double of {a}
*what do you get if you double {a}
"""
SQUARE = """
what is {a} squared | what's {a} squared | what is the square of {a} | calculate the square of {a}
how much is {a} squared | ~what {a} squared is | ={a} squared | give me the square of {a}
what would {a} squared be | which number is {a} squared | {a} squared is what | help me with {a} squared
what is {a} multiplied by itself | multiply {a} by itself | work out {a} squared | tell me the square of {a}
~what the square of {a} is | what do you get from {a} squared
*find the square of {a}
*what does {a} squared make
"""
BIGGER = """
which is bigger {a} or {b} | what is bigger {a} or {b} | which number is bigger {a} or {b}
which is greater {a} or {b} | which is larger {a} or {b} | ~which is bigger {a} or {b} | is {a} bigger or {b}
=bigger {a} or {b} | which one is bigger {a} or {b} | what is more {a} or {b} | which is more {a} or {b}
tell me which is bigger {a} or {b} | tell me the larger number {a} or {b} | is {a} more or is {b} more
of {a} and {b} which is bigger | what is the bigger number {a} or {b} | say which number is more {a} or {b}
i have {a} and {b} which one is greater | ~which one is larger {a} or {b}
between {a} and {b} which is the bigger number
*which number is greater {a} or {b}
*what number is larger {a} or {b}
"""
SMALLER = """
which is smaller {a} or {b} | what is smaller {a} or {b} | which number is smaller {a} or {b}
which is less {a} or {b} | ~which is smaller {a} or {b} | is {a} smaller or {b} | which number is less {a} or {b}
=smaller {a} or {b} | which one is smaller {a} or {b} | which one is less {a} or {b}
tell me which is smaller {a} or {b} | tell me the smaller number {a} or {b} | is {a} less or is {b} less
of {a} and {b} which is smaller | what is the smaller number {a} or {b} | say which number is less {a} or {b}
i have {a} and {b} which one is smaller | ~which one is less {a} or {b}
between {a} and {b} which is the smaller number | which is not as big {a} or {b}
*what number is smaller {a} or {b}
*what is less {a} or {b}
"""
PARITY = """
is {a} even or odd | is {a} odd or even | is {a} an even number | is {a} an odd number
is the number {a} even or odd | ~if {a} is even or odd | ~if {a} is an odd number | =even or odd {a}
what is {a} even or odd | what kind of number is {a} even or odd | tell me if {a} is even or odd
tell me if {a} is odd | would you call {a} even or odd | =the number {a} even or odd | {a} is it even or odd
{a} is it odd | do you know if {a} is even | can you say if {a} is odd or even | would {a} be an odd number
~if the number {a} is even | should i call {a} odd or even | which is {a} odd or even
*is the number {a} odd or even
*is {a} an odd number or an even number
"""
COUNT = """
count from {a} to {b} | count up from {a} to {b} | say the numbers from {a} to {b}
count the numbers from {a} to {b} | give me the numbers from {a} to {b} | tell me the numbers from {a} to {b}
=the numbers from {a} to {b} | list the numbers from {a} to {b} | start at {a} and count to {b}
start with {a} and count up to {b} | begin at {a} and end at {b} | can we count from {a} to {b}
i want to hear you count from {a} to {b} | help me count from {a} to {b} | what are the numbers from {a} to {b}
=from {a} to {b} please count | which numbers go from {a} to {b} | name the numbers from {a} to {b}
say every number from {a} to {b} | teach me to count from {a} to {b}
*count for me from {a} to {b}
*count from {a} up to {b}
"""
COUNT_TO = """
count to {b} | count up to {b} | count all the way to {b} | say the numbers up to {b}
tell me the numbers up to {b} | give me the numbers up to {b} | =counting to {b} | list the numbers up to {b}
help me count to {b} | count from the start to {b} | i want to hear you count to {b} | teach me to count to {b}
what are the numbers up to {b} | name the numbers up to {b} | say every number up to {b}
can we count to {b} together | how do you count to {b} | how do i count to {b} | =counting up to {b}
show me how to count to {b}
*count for me to {b}
*count all the way up to {b}
"""
COUNT_DOWN = """
count backwards from {a} | count down from {a} | count backwards from {a} to one | count down from {a} to one
say the numbers backwards from {a} | give me the numbers backwards from {a} | list the numbers down from {a}
tell me the numbers backwards from {a} | help me count down from {a} | help me count backwards from {a}
start at {a} and count down | start at {a} and count backwards | begin at {a} and go down to one
i want to hear you count down from {a} | how do you count down from {a} | how do you count backwards from {a}
what are the numbers backwards from {a} | name the numbers backwards from {a}
teach me to count backwards from {a} | =counting down from {a} | =counting backwards from {a}
go down from {a} to one
*count for me backwards from {a}
*say the numbers from {a} down to one
"""
COUNT_BY = """
count by {k} to {b} | count by {k} up to {b} | count in {k} to {b} | count in {k} up to {b}
say the numbers by {k} up to {b} | give me the numbers by {k} to {b} | =counting by {k} to {b}
list the numbers by {k} to {b} | help me count by {k} to {b} | teach me to count by {k} to {b}
i want to hear you count by {k} to {b} | count to {b} by {k} | count up to {b} in {k} | go up to {b} by {k}
how do you count by {k} to {b} | how do you count in {k} to {b} | name the numbers by {k} up to {b}
tell me the numbers by {k} to {b} | say the numbers to {b} in {k} | =counting in {k} up to {b}
*count for me by {k} to {b}
*say the numbers in {k} up to {b}
"""
AFTER = """
what number comes after {a} | which number comes after {a} | what comes after {a} | what comes after the number {a}
what number is after {a} | what is the number after {a} | what is the next number after {a}
~what number comes after {a} | name the number after {a} | tell me the number after {a} | =the number after {a}
what number is right after {a} | what do you say after {a} when you count | what number would come after {a}
i am counting what comes after {a} | after {a} comes which number | after {a} comes what number
which number do i say after {a} | what is one more than {a} | which number is one more than {a}
what is the next number if i am at {a} | say the number after {a} | help me what number comes after {a}
~what the number after {a} is | ~what number is next after {a} | do you know the number after {a}
*which number is after {a}
*~which number comes right after {a}
*give me the number that comes after {a}
"""
BEFORE = """
what number comes before {a} | which number comes before {a} | what comes before {a}
what comes before the number {a} | what number is before {a} | what is the number before {a}
what is the number just before {a} | ~what number comes before {a} | name the number before {a}
tell me the number before {a} | =the number before {a} | what do you say before {a} when you count
what number would come before {a} | before {a} comes which number | before {a} comes what number
which number do i say before {a} | which number is one less than {a} | which number comes just before {a}
say the number before {a} | help me what number comes before {a} | ~what the number before {a} is
do you know the number before {a} | counting up what number is just before {a} | ~what number is just before {a}
*which number is before {a}
*give me the number that comes before {a}
"""
BETWEEN = """
what number is between {a} and {b} | which number is between {a} and {b} | what number comes between {a} and {b}
what is between {a} and {b} | ~which number is between {a} and {b} | name the number between {a} and {b}
=the number between {a} and {b} | tell me the number between {a} and {b} | what number would be between {a} and {b}
between {a} and {b} there is what number | between {a} and {b} comes which number
what is the number between {a} and {b} | what comes between {a} and {b}
do you know the number between {a} and {b} | say the number between {a} and {b}
~what the number between {a} and {b} is | what number do i say between {a} and {b}
when you count what is between {a} and {b} | which is the only number between {a} and {b}
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
