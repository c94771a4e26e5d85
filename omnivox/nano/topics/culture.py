"""Who made what, where it stands, what it is made of, who does what, what kind of thing it is: pairs from one table."""

from __future__ import annotations

from omnivox.nano.topics.phrasing import Relation, relation, table

# Relation: topic, answer, weight of each pair, templates.
RELATIONS: dict[str, tuple[str, str, float, str]] = {
    "wrote": (
        "people",
        "{y} wrote {x}.",
        0.9,
        """
        who wrote {x} | who is the author of {x} | which author wrote {x} | who is the writer of {x}
        by whom was {x} written | tell me the author of {x} | name the author of {x} | ~who wrote {x}
        ~who the author of {x} is | who was it that wrote {x} | who is the person who wrote {x}
        who was the author of {x} | who was the writer of {x} | who is {x} by | whose book is {x}
        whose work is {x} | by which author is {x} | from which author is {x} | which man or woman wrote {x}
        i forgot who wrote {x} | i read {x} who wrote it | i want to know the author of {x}
        do you know the author of {x} | say who wrote {x} | the author of {x} is who | the author of {x} was who
        {x} was written by whom | {x} is by which author | find the author of {x} | ~who the writer of {x} was
        ~by whom {x} was written | =the author of {x} | =the writer of {x}
        *what writer wrote {x}
        *which writer wrote {x}
        *give me the author of {x}""",
    ),
    "painted": (
        "people",
        "{y} painted {x}.",
        0.9,
        """
        who painted {x} | who is the painter of {x} | which artist painted {x} | which painter painted {x}
        by whom was {x} painted | tell me the painter of {x} | ~who painted {x} | ~which artist painted {x}
        who was it that painted {x} | who is the person who painted {x} | who is the artist of {x}
        who was the artist of {x} | who was the painter of {x} | who made the picture {x} | whose picture is {x}
        whose work is {x} | by which painter is {x} | by which artist is {x} | i forgot who painted {x}
        i see {x} who painted it | i want to know the painter of {x} | do you know the painter of {x}
        say who painted {x} | the painter of {x} is who | {x} was painted by whom | {x} was painted by which artist
        {x} is by which artist | ~who the painter of {x} was | ~by whom {x} was painted | =the artist of {x}
        *what artist painted {x}
        *name the painter of {x}""",
    ),
    "composed": (
        "people",
        "{y} composed {x}.",
        0.9,
        """
        who composed {x} | who is the composer of {x} | which composer wrote {x} | who wrote the music of {x}
        by whom was {x} composed | ~who composed {x} | tell me the composer of {x} | what composer wrote {x}
        who was it that composed {x} | who is the person who composed {x} | who was the composer of {x}
        who made the music of {x} | whose music is {x} | whose work is {x} | by which composer is {x}
        by which musician is {x} | from which composer is {x} | i forgot who composed {x}
        i hear {x} who composed it | i listen to {x} who wrote the music | i want to know the composer of {x}
        do you know the composer of {x} | say who composed {x} | the composer of {x} is who
        {x} was composed by whom | {x} is by which composer | ~who the composer of {x} is
        ~who wrote the music of {x} | ~by whom {x} was composed
        *which composer composed {x}
        *name the composer of {x}""",
    ),
    "invented": (
        "people",
        "{y} invented {x}.",
        0.9,
        """
        who invented {x} | who is the inventor of {x} | who was the inventor of {x} | which inventor made {x}
        by whom was {x} invented | ~who invented {x} | tell me the inventor of {x} | ~who the inventor of {x} was
        who was it that invented {x} | who first invented {x} | who was the first to make {x}
        who was the first to build {x} | who is the man or woman who invented {x} | who made {x} for the first time
        who thought of {x} first | which inventor gave us {x} | who gave us {x} | i forgot who invented {x}
        i want to know the inventor of {x} | do you know the inventor of {x} | say who invented {x}
        {x} was invented by whom | {x} was invented by which inventor | the inventor of {x} was who
        ~who was the inventor of {x} | ~by whom {x} was invented
        *which person invented {x}
        *name the inventor of {x}""",
    ),
    "discovered": (
        "people",
        "{y} discovered {x}.",
        0.9,
        """
        who discovered {x} | who is the discoverer of {x} | which person discovered {x}
        by whom was {x} discovered | ~who discovered {x} | tell me who discovered {x} | who first discovered {x}
        who was the discoverer of {x} | who was it that discovered {x} | who found {x} first
        who was the first to find {x} | which scientist discovered {x} | which man or woman discovered {x}
        i forgot who discovered {x} | i want to know who discovered {x} | do you know the discoverer of {x}
        say who discovered {x} | {x} was discovered by whom | {x} was discovered by which person
        the discoverer of {x} was who | tell me the discoverer of {x} | name the discoverer of {x}
        find the discoverer of {x} | ~who the discoverer of {x} was | ~by whom {x} was discovered
        =the discoverer of {x}
        *what person discovered {x}
        *which person first discovered {x}""",
    ),
    "scientist": (
        "people",
        "{x} was {y}.",
        0.9,
        """
        who was {x} | ~who {x} was | tell me about {x} | what was {x} | what was {x} famous for | why is {x} famous
        what do you know about {x} | what is {x} famous for | what did {x} do | who was this {x}
        who exactly was {x} | who is {x} | what kind of person was {x} | what was the job of {x}
        what was the work of {x} | what kind of work did {x} do | what should i know about {x}
        what can you say about {x} | what do people know {x} for | i want to know about {x}
        i want to know who {x} was | i forgot who {x} was | do you know {x} | have you heard of {x}
        say who {x} was | explain who {x} was | describe {x} | tell me who {x} was | {x} was who
        what made {x} famous | what did {x} do in life | ~what {x} did | ~what {x} was famous for
        *why was {x} famous
        *for what was {x} famous
        *tell me something about {x}""",
    ),
    "landmark": (
        "earth",
        "{x} is in {y}.",
        0.9,
        """
        where is {x} | ~where {x} is | where can i find {x} | where would i find {x} | where do you find {x}
        where can i see {x} | in which place is {x} | tell me where to find {x} | where does one find {x}
        where do people go to see {x} | where do i go to see {x} | where should i go to see {x}
        where do i have to travel to see {x} | where in the world is {x} | where on earth is {x}
        in what part of the world is {x} | where exactly is {x} | in which city or country is {x}
        where could i find {x} | i want to see {x} where is it | i want to travel to {x} where is it
        i forgot where {x} is | do you know where {x} is | say where {x} is | tell me where {x} is
        show me where {x} is | find {x} for me where is it | {x} is where | {x} is in which place
        ~where i can see {x} | ~where to find {x} | ~where in the world {x} is | =the place where {x} is
        *where can you see {x}
        *in what place is {x}
        *where would i see {x}""",
    ),
    "year": (
        "history",
        "{x} in {y}.",
        0.9,
        """
        when {d} | in what year {d} | in which year {d} | tell me when {x} | ~when {x}
        in what year was it that {x} | in which year was it that {x} | when was it that {x}
        what was the year when {x} | tell me the year when {x} | which was the year when {x}
        ~in which year it was that {x} | what year was it when {x} | when was the year that {x}
        in what year was the time when {x} | which is the year in which {x} | what is the year in which {x}
        tell me the year in which {x} | name the year in which {x} | say when {x} | say in which year {x}
        i forgot when {x} | i want to know when {x} | i want to know in which year {x}
        do you know in which year {x} | do you know the year when {x} | help me when {d} | find the year when {x}
        {x} when was that | {x} in what year | {x} in which year | ~in which year {x} | ~in what year {x}
        =the year when {x}
        *what year {d}
        *which year was it when {x}
        *give me the year when {x}""",
    ),
    "made": (
        "daily",
        "{x} is made from {y}.",
        0.9,
        """
        what is {x} made of | what is {x} made from | what do you make {x} from | what do you need to make {x}
        ~what {x} is made of | ~what {x} is made from | what do people make {x} from | from what is {x} made
        what goes into {x} | what do i need for {x} | what do you need for {x}
        what do i need if i want to make {x} | what do you have to have to make {x} | what do you take to make {x}
        what can you make {x} from | how is {x} made | from what do you make {x} | from what do people make {x}
        out of what is {x} made | where does {x} come from | i want to make {x} what do i need
        i forgot what {x} is made of | do you know what {x} is made from | say what {x} is made of
        tell me what {x} is made from | explain what {x} is made from | {x} is made of what | {x} is made from what
        ~what people make {x} from | ~what you need to make {x} | ~how {x} is made | what is {x} made out of
        *what do we make {x} from
        *what do people need to make {x}""",
    ),
    "job": (
        "daily",
        "{x} {y}.",
        0.9,
        """
        what does {x} do | what is the job of {x} | what is the work of {x} | ~what {x} does
        what does {x} do at work | what kind of work does {x} do | explain what {x} does | describe the job of {x}
        what does {x} do for work | what does one do as {x} | what would i do as {x}
        what do you do if you are {x} | what kind of work is done by {x} | what do we need {x} for
        why do people need {x} | why do we need {x} | how does {x} help people
        i want to become {x} what would i do | i forgot what {x} does | do you know what {x} does
        say what {x} does | tell me what {x} does | tell me about the work of {x} | describe what {x} does
        explain the job of {x} | explain the work of {x} | ~what {x} does at work | ~what the job of {x} is
        =the job of {x}
        *what does {x} do all day
        *what kind of job does {x} have""",
    ),
    "tool": (
        "daily",
        "you can {x} with {y}.",
        0.9,
        """
        what do you need to {x} | what do i need to {x} | what do you use to {x} | which tool do i need to {x}
        what can i use to {x} | ~what i need to {x} | with what do you {x} | what should i use to {x}
        which tool do you use to {x} | what is the right tool to {x} | which thing do i need to {x}
        which thing do you use to {x} | what would you use to {x} | what would i need to {x}
        what should i take to {x} | what should i buy to {x} | what does one need to {x} | what does one use to {x}
        what is good to {x} with | what can you {x} with | what can i {x} with | what do i {x} with
        with what can i {x} | with what should i {x} | if i want to {x} what do i need
        i want to {x} what do i need | i want to {x} what should i take | i have to {x} what do i use
        i forgot what i need to {x} | find me something to {x} with | give me something to {x} with
        name a tool to {x} | tell me what i need to {x} | ~what to use to {x} | ~what you need to {x}
        =something to {x} with
        *what tool do i need to {x}
        *what do people use to {x}""",
    ),
    "kind": (
        "kinds",
        "{x} is {y}.",
        0.8,
        """
        what is {x} | what kind of thing is {x} | what sort of thing is {x} | what type of thing is {x}
        ~what kind of thing {x} is | tell me what kind of thing {x} is | which kind of thing is {x}
        is {x} an animal a plant or a thing | what is {x} a kind of | what exactly is {x}
        in which group of things is {x} | what kind of a thing would {x} be | what can you tell me about {x}
        what should i know about {x} | tell me what {x} is | say what {x} is | say what kind of thing {x} is
        explain what {x} is | explain what kind of thing {x} is | describe {x} | i do not know what {x} is
        i forgot what {x} is | i want to know about {x} | i see {x} what is that | do you know what {x} is
        {x} is what kind of thing | {x} is a kind of what | ~what {x} is | ~what sort of thing {x} is
        ~what {x} is a kind of | what type of thing would {x} be
        *what is the kind of thing that {x} is
        *which sort of thing is {x}""",
    ),
    "symbol": (
        "science",
        "the symbol for {x} is {y}.",
        0.9,
        """
        what is the chemical symbol for {x} | what is the symbol for {x} | what is the chemical symbol of {x}
        tell me the chemical symbol for {x} | give me the symbol for {x} | ~what the chemical symbol for {x} is
        =the chemical symbol for {x} | what letters stand for {x} | how do you write {x} as a symbol
        what is the sign for {x} | what symbol does {x} have | which symbol does {x} have
        what letters do i write for {x} | which letters stand for {x} | what is the symbol of the element {x}
        what is the chemical symbol of the element {x} | i forgot the symbol for {x}
        i need the chemical symbol for {x} | do you know the symbol for {x}
        do you know the chemical symbol for {x} | say the chemical symbol for {x}
        find the chemical symbol for {x} | the symbol for {x} is what | {x} has which chemical symbol
        ~what the symbol for {x} is | ~which letters stand for {x} | =the symbol for {x}
        *name the chemical symbol of {x}
        *tell me the symbol of {x}""",
    ),
    "planet": (
        "science",
        "{y} is the {x} planet from the sun.",
        0.9,
        """
        what is the {x} planet from the sun | which is the {x} planet from the sun
        which planet is the {x} planet from the sun | name the {x} planet from the sun
        tell me the {x} planet from the sun | ~what the {x} planet from the sun is | =the {x} planet from the sun
        which planet is {x} from the sun | what would be the {x} planet from the sun
        what do you call the {x} planet from the sun | what is the name of the {x} planet from the sun
        which one is the {x} planet from the sun | which planet comes {x} from the sun
        counting from the sun which planet is {x} | counting from the sun what is the {x} planet
        if you start at the sun which is the {x} planet | from the sun which planet is the {x}
        do you know the {x} planet from the sun | i forgot the {x} planet from the sun
        say the {x} planet from the sun | find the {x} planet from the sun
        the {x} planet from the sun is which planet | the {x} planet from the sun is what
        help me with the {x} planet from the sun | ~which planet comes {x} from the sun
        ~which planet is the {x} from the sun | ~what the {x} planet from the sun is called
        *what planet is {x} from the sun
        *give me the {x} planet from the sun""",
    ),
    "sport": (
        "sports",
        "in {x} there are {y} players on a team.",
        0.9,
        """
        how many players are on a {x} team | how many players does a {x} team have
        how many people play on a {x} team | how many players are there on a {x} team
        ~how many players are on a {x} team | how big is a {x} team | how many players are in a {x} team
        =the number of players on a {x} team | how many players make up a {x} team
        how many players do you need for a {x} team | how many people do you need for a {x} team
        how many people make a {x} team | how many players play on a {x} team | how many play on one {x} team
        how many players does one {x} team have | in {x} how many players are on a team
        in {x} how many people play on a team | in {x} a team has how many players
        a {x} team has how many players | what is the number of players on a {x} team
        what number of players does a {x} team have | tell me the number of players on a {x} team
        say how many players a {x} team has | do you know how many players a {x} team has
        i forgot how many players a {x} team has | i want to make a {x} team how many players do i need
        count the players on a {x} team | ~how many players a {x} team has | ~how big a {x} team is
        *how many people are on a {x} team
        *how many players has a {x} team""",
    ),
    "part": (
        "body",
        "you {x} with your {y}.",
        0.9,
        """
        what do you {x} with | what do we {x} with | with what do you {x} | with what part of the body do you {x}
        which part of the body do you {x} with | what part of the body do you {x} with | ~what you {x} with
        what do people {x} with | which part of the body helps you to {x} | what part of me do i use to {x}
        what part of your body do you use to {x} | what do you use to {x} | what do we use to {x}
        what do i {x} with | what does a person {x} with | with what do we {x} | with what do people {x}
        with what does a person {x} | with what part of the body do people {x}
        how do you {x} with which part of the body | you {x} with what | you {x} with which part of the body
        i {x} with which part of my body | do you know what you {x} with | i forgot what we {x} with
        say what you {x} with | name the part of the body to {x} with | tell me what you {x} with
        when you {x} which part of the body works | ~what we {x} with | ~which part of the body you {x} with
        =the part of the body you {x} with
        *with which part of the body do you {x}
        *which part of the body do we {x} with""",
    ),
}


def relations() -> list[Relation]:
    """One relation for each kind of pair in the table."""
    rows: dict[str, list[dict[str, str]]] = {name: [] for name in RELATIONS}
    for name, x, y in table("pairs"):
        told, _, asked = x.partition(" / ")
        rows[name].append({"x": told, "d": asked, "y": y})
    return [
        relation(topic, templates, rows[name], answer, each * len(rows[name]))
        for name, (topic, answer, each, templates) in RELATIONS.items()
    ]
