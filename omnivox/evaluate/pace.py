"""How fast an answer is spoken, and how far its speech trails its text."""

from __future__ import annotations


def count_words(text: str) -> int:
    """Pieces between white space that hold a letter or a digit."""
    return sum(any(character.isalnum() for character in piece) for piece in text.split())


def words_per_second(text: str, seconds: float) -> float | None:
    """The paper's speech rate (v2, its table of chunk sizes: 2.73 to 2.76): words of the text answer by the seconds of
    speech, silence included. None where nothing was written or spoken. Over many answers: of all their words and all
    their seconds."""
    count = count_words(text)
    return count / seconds if count and seconds > 0 else None


def lagging_words(written: str) -> int:
    """The paper's lagging words (v1): how many words could be read when the first sound could be heard. `written` is
    the text that had come by then; a word counts from its first letter on."""
    return count_words(written)
