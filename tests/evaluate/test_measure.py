"""What a measure may say, what speech is to it, and how fast an answer is spoken."""

from __future__ import annotations

import pytest
import torch

from omnivox.evaluate.measure import Answer, Value, of_speech, speech
from omnivox.evaluate.pace import count_words, lagging_words, words_per_second
from tests.evaluate.sounds import tone


def test_a_value_is_a_number_or_a_reason() -> None:
    assert Value(1.0).detail == {}
    with pytest.raises(AssertionError):
        Value(None)
    with pytest.raises(AssertionError):
        Value(1.0, "why")
    with pytest.raises(AssertionError):
        Value(float("nan"))


def test_speech_is_mono_at_16_khz() -> None:
    assert speech(Answer("a", "?", "x")) is None
    empty = speech(Answer("a", "?", "x", torch.zeros(0), 24_000))
    assert empty is not None
    assert not len(empty)
    converted = speech(Answer("a", "?", "x", tone(1.0, 24_000), 24_000))
    assert converted is not None
    assert len(converted) == 16_000
    torch.testing.assert_close(converted[1000:-1000], tone(1.0)[1000:-1000], atol=1e-3, rtol=0)


def test_a_sound_that_cannot_be_read_is_a_reason_and_stops_nothing() -> None:
    bad, good = torch.tensor([0.0, torch.inf]), torch.zeros(5)
    values = of_speech([Answer("a", "?", "x", bad), Answer("b", "?", "x"), Answer("c", "?", "x", good)],
                       lambda answer, wave: Value(len(wave), None, {"id": answer.id}))
    assert values[0].value is None
    assert "1 of 2 samples are NaN or infinite" in str(values[0].why)
    assert values[1] == Value(None, "nothing was spoken")
    assert values[2] == Value(5, None, {"id": "c"})


def test_words_hold_a_letter_or_a_digit() -> None:
    assert count_words("Well - it's 3 o'clock, isn't it?") == 6
    assert count_words(" — … ") == 0


def test_words_per_second_are_of_the_text_answer() -> None:
    assert words_per_second("one two three", 1.5) == 2.0
    assert words_per_second("", 1.5) is None
    assert words_per_second("one", 0.0) is None


def test_a_word_lags_from_its_first_letter_on() -> None:
    assert [lagging_words(text) for text in ("", "The", "The cap", "The capital ")] == [0, 1, 2, 2]
