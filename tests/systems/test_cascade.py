"""Recogniser, language model, voice: the bundled three, and what may stand in the place of each."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from omnivox.errors import AudioError, CheckpointError, ConfigError
from omnivox.nano.voices import ANSWER_VOICE, speak
from omnivox.runtime.events import Audio, Done, Text
from omnivox.sound import read_audio
from omnivox.systems.cascade import Cascade, OmniEars
from omnivox.systems.find import find_system
from omnivox.systems.llm import OwnLLM
from omnivox.systems.system import Making
from omnivox.systems.tts import by_sentence, by_words, offline
from omnivox.systems.writer import Choosing
from tests import tiny
from tests.data.speaking import Hum
from tests.data.test_local import chain
from tests.data.test_recognise import whisper_folder  # noqa: F401  # a fixture
from tests.systems.laws import lawful, reply

HUM = Hum({"any": ("one",)})
flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")


class Heard:
    """Hears the same in everything."""

    def __init__(self, words: str) -> None:
        self.words = words

    def settings(self) -> Mapping[str, Any]:
        return {"recogniser": "heard"}

    def transcribe(self, wave: Tensor) -> str:
        return self.words


class Says:
    """Says back what it is asked, word by word, for ever if it is told to; `closed` counts the ends."""

    def __init__(self, for_ever: bool = False) -> None:
        self.for_ever, self.closed, self.asked = for_ever, 0, list[str]()

    def settings(self) -> Mapping[str, Any]:
        return {"by": "says"}

    def write(self, question: str, making: Making) -> Generator[str, None, None]:
        self.asked.append(question)
        try:
            while True:
                yield from question.split(" ")[0:1]
                yield from (f" {word}" for word in question.split(" ")[1:])
                if not self.for_ever:
                    return
                yield " "
        finally:
            self.closed += 1


# -- bundled ----------------------------------------------------------------------------------------------------------

@flite
@pytest.mark.parametrize("say", ["offline", "sentence", "words:3"])
def test_the_bundled_one(say: str, question: Path, nano_weights: Path) -> None:
    one = find_system(f"cascade?say={say}")
    given = lawful(one, read_audio(question))
    assert given.text == "The capital of France is Paris."
    assert given.token_ids
    assert 0 < given.timings.encode < given.timings.first_token < given.timings.first_audio
    assert given.timings.prefill > 0
    if say != "words:3":
        assert torch.equal(given.audio, torch.from_numpy(speak(ANSWER_VOICE, given.text)))
    settings = one.settings()
    assert settings["asr"] == {"recogniser": "omni", "model": "nano"}
    assert settings["llm"]["model"] == "nano"
    assert (settings["tts"]["voice"], settings["tts"]["say"]) == (ANSWER_VOICE.label, say)


@flite
def test_words_are_spoken_while_others_are_written(question: Path, nano_weights: Path) -> None:
    kinds = [type(event) for event in find_system("cascade", say="words:2").respond(read_audio(question))]
    assert kinds.count(Audio) == 3
    assert kinds.index(Audio) < len(kinds) - 1 - kinds[::-1].index(Text)


def test_a_checkpoint_of_ours_may_be_the_ears_and_the_llm(tmp_path: Path) -> None:
    omni = tiny.omni(end_ids=())
    omni.save_pretrained(tmp_path / "m")
    name = f"omni:{tmp_path / 'm'}"
    one = Cascade.load(name, asr=name, tts=by_words(HUM, 4), max_new_tokens=12)
    assert isinstance(one.ears, OmniEars)
    assert isinstance(one.llm, OwnLLM)
    assert one.ears.omni is one.llm.omni  # loaded once
    given = lawful(one, tiny.question())
    assert given.text
    *_, done = omni.respond_text(omni.transcribe(tiny.question()), speak=False, max_new_tokens=12)
    assert isinstance(done, Done)
    assert given.text == done.reply.text
    assert given.token_ids == done.reply.token_ids
    assert len(given.audio) == 4800 * len(given.text.split())
    hot = [OwnLLM(omni, "m", Choosing(temperature=3.0, seed=seed, max_new_tokens=12)) for seed in (1, 1, 2)]
    texts = [reply(Cascade(one.ears, llm, one.tts), tiny.question()).text for llm in hot]
    assert texts[0] == texts[1] != texts[2]


def test_ears_that_cannot_transcribe_are_refused() -> None:
    omni = tiny.omni()
    omni.prompt = omni.prompt.from_dict({"before": [1], "after": [4]})
    with pytest.raises(ConfigError, match="asr: mine names no transcription prompt"):
        OmniEars(omni, "mine")


# -- what is heard, written and said ----------------------------------------------------------------------------------

def test_each_part_gets_what_the_one_before_gave() -> None:
    llm = Says()
    one = Cascade(Heard("One two. Three four."), llm, by_sentence(HUM))
    given = lawful(one, tiny.question())
    assert set(llm.asked) == {"One two. Three four."}
    assert given.text == "One two. Three four."
    assert len(given.audio) == 4 * 4800
    assert one.settings() == {"asr": {"recogniser": "heard"}, "llm": {"by": "says"},
                              "tts": {"engine": "hum", "voice": "one", "say": "sentence"}}


@pytest.mark.parametrize("words", ["", "  "])
def test_what_is_not_heard_is_not_answered(words: str) -> None:
    llm = Says()
    given = lawful(Cascade(Heard(words), llm, offline(HUM)), tiny.question())
    assert (given.text, len(given.audio), llm.asked) == ("", 0, [])


def test_an_answer_that_cannot_be_said_is_written_alone() -> None:
    given = lawful(Cascade(Heard("... ?"), Says(), offline(HUM)), tiny.question())
    assert (given.text, len(given.audio)) == ("... ?", 0)


def test_leaving_early_ends_the_writing() -> None:
    llm = Says(for_ever=True)
    events = Cascade(Heard("word and word"), llm, by_words(HUM, 2)).respond(tiny.question())
    while not isinstance(next(events), Audio):
        assert llm.closed == 0
    events.close()  # type: ignore[attr-defined]
    assert llm.closed == 1


def test_a_question_that_cannot_be_heard_is_refused_at_once() -> None:
    one = Cascade(Heard("yes"), Says(), offline(HUM))
    for wave in (torch.empty(0), torch.full((1600,), torch.nan)):
        with pytest.raises(AudioError):
            one.respond(wave)


# -- general ----------------------------------------------------------------------------------------------------------

def test_whisper_and_a_model_of_the_hub(tmp_path: Path, whisper_folder: Path) -> None:  # noqa: F811
    llm = chain(tmp_path / "llm", ['"just', "what", '"so', 'it?",'])
    one = Cascade.load(str(llm), asr=f"whisper:{whisper_folder}", tts=by_words(HUM, 2))
    given = lawful(one, tiny.question())
    assert given.text == '"just what "so it?",'
    assert len(given.audio) == 4 * 4800
    assert given.timings.encode > 0
    assert given.timings.prefill > 0
    assert one.settings()["asr"] == {"recogniser": "whisper", "model": str(whisper_folder), "language": "en"}


@pytest.mark.parametrize(("llm", "settings", "message"), [
    ("nano", {"asr": "ears"}, "asr: found 'ears'; expected nano, omni:MODEL, whisper:NAME or faster-whisper:NAME"),
    ("nano", {"asr": "pocketsphinx"}, "asr: found 'pocketsphinx'"),
    ("nano", {"instructions": "Be brief."}, "instructions: found 'Be brief.'; nano is asked as it was trained"),
    ("nano", {"temperature": -1.0}, "temperature: found -1"),
    ("nano", {"max_new_tokens": 0}, "max_new_tokens: found 0"),
    ("http://127.0.0.1:9/v1", {}, "llm_model: found none; expected the name of a model that http://127.0.0.1:9/v1"),
])
def test_settings_without_sense_are_refused(llm: str, settings: dict[str, Any], message: str, nano_weights: Path
                                            ) -> None:
    with pytest.raises(ConfigError, match=message):
        Cascade.load(llm, tts=offline(HUM), **settings)


def test_weights_that_are_missing_are_named_with_size_and_place(tmp_path: Path, nano_weights: Path) -> None:
    with pytest.raises(CheckpointError, match=r"\(16 GB\): hf download meta-llama/Llama-3.1-8B-Instruct --local-dir"):
        Cascade.load("meta-llama/Llama-3.1-8B-Instruct", tts=offline(HUM))
    with pytest.raises(CheckpointError, match=r"hf download openai/whisper-large-v3 --local-dir openai/whisper-large"):
        Cascade.load("nano", asr="whisper:", tts=offline(HUM))
    with pytest.raises(CheckpointError, match=r"\(its page says how large\): hf download some/other --local-dir"):
        Cascade.load("nano", asr="whisper:some/other", tts=offline(HUM))
    with pytest.raises(CheckpointError, match="its tokenizer has no chat template"):
        Cascade.load(str(chain(tmp_path / "base", [], template=None)), tts=offline(HUM))
