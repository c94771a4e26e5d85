"""The voice behind a writing system: which pieces are said, when, and who is asked to say them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnivox.errors import CheckpointError, ConfigError, DataError
from omnivox.nano.voices import ANSWER_VOICE, Samples, speak
from omnivox.runtime.events import Audio, Text
from omnivox.systems.tts import TTS, Pieces, by_sentence, by_words, find_tts, offline, spoken
from tests.data.speaking import ASKING, Hum, serving
from tests.data.speaking import spoken as speech
from tests.data.test_speak import vits_folder  # noqa: F401  # a fixture

TEXT = "Hello there. It is three o'clock, I think... Or is it? Yes."


class Noting(Hum):
    """A speaker that keeps what it was given to say."""

    def __init__(self) -> None:
        super().__init__({"any": ("one",)})
        object.__setattr__(self, "said", [])

    def speak(self, text: str, voice: str, seed: int | None) -> Samples:
        self.said.append(text)  # type: ignore[attr-defined]
        return super().speak(text, voice, seed)


def said(make: type[Pieces] | object, pieces: Iterator[str]) -> tuple[list[str], torch.Tensor]:
    speaker = Noting()
    sound = list(make(speaker).speak(pieces))  # type: ignore[operator]
    return speaker.said, torch.cat([torch.empty(0), *sound])  # type: ignore[attr-defined]


WAYS = {
    "offline": (offline, [TEXT]),
    "sentence": (by_sentence, ["Hello there.", "It is three o'clock, I think...", "Or is it?", "Yes."]),
    "words:5": (lambda speaker: by_words(speaker, 5), ["Hello there. It is three", "o'clock, I think... Or is",
                                                       "it? Yes."]),
    "words:1": (lambda speaker: by_words(speaker, 1), TEXT.split()),
}


@pytest.mark.parametrize("way", WAYS)
@given(cuts=st.lists(st.integers(0, len(TEXT)), max_size=8))
@settings(deadline=None, max_examples=40)
def test_the_pieces_do_not_depend_on_how_the_text_came(way: str, cuts: list[int]) -> None:
    make, expected = WAYS[way]
    places = [0, *sorted(cuts), len(TEXT)]
    found, sound = said(make, (TEXT[a:b] for a, b in pairwise(places)))
    assert found == expected
    assert len(sound) == sum(4800 * len(piece.split()) for piece in expected)


@pytest.mark.parametrize("way", WAYS)
def test_white_space_and_what_cannot_be_said_is_not_said(way: str) -> None:
    found, sound = said(WAYS[way][0], iter(["  \n", "...", " ", "—", "\n"]))
    assert (found, len(sound)) == ([], 0)
    assert said(WAYS[way][0], iter([]))[0] == []
    assert " ".join(said(WAYS[way][0], iter(["one\n\n", "two ", " three"]))[0]).split() == ["one", "two", "three"]


def test_what_is_written_is_shown_before_it_is_spoken() -> None:
    events = [event.delta if isinstance(event, Text) else len(event.samples) // 4800
              for event in spoken(iter(["One. ", "Two ", "three. ", "Four."]), by_sentence(Hum({"any": ("one",)})))]
    assert events == ["One. ", "Two ", 1, "three. ", "Four.", 2, 1]
    events = [type(event) for event in spoken(iter(["One. ", "Two."]), offline(Hum({"any": ("one",)})))]
    assert events == [Text, Text, Audio]


def test_a_voice_that_yields_no_emptiness_loses_no_text() -> None:
    class Silent:
        sample_rate = 16_000

        def settings(self) -> dict[str, str]:
            return {}

        def speak(self, words: Iterator[str]) -> Iterator[torch.Tensor]:
            yield from (torch.ones(1) for _ in [list(words)])

    events = list(spoken(iter(["a", "b"]), Silent()))
    assert [event.delta for event in events if isinstance(event, Text)] == ["a", "b"]
    assert isinstance(events[-1], Audio)


def test_settings_say_who_and_how() -> None:
    speaker = Hum({"any": ("one",)})
    assert offline(speaker).settings() == {"engine": "hum", "voice": "one", "say": "offline"}
    assert by_sentence(speaker).settings()["say"] == "sentence"
    assert by_words(speaker, 3).settings()["say"] == "words:3"
    assert offline(speaker).sample_rate == 16_000


def test_a_voice_must_be_chosen_and_there() -> None:
    with pytest.raises(ConfigError, match=r"found 3 voices \(f1, f2, m1\); say which one is to answer"):
        offline(ASKING)
    assert by_words(ASKING, 2, "m1").settings()["voice"] == "m1"
    with pytest.raises(ConfigError, match="tts voice: found 'x'; expected one of f1, f2, m1"):
        by_sentence(ASKING, "x")
    with pytest.raises(ConfigError, match="say: found words:0; expected 1 word or more"):
        by_words(ASKING, 0, "m1")
    with pytest.raises(DataError, match="cannot be hummed"):
        list(offline(ASKING, "m1").speak(iter(["unspeakable"])))


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_nanos_voice() -> None:
    tts = find_tts(ANSWER_VOICE.label)
    *_, sound = tts.speak(iter(["Good ", "morning."]))
    assert torch.equal(sound, torch.from_numpy(speak(ANSWER_VOICE, "Good morning.")))
    for say in ("loud", "words", "words:x", "words:"):
        with pytest.raises(ConfigError, match=f"say: found '{say}'; expected offline, sentence, or words:N"):
            find_tts("flite:rms", say)
    with pytest.raises(ConfigError, match="say: found words:-1"):
        find_tts("flite:rms", "words:-1")


def test_a_server_speaks_once_before_it_is_needed() -> None:
    with serving(lambda body, _: speech(body)) as (url, api):
        tts: TTS = find_tts("server", "sentence", voice="nova", url=url, model="kokoro", api_key="secret")
        assert [body["input"] for body in api.bodies] == ["Ready."]
        assert sum(len(piece) > 0 for piece in tts.speak(iter(["One. Two."]))) == 2
        assert [body["input"] for body in api.bodies] == ["Ready.", "One.", "Two."]
        assert {body["voice"] for body in api.bodies} == {"nova"}
        assert "secret" not in str(tts.settings())


def test_vits_speaks_by_one_of_its_voices(vits_folder: Path) -> None:  # noqa: F811
    sounds = [torch.cat(list(find_tts(f"vits:{vits_folder}", "sentence", voice=voice).speak(iter(["what is it?"]))))
              for voice in ("0", "0", "1")]
    assert len(sounds[0])
    assert torch.equal(sounds[0], sounds[1])
    assert not torch.equal(sounds[0], sounds[2])
    with pytest.raises(ConfigError, match=r"voice: found '7'; .* has 2, numbered from 0"):
        find_tts(f"vits:{vits_folder}", voice="7")


def test_what_is_missing_is_named_with_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"150 MB\): hf download kakao-enterprise/vits-ljs --local-dir"):
        find_tts("vits:kakao-enterprise/vits-ljs")
    with pytest.raises(CheckpointError, match=re.escape(f"hf download kakao-enterprise/vits-ljs --local-dir "
                                                        f"{tmp_path / 'none'}")):
        find_tts(f"vits:{tmp_path / 'none'}")
    with pytest.raises(CheckpointError, match="no such file") as found:
        find_tts(f"vits:{tmp_path}")  # a folder that is there, and is none
    assert "hf download" not in str(found.value)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="flite: no such program; install it with: apt-get install flite"):
        find_tts("flite:rms")
