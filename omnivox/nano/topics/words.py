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
what do you call the opposite of {x} | what would be the opposite of {x}
what would you say is the opposite of {x} | do you know the opposite of {x} | i forgot the opposite of {x}
i need the opposite of {x} | i need a word that is the opposite of {x} | help me with the opposite of {x}
the opposite of {x} is what | the opposite of {x} is which word | {x} is the opposite of what
{x} is the opposite of what word | what is {x} the opposite of | find the opposite of {x}
find a word for the opposite of {x} | which word means the opposite of {x} | which word says the opposite of {x}
if something is not {x} but the opposite what is it | ~what you call the opposite of {x} | =and the opposite of {x}
what's the word for the opposite of {x} | how do you say the opposite of {x}
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
i want to spell {x} | i want to write {x} how is it spelled | i forgot how to spell {x}
i forgot how {x} is spelled | i need to spell {x} | help me spell {x} | help me spell the word {x}
help me with the spelling of {x} | teach me to spell {x} | teach me how to spell {x} | show me how to spell {x}
what letters do i need for {x} | what letters make the word {x} | which letters make {x}
which letters do i write for {x} | how do i write {x} | how should i spell {x} | how should i write {x}
how do people spell {x} | how is {x} written | how is the word {x} written | name the letters of {x}
say the letters of {x} | tell me the letters of {x} | give me the letters of {x} | letter by letter {x}
say {x} letter by letter | {x} how is that spelled | do you know the spelling of {x} | ~how to write {x}
~how to spell the word {x} | =the letters of {x} | the word is {x} please spell it
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
with what letter does {x} begin | with which letter does {x} start | with which letter does the word {x} start
what does {x} start with | what does {x} begin with | what letter comes first in {x}
which letter comes first in {x} | what letter is at the start of {x} | which letter is at the start of {x}
what letter do i write first in {x} | name the first letter of {x} | say the first letter of {x}
give me the first letter of {x} | {x} starts with which letter | {x} begins with what letter
i forgot the first letter of {x} | do you know the first letter of {x} | what is the letter that {x} starts with
help me with the first letter of {x} | ~what the first letter of {x} is | ~which letter {x} begins with
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
what number of letters does {x} have | {x} has how many letters | the word {x} has how many letters
in {x} there are how many letters | how many letters do you need to write {x} | how many letters do i need for {x}
how many letters make {x} | how many letters can you count in {x} | how many letters long is {x}
how many letters long is the word {x} | how long is the word {x} | tell me the number of letters in {x}
say how many letters are in {x} | i forgot how many letters {x} has | do you know how many letters {x} has
count the letters of {x} | help me count the letters of {x} | =the number of letters in {x}
~how many letters are in {x} | ~how long the word {x} is
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
what goes well with {x} as a rhyme | what word could i use as a rhyme for {x} | which word makes a rhyme with {x}
i need a rhyme for {x} | i need a word that rhymes with {x} | i want a word that rhymes with {x}
i want a rhyme for {x} | help me find a rhyme for {x} | find a rhyme for {x} | find a word that rhymes with {x}
make a rhyme with {x} | make a rhyme for {x} | do you know a rhyme for {x}
do you know a word that rhymes with {x} | say a rhyme for {x} | can you find a word that rhymes with {x}
my poem ends with {x} what rhymes with it | {x} rhymes with what | {x} rhymes with which word
what would be a rhyme for {x} | ~which word rhymes with {x} | ~what word rhymes with {x}
=a word that rhymes with {x}
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
what would be the plural of {x} | what do you call more than one {x} | how do you say more than one {x}
how do you call two of them if one is {x} | how do i make the plural of {x} | how do i write the plural of {x}
what do i say for many if one is {x} | what is the word for more than one {x} | one {x} but two what
one {x} and many what | if i have one {x} and get another what do i have | do you know the plural of {x}
i forgot the plural of {x} | i need the plural of {x} | help me with the plural of {x} | the plural of {x} is what
which word is the plural of {x} | what word is the plural of {x} | ~what word is the plural of {x} | =plural of {x}
put {x} in the plural
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
what would be the past tense of {x} | what do i say for {x} in the past | what do you say for {x} in the past tense
how do you say {x} in the past tense | how do you say {x} in the past | how do i write {x} in the past tense
how do you make the past tense of {x} | what is {x} in the past tense | what is {x} in the past
today i {x} but yesterday i did what | put {x} in the past tense | put the verb {x} into the past
say {x} in the past tense | which word is the past tense of {x} | what word is the past tense of {x}
do you know the past tense of {x} | i forgot the past tense of {x} | i need the past tense of {x}
help me with the past tense of {x} | the past tense of {x} is what | ~what word is the past tense of {x}
~how to say {x} in the past tense | =the past tense of the verb {x}
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
what does {w} mean | what do we mean by {w} | what do you mean by {w} | what do people mean by {w}
how would you describe {x} | how do you explain {x} | how do you define {w} | what is the meaning of {w}
tell me what {x} is | say what {x} is | say what the word {w} means | tell me what the word {w} means
i want to know about {x} | i do not know what {x} is | i do not know the word {w} | i forgot what {x} is
i forgot what {w} means | help me understand the word {w} | what should i know about {x}
do you know what {w} means | can you explain {x} | can you describe {x} | explain {x} | describe what {x} is
teach me what {x} is | ~what the word {w} means | ~what {w} means
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
i want you to say {x} | i want to hear you say {x} | i want to hear {x} | can you repeat {x}
listen and repeat {x} | listen and say {x} | now say {x} | now repeat {x} | please repeat {x} | please say {x}
please say the words {x} | repeat what i say {x} | say what i say {x} | do as i do and say {x} | repeat it {x}
say it with me {x} | =here are the words to repeat {x}
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
