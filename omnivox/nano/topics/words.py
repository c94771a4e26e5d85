"""Words: opposites, spelling, first letters, rhymes, plurals, past tenses, definitions, saying again."""

from __future__ import annotations

import re

from omnivox.nano.topics.phrasing import Relation, relation, single_facts, table

OPPOSITE = """
what is the opposite of {x}
what's the opposite of {x}
tell me the opposite of {x}
say the opposite of {x}
name the opposite of {x}
~what the opposite of {x} is
=the opposite of {x}
=opposite of {x}
which word is the opposite of {x}
what word means the opposite of {x}
*give me the opposite of {x}
*what is the opposite word of {x}
*what word is the opposite of {x}
"""
SPELLING = """
spell {x}
spell the word {x}
how do you spell {x}
how is {x} spelled
how do i spell {x}
~how to spell {x}
~how {x} is spelled
how is the word {x} spelled
=the spelling of {x}
what is the spelling of {x}
how do you spell the word {x}
give me the spelling of {x}
*how would you spell {x}
*what are the letters in {x}
*how do you write the word {x}
*tell me the spelling of the word {x}
"""
FIRST_LETTER = """
what is the first letter of {x}
what letter does {x} start with
which letter does {x} start with
what does the word {x} start with
~what letter {x} starts with
=the first letter of {x}
tell me the first letter of {x}
what letter does the word {x} begin with
*which letter does {x} begin with
*what is the first letter in the word {x}
"""
LETTERS = """
how many letters are in {x}
how many letters are in the word {x}
how many letters does {x} have
how many letters are there in {x}
~how many letters {x} has
count the letters in {x}
what is the number of letters in {x}
~how many letters there are in {x}
*how many letters has the word {x}
*count the letters in the word {x}
"""
RHYME = """
what rhymes with {x}
what word rhymes with {x}
which word rhymes with {x}
give me a rhyme for {x}
tell me a word that rhymes with {x}
name a word that rhymes with {x}
=a rhyme for {x}
~what rhymes with {x}
say a word that rhymes with {x}
*give me a word that rhymes with {x}
*what is a rhyme for {x}
"""
PLURAL = """
what is the plural of {x}
what's the plural of {x}
tell me the plural of {x}
give me the plural of {x}
say the plural of {x}
~what the plural of {x} is
=the plural of {x}
what is the plural of the word {x}
*name the plural of {x}
*what is the plural form of {x}
"""
PAST = """
what is the past tense of {x}
what's the past tense of {x}
tell me the past tense of {x}
give me the past tense of {x}
say the past tense of {x}
~what the past tense of {x} is
=the past tense of {x}
=past tense of {x}
what is the past tense of the verb {x}
what is the past tense form of {x}
*name the past tense of {x}
*what is the past of the verb {x}
"""
DEFINE = """
what is {x}
what's {x}
~what {x} is
explain what {x} is
what does the word {w} mean
define {w}
what is the meaning of the word {w}
describe {x}
tell me about {x}
what exactly is {x}
*give me the meaning of the word {w}
*explain to me what {x} is
*define the word {w}
"""
REPEAT = """
repeat after me {x}
=repeat {x}
say {x}
say after me {x}
repeat the words {x}
please repeat after me {x}
=can you say {x}
say the words {x}
repeat this {x}
*please say after me {x}
*say this after me {x}
*could you repeat after me {x}
"""
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def relations() -> list[Relation]:
    """All that is asked about words."""
    words = [row[0] for row in table("spelling")]
    spelled = [
        {"x": w, "letters": ", ".join(w.upper()), "first": w[0].upper(), "n": NUMBER_WORDS[len(w)]} for w in words
    ]
    names = ("opposites", "rhymes", "plurals", "past_tenses")
    pairs = {name: [{"x": x, "y": y} for x, y in table(name)] for name in names}
    phrases = [{"x": phrase.lower().replace(",", "").rstrip(".!?"), "y": phrase} for (phrase,) in table("phrases")]
    defined = [{"x": x, "w": re.sub("^an? ", "", x), "y": y} for x, y in table("definitions")]
    return [
        relation("opposites", OPPOSITE, pairs["opposites"], "the opposite of {x} is {y}.", 80),
        relation("spelling", SPELLING, spelled, "{x} is spelled {letters}.", 100),
        relation("letters", FIRST_LETTER, spelled, "{x} starts with the letter {first}.", 40),
        relation("letters", LETTERS, spelled, "{x} has {n} letters.", 40),
        relation("rhymes", RHYME, pairs["rhymes"], "{x} rhymes with {y}.", 25),
        relation("plurals", PLURAL, pairs["plurals"], "the plural of {x} is {y}.", 28),
        relation("past tenses", PAST, pairs["past_tenses"], "the past tense of {x} is {y}.", 36),
        relation("definitions", DEFINE, defined, "{y}", 55),
        relation("repeat", REPEAT, phrases, "{y}", 35, chatty=False),
        *single_facts("letters", "alphabet", 0.25),
    ]
