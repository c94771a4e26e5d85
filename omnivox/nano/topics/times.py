"""The calendar and units of measure."""

from __future__ import annotations

from omnivox.nano.topics.phrasing import Relation, number, relation, single_facts

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
SEASONS = ["spring", "summer", "autumn", "winter"]
ORDINALS = [
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
]

NEXT = """
what {n} comes after {a}
which {n} comes after {a}
what {n} is after {a}
which {n} is after {a}
what is the {n} after {a}
what's the {n} after {a}
name the {n} after {a}
tell me the {n} after {a}
~what {n} comes after {a}
~which {n} is after {a}
=the {n} after {a}
what is the next {n} after {a}
what {n} would come after {a} | after {a} comes which {n} | after {a} comes what {n} | which {n} is next after {a}
what {n} is next after {a} | what {n} do we have after {a} | what comes after {a} | what is after {a}
do you know the {n} after {a} | i forgot the {n} after {a} | say the {n} after {a}
when {a} is over what {n} is it | when {a} ends which {n} begins | which {n} starts when {a} is done
~what the {n} after {a} is | it is {a} now what is the next {n} | help me which {n} comes after {a}
*name the {n} right after {a}
*give me the {n} that comes after {a}
*which {n} comes right after {a}
"""
PREVIOUS = """
what {n} comes before {a}
which {n} comes before {a}
what {n} is before {a}
which {n} is before {a}
what is the {n} before {a}
what's the {n} before {a}
name the {n} before {a}
tell me the {n} before {a}
~what {n} comes before {a}
~which {n} is before {a}
=the {n} before {a}
what {n} comes just before {a}
what {n} would come before {a} | before {a} comes which {n} | before {a} comes what {n}
which {n} is just before {a} | what {n} do we have before {a} | what comes before {a} | what is before {a}
do you know the {n} before {a} | i forgot the {n} before {a} | say the {n} before {a}
which {n} ends when {a} begins | when {a} starts what {n} is over | ~what the {n} before {a} is
~which {n} is just before {a} | it is {a} now what was the last {n} | help me which {n} comes before {a}
*which {n} comes right before {a}
*give me the {n} that comes before {a}
"""
TOMORROW = """
if today is {a} what day is tomorrow
today is {a} what day is tomorrow
if today is {a} what is tomorrow
what day is tomorrow if today is {a}
what is tomorrow if today is {a}
~what day is tomorrow if today is {a}
when today is {a} what day is tomorrow
today is {a} what is tomorrow
today is {a} so what will tomorrow be | if today is {a} what will tomorrow be | today it is {a} what is it tomorrow
what will tomorrow be if today is {a} | what day will it be tomorrow if today is {a}
it is {a} and tomorrow is what day | say today is {a} what day is tomorrow | if it is {a} now what is tomorrow
what day do we have tomorrow if today is {a} | think that today is {a} what day is tomorrow
=tomorrow if today is {a} | tell me what tomorrow is if today is {a} | ~what tomorrow is if today is {a}
when it is {a} today which day comes tomorrow
*which day is tomorrow if today is {a}
*if it is {a} today what day is tomorrow
"""
YESTERDAY = """
if today is {a} what day was yesterday
today is {a} what day was yesterday
if today is {a} what was yesterday
what day was yesterday if today is {a}
what was yesterday if today is {a}
~what day was yesterday if today is {a}
when today is {a} what day was yesterday
today is {a} what was yesterday
today is {a} so what was yesterday | today it is {a} what was it yesterday
what day did we have yesterday if today is {a} | it is {a} and yesterday was what day
say today is {a} what day was yesterday | if it is {a} now what was yesterday
think that today is {a} what day was yesterday | =yesterday if today is {a}
tell me what yesterday was if today is {a} | ~what yesterday was if today is {a}
when it is {a} today which day was it yesterday | what day was it yesterday if today is {a}
*which day was yesterday if today is {a}
*if it is {a} today what day was yesterday
"""
LENGTH = """
how many days are in {a}
how many days are there in {a}
how many days does {a} have
how many days are in the month of {a}
~how many days {a} has
~how many days are in {a}
what is the number of days in {a}
how long is {a}
tell me the number of days in {a}
=days in {a}
what number of days does {a} have | {a} has how many days | in {a} there are how many days
how many days do we have in {a} | how many days can you count in {a} | how many days long is {a}
do you know how many days {a} has | i forgot how many days {a} has | say the number of days in {a}
count the days of {a} | count the days in {a} | what is the length of {a} | ~how long {a} is
~how many days there are in {a} | when {a} is over how many days have gone by | =the number of days in {a}
*how many days has {a}
*how long is the month of {a}
*how many days are there in the month of {a}
"""
NTH = """
what is the {i} month of the year
which is the {i} month of the year
what is the {i} month
name the {i} month of the year
tell me the {i} month of the year
which month is the {i} month of the year
~what the {i} month of the year is
=the {i} month of the year
which month is the {i}
which month comes as the {i} of the year | what would be the {i} month of the year
what do you call the {i} month of the year | what is the {i} month called | what is the name of the {i} month
do you know the {i} month of the year | i forgot the {i} month of the year | say the {i} month of the year
the {i} month of the year is which month | the {i} month is what | find the {i} month of the year
which month is number {i} in the year | which one is the {i} month | ~what the {i} month is called
~which month is the {i} | help me with the {i} month of the year
*what month is the {i} month of the year
*give me the {i} month of the year
"""
PLACE = """
which month of the year is {a}
what month of the year is {a}
what number is the month of {a}
what number month is {a}
which number month is {a}
what is the number of the month {a}
~which month of the year {a} is
~what number month {a} is
{a} is which month of the year | {a} is what month of the year | {a} is what number in the year
where in the year is the month {a} | what number does {a} have in the year | what number has {a} as a month
do you know which month of the year {a} is | i forgot what number month {a} is | tell me what number month {a} is
say which month of the year {a} is | is {a} the first or second or which month | when in the year comes {a}
~what number {a} is in the year | ~what number the month {a} is | count the months up to {a} which number is it
*which number is the month of {a}
*what is the number of the month of {a}
"""
UNIT = """
how many {xs} are in {y}
how many {xs} are there in {y}
how many {xs} in {y}
how many {xs} does {y} have
how many {xs} make {y}
~how many {xs} are in {y}
~how many {xs} there are in {y}
what is the number of {xs} in {y}
=the number of {xs} in {y}
tell me the number of {xs} in {y}
{y} has how many {xs}
how many {xs} can you count in {y} | how many {xs} would be in {y} | how many {xs} do you find in {y}
how many {xs} do i need for {y} | how many {xs} do you need to make {y} | in {y} there are how many {xs}
in {y} how many {xs} are there | there are how many {xs} in {y} | {y} is how many {xs}
{y} is the same as how many {xs} | what number of {xs} is in {y} | what number of {xs} makes {y}
do you know how many {xs} are in {y} | i forgot how many {xs} are in {y} | help me how many {xs} are in {y}
say how many {xs} are in {y} | count the {xs} in {y} | give me {y} in {xs} | =the {xs} in {y}
=how about the number of {xs} in {y} | ~how many {xs} {y} has | ~what the number of {xs} in {y} is
*how many {xs} make up {y}
*how many {xs} has {y}
*how many {xs} go into {y}
"""
UNITS = (
    ("seconds", "a minute", 60),
    ("minutes", "an hour", 60),
    ("hours", "a day", 24),
    ("days", "a week", 7),
    ("months", "a year", 12),
    ("weeks", "a year", 52),
    ("years", "a decade", 10),
    ("years", "a century", 100),
    ("years", "a millennium", 1000),
    ("minutes", "half an hour", 30),
    ("minutes", "a quarter of an hour", 15),
    ("days", "a year", 365),
    ("days", "a leap year", 366),
    ("decades", "a century", 10),
    ("seasons", "a year", 4),
    ("centimeters", "a meter", 100),
    ("millimeters", "a centimeter", 10),
    ("meters", "a kilometer", 1000),
    ("millimeters", "a meter", 1000),
    ("grams", "a kilogram", 1000),
    ("milligrams", "a gram", 1000),
    ("kilograms", "a ton", 1000),
    ("milliliters", "a liter", 1000),
    ("inches", "a foot", 12),
    ("feet", "a yard", 3),
    ("inches", "a yard", 36),
    ("feet", "a mile", 5280),
    ("ounces", "a pound", 16),
    ("pints", "a quart", 2),
    ("quarts", "a gallon", 4),
    ("pints", "a gallon", 8),
    ("cups", "a pint", 2),
    ("cents", "a dollar", 100),
    ("pennies", "a pound", 100),
    ("cents", "a quarter", 25),
    ("cents", "a dime", 10),
    ("cents", "a nickel", 5),
    ("eggs", "a dozen", 12),
    ("things", "a pair", 2),
    ("quarters", "a dollar", 4),
    ("dimes", "a dollar", 10),
    ("degrees", "a circle", 360),
    ("degrees", "a right angle", 90),
    ("cards", "a deck", 52),
    ("nickels", "a dollar", 20),
    ("teaspoons", "a tablespoon", 3),
    ("hours", "two days", 48),
    ("days", "two weeks", 14),
    ("months", "two years", 24),
    ("minutes", "two hours", 120),
    ("months", "half a year", 6),
)


def relations() -> list[Relation]:
    """All that is asked about the calendar and about units."""
    after, before = [], []
    for kind, cycle in (("day", DAYS), ("month", MONTHS), ("season", SEASONS)):
        for i, name in enumerate(cycle):
            after.append({"n": kind, "a": name, "c": cycle[(i + 1) % len(cycle)]})
            before.append({"n": kind, "a": name, "c": cycle[i - 1]})
    months = [
        {"a": month, "n": number(days), "i": ORDINALS[i]}
        for i, (month, days) in enumerate(zip(MONTHS, LENGTHS, strict=True))
    ]
    today = [{"a": day, "next": DAYS[(i + 1) % 7], "last": DAYS[i - 1]} for i, day in enumerate(DAYS)]
    units = [{"xs": unit, "y": whole, "n": number(n)} for unit, whole, n in UNITS]
    return [
        relation("calendar", NEXT, after, "{c} comes after {a}.", 22),
        relation("calendar", PREVIOUS, before, "{c} comes before {a}.", 22),
        relation("calendar", TOMORROW, today, "if today is {a}, tomorrow is {next}.", 8),
        relation("calendar", YESTERDAY, today, "if today is {a}, yesterday was {last}.", 8),
        relation("calendar", LENGTH, months, "{a} has {n} days.", 12),
        relation("calendar", NTH, months, "{a} is the {i} month of the year.", 10),
        relation("calendar", PLACE, months, "{a} is the {i} month of the year.", 8),
        relation("units", UNIT, units, "there are {n} {xs} in {y}.", 36),
        *single_facts("calendar", "calendar", 0.7),
    ]
