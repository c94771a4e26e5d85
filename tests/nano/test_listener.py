"""The recogniser that judges nano's voice."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest

from omnivox.errors import ConfigError
from omnivox.nano import listener, voices
from omnivox.nano.listener import Listener

TEXTS = ["Seven plus two is nine.", "The colour of grass is green, too.", "Is it?", "A zzyzx has a zzyzxlet!"]


def test_words_are_those_that_are_spoken() -> None:
    assert listener.words("I don't know: seven, EIGHT!") == ["i", "don't", "know", "seven", "eight"]


def test_a_lexicon_keeps_every_pronunciation_in_order() -> None:
    lines = ["a AH", "a(2) EY", "ab AE B", "b B IY"]
    assert listener.read_lexicon(lines, {"a", "b"}) == {"a": ["AH", "EY"], "b": ["B IY"]}


def test_the_language_model_is_a_distribution_between_flat_and_counted() -> None:
    counts = listener.word_counts(["a b", "a c", "a a"])
    for believed, wanted in ((0.0, {"a": 0.25, "b": 0.25}), (1.0, {"a": 0.85 * 4 / 6, "b": 0.85 / 6})):
        arpa = listener.language_model(counts, max(believed, 1e-9))
        rows = [row.split() for row in arpa.split("1-grams:\n")[1].split("\n\n")[0].splitlines()]
        shares = {word: 10 ** float(share) for share, word in rows}
        shares.pop("<s>")
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-3)
        assert {word: shares[word] for word in wanted} == pytest.approx(wanted, abs=1e-3)


def test_a_missing_recogniser_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(ConfigError, match=r"pocketsphinx is missing; install it with: pip install 'omnivox\[nano\]'"):
        Listener(TEXTS)


class TestListening:
    @pytest.fixture(autouse=True)
    def _needs_pocketsphinx(self) -> None:
        pytest.importorskip("pocketsphinx")

    def test_words_that_sound_the_same_are_one(self) -> None:
        heard = Listener(TEXTS)
        assert heard.reference("two is too") == heard.reference("Too is two!")

    def test_words_without_a_pronunciation_cannot_be_scored(self) -> None:
        assert Listener(TEXTS).reference("A zzyzx is green") is None
        told = Listener(TEXTS, {"zzyzx": ["Z IH Z IH K S"]})
        assert told.reference("A zzyzx is green") == ["a", "zzyzx", "is", "green"]

    def test_no_sound_and_silence_hold_no_words(self) -> None:
        heard = Listener(TEXTS)
        assert heard.transcribe(np.zeros(0, np.float32)) == []
        assert heard.transcribe(np.zeros(16000, np.float32)) == []

    @pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
    def test_it_hears_the_answer_voice_whatever_came_before_and_at_any_rate(self) -> None:
        heard = Listener(TEXTS)
        spoken = voices.speak(voices.ANSWER_VOICE, TEXTS[0])
        assert heard.transcribe(spoken) == heard.reference(TEXTS[0])
        heard.transcribe(np.random.default_rng(0).standard_normal(16000).astype(np.float32))
        assert heard.transcribe(np.repeat(spoken, 2), rate=32000) == heard.reference(TEXTS[0])
