"""Word and character errors of speech: of nano's own listener, and of a Whisper of random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from omnivox.errors import CheckpointError, ConfigError
from omnivox.evaluate.alignment import (
    CharacterErrors,
    DomainTranscriber,
    OpenTranscriber,
    Transcriber,
    WordErrors,
    corpus_rate,
    transcriber,
)
from omnivox.evaluate.measure import Answer, Value
from omnivox.sound import read_audio
from tests.data.test_recognise import whisper_folder
from tests.evaluate.sounds import noise

__all__ = ["whisper_folder"]  # a fixture


class Scribe(OpenTranscriber):
    """Compares as Whisper does, and hears what is written at the place that the first sample names."""

    def __init__(self, *heard: str) -> None:
        Transcriber.__init__(self)
        self.heard, self.times = heard, 0

    def settings(self) -> dict[str, str]:
        return {"recogniser": "scribe"}

    def _listen(self, wave: Tensor) -> str:
        self.times += 1
        return self.heard[round(float(wave[0]))]


def answer(text: str, sound: int | None, identity: str = "a") -> Answer:
    return Answer(identity, "?", text, None if sound is None else torch.full((4,), float(sound)))


def test_edits_and_words_are_counted_as_whispers_normaliser_writes_them() -> None:
    scribe = Scribe("the capital of france is paris", "Mr. Smith has 2 dog", "")
    answers = [answer("The capital of France is Paris!", 0), answer("Mister Smith has two dogs.", 1),
               answer("Two words.", 2)]
    right, one, nothing = WordErrors(scribe).measure(answers)
    assert right == Value(0.0, None, {"edits": 0, "words": 6, "heard": "the capital of france is paris"})
    assert one == Value(0.2, None, {"edits": 1, "words": 5, "heard": "Mr. Smith has 2 dog"})
    assert nothing == Value(1.0, None, {"edits": 2, "words": 2, "heard": ""})
    assert corpus_rate([right, one, nothing]) == 3 / 13  # not the mean, 0.4
    characters = CharacterErrors(scribe).measure(answers)
    assert characters[1].detail["edits"] == 1
    assert characters[1].detail["characters"] == len("mister smith has 2 dogs")
    assert corpus_rate(characters) == pytest.approx((0 + 1 + len("2 words")) / (30 + 23 + 7))
    assert scribe.times == 3  # for both measures


def test_more_may_be_heard_than_was_written() -> None:
    [value] = WordErrors(Scribe("a b c d e f")).measure([answer("f", 0)])
    assert value.value == 5.0


def test_what_cannot_be_measured_has_a_reason_and_does_not_count() -> None:
    values = WordErrors(Scribe("a b")).measure([answer("", 0), answer("…!", 0), answer("a b", None), answer("a c", 0)])
    assert [value.why for value in values] == ["the text answer holds no words", "the text answer holds no words",
                                               "nothing was spoken", None]
    assert corpus_rate(values) == 0.5
    assert corpus_rate(values[:3]) is None


def test_speech_that_is_empty_misses_every_word() -> None:
    scribe = Scribe()
    [value] = WordErrors(scribe).measure([Answer("a", "?", "Three little words.", torch.zeros(0))])
    assert value == Value(1.0, None, {"edits": 3, "words": 3, "heard": ""})


def test_nanos_listener_hears_nanos_words(question: Path) -> None:
    pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed")
    ear = DomainTranscriber()
    said = read_audio(question)  # "What is the capital of France?"
    answers = [Answer("a", "?", "The capital of France is Paris.", said),
               Answer("b", "?", "Blorxt the capital.", said), Answer("c", "?", "The capital.", torch.zeros(8000))]
    first = WordErrors(ear).measure(answers)
    assert first == WordErrors(DomainTranscriber()).measure(answers)
    assert {"capital", "france"} & set(first[0].detail["heard"].split())
    assert first[0].detail["words"] == 6
    assert first[0].value is not None
    assert 0 < first[0].value <= 1.5
    assert first[1] == Value(None, "the text answer has words that the listener does not know: blorxt")
    assert first[2].value == 1.0
    assert str(WordErrors(ear).settings()["model"]).startswith("pocketsphinx")


def test_whisper_transcribes_through_transformers(whisper_folder: Path) -> None:
    ear = transcriber(f"whisper:{whisper_folder}")
    answers = [Answer("a", "?", "Hello there.", noise(1.0)),
               Answer("b", "?", "Hello there.", noise(1.0, 24_000), 24_000)]
    first = WordErrors(ear).measure(answers)
    assert first == WordErrors(transcriber(f"whisper:{whisper_folder}")).measure(answers)
    assert all(value.value is not None and value.value >= 0.5 for value in first)  # it knows nothing
    assert ear.settings() == {"recogniser": "whisper", "model": str(whisper_folder), "language": "en",
                              "normaliser": "whisper english"}


def test_what_is_missing_is_told_when_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no Whisper that can be read"):
        transcriber(f"whisper:{tmp_path}")
    with pytest.raises(CheckpointError, match="check the name, the network"):
        transcriber("whisper:nobody/has-this")
    for spec in ("none", "kaldi", "pocketsphinx:large", "whispering"):
        with pytest.raises(ConfigError, match=f"found '{spec}'; expected whisper:NAME, faster-whisper:NAME or pocket"):
            transcriber(spec)
