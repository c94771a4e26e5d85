"""Stage 4: who speaks, what is written, and what a server may do to us."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import subprocess
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import VitsConfig, VitsModel, VitsTokenizer

from omnivox.data.records import Clip, Rejected, Row
from omnivox.data.speak import SpeakStage
from omnivox.data.speaker import Voices, decoded
from omnivox.data.spoken import VoiceSettings
from omnivox.data.tts_server import SpeechServer
from omnivox.data.vits import Vits, phonemised
from omnivox.data.voices import OFFLINE, PROGRAMS, Offline, installed, plain_letters, speaker
from omnivox.errors import CheckpointError, ConfigError, DataError
from omnivox.nano.voices import Samples
from tests.data.speaking import ANSWERING, ASKING, Hum, rows, serving, spoken, tone

STAGE = SpeakStage(ASKING, ANSWERING)


def files(build: Path) -> dict[str, str]:
    return {str(path.relative_to(build)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(build.rglob("*")) if path.is_file()}


def test_everything_is_spoken_and_written_as_flac(tmp_path: Path) -> None:
    out = list(STAGE.apply(rows(8, turns=2), tmp_path))
    for row in out:
        assert isinstance(row, Row)
        asked = {turn.question_audio.voice for turn in row.turns if turn.question_audio}
        assert len(asked) == 1  # one speaker a conversation
        for turn in row.turns:
            assert turn.question_audio
            assert turn.answer_audio
            assert turn.answer_audio.voice == "one"
            for clip in (turn.question_audio, turn.answer_audio):
                info = soundfile.info(tmp_path / clip.path)
                assert (info.format, info.subtype, info.channels, info.samplerate) == ("FLAC", "PCM_16", 1, 16_000)
                assert clip.seconds == pytest.approx(info.frames / 16_000, abs=1e-3)
    assert len(files(tmp_path)) == 8 * 2 * 2


def test_a_row_sounds_the_same_whoever_stands_beside_it(tmp_path: Path) -> None:
    some = rows(12)
    list(STAGE.apply(some, tmp_path / "a"))
    for row in reversed(some):
        list(SpeakStage(replace(ASKING, at_once=4), STAGE.answer).apply([row], tmp_path / "b"))
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_voices_are_drawn_by_sex_first_and_by_the_seed(tmp_path: Path) -> None:
    many = rows(300)
    counts = Counter(STAGE.voice(row) for row in many)
    assert counts["m1"] == pytest.approx(150, abs=40)
    assert counts["f1"] == pytest.approx(75, abs=30)
    other = SpeakStage(ASKING, STAGE.answer, seed=1)
    assert [other.voice(row) for row in many] != [STAGE.voice(row) for row in many]


def test_what_is_there_is_not_spoken_again(tmp_path: Path) -> None:
    calls: list[str] = []

    class Counting(Hum):
        def speak(self, text: str, voice: str, seed: int | None) -> Samples:
            calls.append(text)
            return super().speak(text, voice, seed)

    stage = SpeakStage(Counting(ASKING.voices), Counting(ANSWERING.voices))
    first = list(stage.apply(rows(4), tmp_path))
    assert len(calls) == 8
    assert list(stage.apply(rows(4), tmp_path)) == first
    assert len(calls) == 8


def test_clips_of_the_source_are_kept(tmp_path: Path) -> None:
    [row] = rows(1)
    clip = Clip("/elsewhere/question.wav", 1.0, "somebody")
    [out] = STAGE.apply([row.with_turns([replace(row.turns[0], question_audio=clip)])], tmp_path)
    assert isinstance(out, Row)
    assert out.turns[0].question_audio == clip
    assert len(files(tmp_path)) == 1


def test_a_row_that_cannot_be_spoken_is_rejected_and_the_others_are_not(tmp_path: Path) -> None:
    some = rows(3)
    some[1] = some[1].with_turns([replace(some[1].turns[0], answer="unspeakable")])
    some[2] = some[2].with_turns([replace(some[2].turns[0], answer=None)])
    out = list(STAGE.apply(some, tmp_path))
    assert isinstance(out[0], Row)
    assert out[1] == Rejected("speech: text 'unspeakable': cannot be hummed")
    assert out[2] == Rejected("unanswered: turn 1 has no question or no answer as speech")


def test_an_answer_has_one_voice() -> None:
    with pytest.raises(ConfigError, match=r"answer voice: found 3 voices \(f1, f2, m1\); expected one"):
        SpeakStage(ASKING, ASKING)
    with pytest.raises(ConfigError, match="question voices: found none"):
        SpeakStage(Hum({}), STAGE.answer)


# -- the offline engines ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("label", ["flite:slt", "espeak:en-us+f3", "festival:kal_diphone"])
def test_an_offline_engine_repeats_itself(label: str) -> None:
    engine = label.partition(":")[0]
    if shutil.which(PROGRAMS[engine]) is None:
        pytest.skip(f"{PROGRAMS[engine]} is not installed")
    made = speaker(label)
    first = made.speak("What is the time?", label, 5)
    assert first.dtype == np.float32
    assert np.abs(first).max() == pytest.approx(0.6, abs=0.01)
    assert 0.5 < len(first) / 16_000 < 4
    made.speak("Something else meanwhile.", label, 6)
    assert np.array_equal(made.speak("What is the time?", label, 5), first)
    assert not np.array_equal(made.speak("What is the time?", label, None), first)
    with pytest.raises(DataError, match="nothing that can be spoken"):
        made.speak("...", label, None)


def test_letters_with_accents_are_spoken_as_letters() -> None:
    """flite would spell the bytes: "Koldskal" takes it a second, with a ring on its a two."""
    assert plain_letters("Crème brûlée, Flæskesteg — “it’s”") == 'Creme brulee, Flaeskesteg , "it\'s"'  # noqa: RUF001
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed")
    voice = speaker("flite:rms")
    assert np.array_equal(voice.speak("Koldskål", "flite:rms", None), voice.speak("Koldskal", "flite:rms", None))


@pytest.mark.parametrize("label", ["flite:rms", "espeak:en-us", "festival:kal_diphone"])
def test_an_engine_that_does_not_end_costs_the_row(label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = PROGRAMS[label.partition(":")[0]]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    voice = speaker(label)

    def hangs(command: list[str], **more: Any) -> None:
        raise subprocess.TimeoutExpired(command, more["timeout"])

    monkeypatch.setattr(subprocess, "run", hangs)
    with pytest.raises(DataError, match=f"{label}: no end after 120 s of 'Hello'"):
        voice.speak("Hello", label, None)


@pytest.mark.parametrize(("settings", "said"), [
    ({"questions": "flite:slt", "female": ("flite:rms",)}, "--female-voices, --male-voices: found flite:rms, but"),
    ({"answer": "flite:rms", "voice": "nova"}, "--answer-name: found nova, but 'flite:rms' is one voice by itself"),
    ({"url": "http://127.0.0.1:1/v1"}, "--tts-url: found .* but neither --question-voices nor --answer-voice is")])
def test_voices_that_nobody_would_use_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        VoiceSettings(**settings)


def test_offline_voices_that_do_not_exist() -> None:
    for label in ("flite", "sam:tts", "espeak:"):
        with pytest.raises(ConfigError, match=r"voice: found .*; expected"):
            speaker(label)
    if shutil.which("espeak-ng"):
        with pytest.raises(ConfigError, match="not known to espeak-ng"):
            speaker("espeak:nobody").speak("Hello", "espeak:nobody", None)


def test_only_installed_engines_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/flite" if name == "flite" else None)
    found = installed()
    assert found == {"female": ("flite:slt",), "male": ("flite:awb", "flite:kal16", "flite:rms")}
    assert isinstance(speaker("offline"), Offline)
    with pytest.raises(ConfigError, match="apt-get install espeak-ng"):
        Offline(OFFLINE)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="no engine is installed"):
        installed()


# -- VITS -------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="session")
def vits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny VITS of two speakers, as the hub lays it out; it reads letters."""
    folder = tmp_path_factory.mktemp("vits")
    torch.manual_seed(0)
    letters = "_abcdefghijklmnopqrstuvwxyz '?."
    (folder / "vocab.json").write_text("{" + ", ".join(f'"{letter}": {i}' for i, letter in enumerate(letters)) + "}")
    VitsTokenizer(str(folder / "vocab.json"), phonemize=False).save_pretrained(folder)
    VitsModel(VitsConfig(
        vocab_size=len(letters), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=16, flow_size=16,
        spectrogram_bins=9, upsample_initial_channel=16, upsample_rates=[8, 8], upsample_kernel_sizes=[16, 16],
        resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1]], prior_encoder_num_flows=1,
        prior_encoder_num_wavenet_layers=1, posterior_encoder_num_wavenet_layers=1, duration_predictor_num_flows=1,
        duration_predictor_filter_channels=8, num_speakers=2, speaker_embedding_size=4,
        sampling_rate=22_050)).save_pretrained(folder)
    return folder


def test_vits_speaks_the_same_for_the_same_seed(vits_folder: Path) -> None:
    voice = speaker(f"vits:{vits_folder}", voices={"female": ("0",), "male": ("1",)})
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first = voice.speak("what is it?", "0", 3)
    assert torch.equal(torch.random.get_rng_state(), before)  # others' random numbers are not ours
    assert first.dtype == np.float32
    assert len(first)
    assert np.isfinite(first).all()
    assert np.array_equal(voice.speak("what is it?", "0", 3), first)
    others = [voice.speak("what is it?", "1", 3), voice.speak("what is it?", "0", 4), voice.speak("who is it?", "0", 3)]
    assert not any(np.array_equal(other, first) for other in others)
    assert pickle.loads(pickle.dumps(voice)) == voice


def test_vits_that_reads_phonemes_is_given_them(vits_folder: Path, tmp_path: Path) -> None:
    """As vits-ljs does: what is said hangs on the sounds of words alone, not on their letters."""
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed")
    folder = Path(shutil.copytree(vits_folder, tmp_path / "vits"))
    size = len(VitsTokenizer.from_pretrained(folder))
    sounds = "_ " + "".join(sorted(set(phonemised("Their eyes see the sea; eight, ate.")) - {" "}))
    assert len(sounds) <= size
    (folder / "vocab.json").write_text(json.dumps({sound: i for i, sound in enumerate(sounds)}))
    VitsTokenizer(str(folder / "vocab.json"), phonemize=True).save_pretrained(folder)
    voice = speaker(f"vits:{folder}")
    first = voice.speak("See eight.", "0", 1)
    assert np.array_equal(voice.speak("Sea ate.", "0", 1), first)
    assert not np.array_equal(voice.speak("Their eyes.", "0", 1), first)


def test_vits_says_what_is_wrong(vits_folder: Path, tmp_path: Path) -> None:
    voice = Vits(str(vits_folder))
    with pytest.raises(ConfigError, match=r"voice: found '2'; .* has 2, numbered from 0"):
        voice.speak("hello", "2", None)
    with pytest.raises(DataError, match="nothing that"):
        voice.speak("", "0", None)
    with pytest.raises(DataError, match=r"expected 1e-05 s at most"):
        Vits(str(vits_folder), max_seconds=1e-5).speak("hello", "0", None)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="model_type is 'bert'; expected 'vits'"):
        Vits(str(tmp_path)).speak("hello", "0", None)


def test_phonemes_keep_their_punctuation() -> None:
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed")
    found = phonemised("Hello, world! It's fine; really - \"yes\".")
    assert found.startswith("həl\u02c8oʊ, w\u02c8ɜ\u02d0ld! ")
    assert [mark for mark in found if mark in ",!;\"."] == [",", "!", ";", '"', '"', "."]
    assert phonemised("...") == "..."


# -- a server ---------------------------------------------------------------------------------------------------------

VOICES: Voices = {"female": ("nova",), "male": ("onyx",)}


def server(url: str, **changes: Any) -> SpeechServer:
    return SpeechServer(url, "tts", VOICES, **({"backoff": 0.01, "timeout": 5.0} | changes))


def test_a_server_speaks(tmp_path: Path) -> None:
    with serving(lambda body, _: spoken(body)) as (url, api):
        made = speaker("server", url=url, model="tts", voices=VOICES, api_key="secret")
        assert isinstance(made, SpeechServer)
        out = list(SpeakStage(made, speaker("server", url=url, model="tts", voices={"any": ("one",)})).apply(
            rows(12), tmp_path))
    assert all(isinstance(row, Row) for row in out)
    assert len(api.bodies) == 24
    assert {body["voice"] for body in api.bodies} == {"nova", "onyx", "one"}
    assert {body["model"] for body in api.bodies} == {"tts"}
    assert sum(headers.get("Authorization") == "Bearer secret" for headers in api.headers) == 12
    assert "secret" not in repr(made)
    assert "secret" not in str(made.settings())
    for row in out:
        assert isinstance(row, Row)
        assert row.turns[0].question is not None
        clip = row.turns[0].question_audio
        assert clip is not None
        samples, rate = soundfile.read(tmp_path / clip.path)
        expected = decoded(tone(row.turns[0].question), "")  # 24 kHz became 16
        assert rate == 16_000
        assert np.abs(samples - expected).max() < 1e-3


@pytest.mark.parametrize("trouble", [
    (500, {}, b"oops"), (429, {"Retry-After": "0"}, b"{}"), (503, {}, b""), (200, {}, b"not a sound"), (200, {}, b""),
    (200, {"Content-Length": "100000"}, tone("half")),  # the connection closes in the middle
])
def test_passing_trouble_is_outwaited(trouble: Any) -> None:
    with serving(lambda body, number: trouble if number < 2 else spoken(body)) as (url, api):
        samples = server(url).speak("Hello there", "nova", None)
    assert len(samples) == len(decoded(tone("Hello there"), ""))
    assert len(api.bodies) == 3


def test_a_server_that_hangs_is_asked_again() -> None:
    waiting = threading.Event()

    def answer(body: dict[str, Any], number: int) -> Any:
        if number == 0:
            waiting.wait(20)
        return spoken(body)

    with serving(answer) as (url, api):
        assert len(server(url, timeout=0.3).speak("Hello", "nova", None))
        waiting.set()
    assert len(api.bodies) == 2


def test_lasting_trouble_ends_the_stage_and_a_refusal_only_the_row(tmp_path: Path) -> None:
    with serving(lambda body, _: (500, {}, b"broken")) as (url, api):
        with pytest.raises(ConnectionError, match=r"no speech after 3 tries \(500 broken\); what was spoken is kept"):
            server(url, tries=3).speak("Hello", "nova", None)
        assert len(api.bodies) == 4  # and a word, to tell a bad text from a bad server
    with serving(lambda *_: (429, {"Retry-After": "86400"}, b"")) as (url, api):
        with pytest.raises(ConnectionError, match="no speech after 1 tries"):
            server(url).speak("Hello", "nova", None)
        assert len(api.bodies) == 1
    with serving(lambda *_: (401, {}, b'{"error": {"message": "no such key"}}')) as (url, _), \
            pytest.raises(ConfigError, match="401 no such key; check the URL"):
        server(url).speak("Hello", "nova", None)
    with serving(lambda body, _: (400, {}, b"too long") if "very very" in body["input"] else spoken(body)) as (url, _):
        stage = SpeakStage(server(url), ANSWERING)
        out = list(stage.apply(rows(5), tmp_path))
    assert [isinstance(row, Rejected) for row in out] == [False, False, True, True, True]
    assert isinstance(out[4], Rejected)
    assert "400 too long for 'What is question very very very very" in out[4].reason


def test_a_text_that_a_server_always_fails_on_costs_its_row_and_not_the_stage(tmp_path: Path) -> None:
    with serving(lambda body, _: (500, {}, b"broken") if "very very" in body["input"] else spoken(body)) as (url, _):
        out = list(SpeakStage(server(url, tries=2, longest=0.01), ANSWERING).apply(rows(3), tmp_path))
    assert [isinstance(row, Rejected) for row in out] == [False, False, True]
    assert isinstance(out[2], Rejected)
    assert "no speech after 2 tries (500 broken) for 'What is question very very" in out[2].reason


def test_a_server_s_speaker_travels_to_other_processes() -> None:
    with serving(lambda body, _: spoken(body)) as (url, _):
        made = server(url)
        made.speak("Hello", "nova", None)
        again = pickle.loads(pickle.dumps(made))
        assert again == made
        assert len(again.speak("Hello", "nova", None))


def test_settings_of_a_server_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match="found 'localhost'; expected a URL"):
        server("localhost")
    with pytest.raises(ConfigError, match=r"speech server: found 'http://h:80a' .Invalid port"):
        server("http://h:80a")
    with pytest.raises(ConfigError, match="tries: found 0"):
        server("http://localhost", tries=0)
    with pytest.raises(ConfigError, match="API key: holds a letter beyond ASCII"):
        server("http://localhost", api_key="my\u00e9")
    with pytest.raises(ConfigError, match="needs its URL, a model and the names of its voices"):
        speaker("server", url="http://localhost")
