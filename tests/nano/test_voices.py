"""The voices: what they say, how it is trimmed, what never meets training, and what a missing engine says."""

import shutil
from random import Random

import numpy as np
import pytest

from omnivox.errors import ConfigError, DataError
from omnivox.nano import voices
from omnivox.nano.voices import (
    ANSWER_VOICE,
    HELD_ENGINE_VOICES,
    HELD_SHIFTS,
    HELD_VOICES,
    PEAK,
    TRAIN_VOICES,
    Voice,
    convert,
    pick,
    speak,
    spoken_form,
    stretch_bins,
)
from omnivox.rates import SAMPLE_RATE

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
needs_festival = pytest.mark.skipif(shutil.which("text2wave") is None, reason="festival is not installed")


def median_pitch(samples: np.ndarray) -> float:
    pyworld = voices._world()
    f0, _ = pyworld.dio(samples.astype(np.float64), SAMPLE_RATE, speed=4)
    return float(np.median(f0[f0 > 0]))


def margins(samples: np.ndarray) -> tuple[float, float]:
    loud = np.flatnonzero(np.abs(samples) > 0.0101 * PEAK)
    return loud[0] / SAMPLE_RATE, (len(samples) - 1 - loud[-1]) / SAMPLE_RATE


@needs_flite
def test_flite_repeats_bit_for_bit_with_the_same_rng():
    first = speak(ANSWER_VOICE, "seven plus eight is fifteen", Random(3))
    assert np.array_equal(first, speak(ANSWER_VOICE, "seven plus eight is fifteen", Random(3)))
    assert len(first) != len(speak(ANSWER_VOICE, "seven plus eight is fifteen", Random(4)))


@needs_flite
def test_without_rng_the_voice_is_plain_and_trimmed_to_a_tenth_of_a_second():
    samples = speak(ANSWER_VOICE, "hello there")
    assert samples.dtype == np.float32
    assert np.abs(samples).max() == pytest.approx(PEAK, rel=1e-5)
    assert margins(samples) == pytest.approx((0.1, 0.1), abs=0.002)
    assert np.array_equal(samples, speak(ANSWER_VOICE, "hello there"))


@pytest.mark.parametrize("voice", [
    pytest.param(Voice("flite", "kal16"), marks=needs_flite), Voice("espeak", "en-gb-scotland+f3"),
    pytest.param(Voice("festival", "ked_diphone"), marks=needs_festival)], ids=lambda voice: voice.engine)
def test_every_engine_speaks_for_a_plausible_time_inside_its_margins(voice: Voice):
    if voice.engine == "espeak":
        pytest.importorskip("espeakng_loader")
    short, long = (speak(voice, text, Random(1)) for text in ("hello", "what is the capital of france and of spain"))
    assert 0.3 < len(short) / SAMPLE_RATE < 1.5 < len(long) / SAMPLE_RATE < 5
    assert all(0.045 < side < 0.16 for side in margins(long))


def test_espeak_repeats_from_a_fresh_library():
    pytest.importorskip("espeakng_loader")
    import subprocess
    import sys

    code = ("from omnivox.nano.voices import *; import hashlib;"
            "print(hashlib.md5(speak(Voice('espeak', 'en-us+m3'), 'good morning').tobytes()).hexdigest())")
    said = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(said) == 1


@needs_flite
def test_world_moves_the_pitch_and_keeps_the_length():
    pytest.importorskip("pyworld")
    plain = speak(Voice("flite", "slt"), "what is the capital of france")
    high = convert(plain, Voice("flite", "slt", pitch=1.5))
    assert median_pitch(high) / median_pitch(plain) == pytest.approx(1.5, rel=0.06)
    assert abs(len(high) - len(plain)) < SAMPLE_RATE // 50


def test_stretched_bins_move_a_resonance_by_the_ratio():
    envelope = np.full((2, 257), 1e-6)
    envelope[:, 100] = 1.0
    assert stretch_bins(envelope, 1.2)[0].argmax() == 120
    assert np.allclose(stretch_bins(envelope, 1.0), envelope)


def test_held_voices_never_meet_training():
    assert len(TRAIN_VOICES) == len(set(TRAIN_VOICES)) > 900
    assert not {voice.label for voice in TRAIN_VOICES} & {voice.label for voice in HELD_VOICES}
    held_variants = {voice.name.partition("+")[2] for voice in HELD_VOICES if voice.engine == "espeak"}
    assert not held_variants & {voice.name.partition("+")[2] for voice in TRAIN_VOICES if voice.engine == "espeak"}
    assert {voice.engine for voice in TRAIN_VOICES}.isdisjoint(voice.engine for voice in HELD_ENGINE_VOICES)
    for voice in TRAIN_VOICES:
        if voice.converted:
            assert all(abs(np.log(voice.pitch / pitch)) > 0.07 or abs(np.log(voice.formant / formant)) > 0.035
                       for pitch, formant in HELD_SHIFTS)


def test_pick_gives_each_kind_its_share():
    rng = Random(0)
    picked = [pick(TRAIN_VOICES, rng) for _ in range(2000)]
    assert sum(voice.engine == "espeak" for voice in picked) / 2000 == pytest.approx(voices.SHARES["espeak"], abs=0.05)
    assert sum(voice.converted for voice in picked) / 2000 == pytest.approx(voices.SHARES["converted flite"], abs=0.05)


@pytest.mark.parametrize(("voice", "package"), [(ANSWER_VOICE, "flite"), (HELD_ENGINE_VOICES[0], "festvox-kdlpc16k")])
def test_a_missing_program_is_told_with_its_package(monkeypatch: pytest.MonkeyPatch, voice: Voice, package: str):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=f"apt-get install .*{package}"):
        speak(voice, "hello")


@needs_flite
def test_unknown_voices_and_empty_texts_are_refused():
    with pytest.raises(ConfigError, match="nobody"):
        speak(Voice("flite", "nobody"), "hello")
    with pytest.raises(DataError, match="expected words"):
        speak(ANSWER_VOICE, " ?!")


def test_an_unknown_espeak_variant_is_refused():
    pytest.importorskip("espeakng_loader")
    with pytest.raises(ConfigError, match="en-nowhere"):
        speak(Voice("espeak", "en-nowhere"), "hello")


@pytest.mark.parametrize(("text", "form"), [
    ("spell c a t please", "spell C A T please"),
    ("what comes between a and c", "what comes between A, and c"),
    ("the letter a comes first", "the letter A, comes first"),
    ("that's a dog", "that's a dog"),
    ("am i a robot", "am i a robot"),
    ("C, A, T.", "C, A, T.")])
def test_letters_are_written_so_that_they_are_named(text: str, form: str):
    assert spoken_form(text) == form
