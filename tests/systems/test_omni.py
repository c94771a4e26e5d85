"""Ours under test: streamed, offline and in chunks that are vocoded alone; nano, random ones, and published ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from omnivox.errors import AudioError, CheckpointError, ConfigError
from omnivox.model.vocoder import vocode_alone
from omnivox.runtime.events import Audio, Done, Text
from omnivox.runtime.respond import Omni
from omnivox.sound import read_audio
from omnivox.systems.find import find_system
from omnivox.systems.omni import OmniSettings, OmniSystem
from tests import tiny
from tests.checkpoint import published
from tests.systems.laws import lawful, reply

TOKENS = 24


def system(**settings: Any) -> OmniSystem:
    return OmniSystem(tiny.omni(end_ids=()), "tiny", OmniSettings(max_new_tokens=TOKENS, **settings))


@pytest.fixture
def noise() -> Tensor:
    return tiny.question()


@pytest.mark.parametrize("settings", [
    {}, {"omega": None}, {"omega": 3, "lookahead": 2}, {"alone": True}, {"alone": True, "omega": None},
    {"temperature": 2.0, "top_k": 20, "seed": 3},
])
def test_it_is_a_system(settings: dict[str, Any], noise: Tensor) -> None:
    one = system(**settings)
    given = lawful(one, noise)
    assert len(given.units) > 20
    assert given.timings.first_units > 0
    assert one.settings() == {"model": "tiny", "dtype": "float32", "omega": 10, "lookahead": None, "alone": False,
                              "temperature": 0.0, "top_p": 1.0, "top_k": 0, "seed": 0, "max_new_tokens": TOKENS,
                              **settings}


def test_nano_is_a_system(question: Path, nano_weights: Path) -> None:
    given = lawful(find_system("omni?omega=20"), read_audio(question))
    assert given.text == "The capital of France is Paris."


@pytest.mark.parametrize("omega", [1, 4, 10, 40])
def test_streamed_sound_equals_offline_at_full_lookahead(omega: int, noise: Tensor) -> None:
    one = system(omega=omega)
    offline, streamed = reply(one.at(omega=None), noise), reply(one, noise)
    units = torch.tensor([offline.units])
    torch.testing.assert_close(offline.audio, one.omni.vocoder(units, torch.tensor([len(offline.units)])).row(0),
                               atol=1e-4, rtol=0)
    torch.testing.assert_close(streamed.audio, offline.audio, atol=1e-4, rtol=0)
    assert (streamed.text, streamed.units) == (offline.text, offline.units)
    hasty = reply(one.at(lookahead=0), noise)
    assert len(hasty.audio) == len(offline.audio)
    assert omega == 40 or not torch.allclose(hasty.audio, offline.audio, atol=1e-4)


def test_offline_is_silent_until_all_is_written(noise: Tensor) -> None:
    kinds = [type(event) for event in system(omega=None).respond(noise)]
    assert kinds == [Text] * (len(kinds) - 2) + [Audio, Done]
    kinds = [type(event) for event in system(omega=5).respond(noise)]
    assert kinds.index(Audio) < len(kinds) - 1 - kinds[::-1].index(Text)


@pytest.mark.parametrize("omega", [5, 10, None])
def test_alone_is_each_chunk_by_itself(omega: int | None, noise: Tensor) -> None:
    one = system(omega=omega, alone=True)
    *made, done = one.respond(noise)
    assert isinstance(done, Done)
    units, place, sizes = torch.tensor(done.reply.units), 0, list[int]()
    for samples in [event.samples for event in made if isinstance(event, Audio)]:
        for size in range(1, len(units) - place + 1):
            [found] = vocode_alone(one.omni.vocoder, [units[place:place + size]])
            if torch.equal(found, samples):
                sizes.append(size)
                place += size
                break
        else:
            pytest.fail(f"a sound of {len(samples)} samples is none of the units' from {place}")
    assert place == len(units)
    assert len(sizes) == 1 if omega is None else min(sizes[:-1]) >= omega
    exact = reply(one.at(alone=False), noise)
    assert exact.units == done.reply.units
    if omega:
        assert len(exact.audio) != len(done.reply.audio) or not torch.allclose(exact.audio, done.reply.audio, atol=1e-2)


def test_the_seed_decides(noise: Tensor) -> None:
    one = system(temperature=3.0, seed=1)
    first = reply(one, noise)
    assert reply(system(temperature=3.0, seed=1), noise).token_ids == first.token_ids
    assert reply(one.at(seed=2), noise).token_ids != first.token_ids


@pytest.mark.parametrize(("settings", "message"), [
    ({"omega": 0}, "omega: found 0; expected a number of units, 1 or more, or inf"),
    ({"omega": True}, "omega: found True"),
    ({"omega": 2.5}, r"omega: found 2\.5"),
    ({"lookahead": -1}, "lookahead: found -1; expected a whole number, 0 or more"),
    ({"omega": None, "lookahead": 4}, "lookahead: found 4; omega=inf has all units at once"),
    ({"alone": True, "lookahead": 4}, "lookahead: found 4; alone=true speaks each chunk without the next"),
    ({"temperature": -1.0}, "temperature: found -1"),
    ({"max_new_tokens": 0}, "max_new_tokens: found 0"),
])
def test_settings_without_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OmniSettings(**settings)


def test_a_question_that_cannot_be_heard(noise: Tensor) -> None:
    with pytest.raises(AudioError, match="holds no samples"):
        list(system().respond(torch.empty(0)))
    with pytest.raises(AudioError, match="NaN or infinite"):
        list(system().respond(torch.full((1600,), torch.nan)))


# -- checkpoints ------------------------------------------------------------------------------------------------------

def test_a_folder_of_ours(tmp_path: Path, noise: Tensor) -> None:
    tiny.omni(end_ids=()).save_pretrained(tmp_path / "m")
    one = find_system(f"omni:{tmp_path / 'm'}?omega=7&max_new_tokens=9&dtype=float32")
    assert lawful(one, noise).token_ids == reply(system(), noise).token_ids[:9]


def test_a_published_folder(tmp_path: Path) -> None:
    spoken = published.model()
    folder = published.write(tmp_path / "llama-omni", published.tensors(spoken, encoder=False))
    table = Tokenizer(models.WordLevel({f"w{i}": i for i in range(published.VOCABULARY)}, unk_token="w0"))
    table.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=table, unk_token="w0").save_pretrained(folder)
    whisper, vocoder = published.whisper_file(tmp_path / "w", spoken), published.unit_vocoder(tmp_path / "v")
    one = find_system(f"omni:{folder}?omega=2&max_new_tokens=6", whisper=str(whisper), vocoder=str(vocoder))
    assert lawful(one, tiny.question()).text
    with pytest.raises(CheckpointError, match=r"has no vocoder; download\n  .*vocoder/g_00500000 \(about 60 MB"):
        find_system(f"omni:{folder}", whisper=str(whisper))


def test_one_that_cannot_speak_is_refused() -> None:
    whole = tiny.omni()
    with pytest.raises(CheckpointError, match="mute: has no vocoder"):
        OmniSystem(Omni(whole.model, None, whole.tokenizer, whole.prompt), "mute")


def test_weights_that_are_missing_are_named_with_size_and_place() -> None:
    with pytest.raises(CheckpointError) as found:
        find_system("omni:ICTNLP/Llama-3.1-8B-Omni")
    told = str(found.value)
    for part in ("(about 18 GB): hf download ICTNLP/Llama-3.1-8B-Omni --local-dir ICTNLP/Llama-3.1-8B-Omni",
                 "large-v3.pt (3.1 GB, to be named by whisper=): curl -L", "vocoder/g_00500000 (about 60 MB"):
        assert part in told
