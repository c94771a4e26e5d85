"""The text-to-speech voices that nano learns from, and those it never hears: one function, `speak`, over three engines.

    flite       a process for each utterance: bit-deterministic, and its four 16 kHz voices sound the best
    espeak-ng   in this process through ctypes (the `espeakng-loader` wheel): accents x variants, cheap, robotic
    festival    `text2wave`; held out of training altogether

`convert` (WORLD: Morise et al. 2016, doi 10.1587/transinf.2015EDP7457) turns one voice into many: other pitch, other
vocal tract, other breath, other timing. Engines are needed to build data only, never to run the model.

Two honest notes. espeak's noise generator depends on everything its process has said before, so its speech repeats
bit for bit only from a fresh process. festival's kal and flite's kal16 were recorded by the same man: of the held
engine's voices, ked alone is new in every respect.

Shapes: n samples at 16 kHz, F frames of 5 ms, Q frequency bins.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from omnivox.errors import ConfigError, DataError
from omnivox.rates import SAMPLE_RATE

Engine = Literal["flite", "espeak", "festival"]
Samples = NDArray[np.float32]

PEAK = 0.6  # of full scale, after normalisation
FRAME_MS = 5.0  # WORLD's own frame, not the model's
PACKAGES = {"flite": "flite", "text2wave": "festival festvox-kallpc16k festvox-kdlpc16k"}


@dataclass(frozen=True)
class Voice:
    """One speaker. `name` is the engine's own name for it; the three ratios are WORLD's, 1 leaves the speech alone.

    pitch: of the fundamental. formant: of every resonance, above 1 for a shorter vocal tract. intonation: of the
    excursions of log pitch. breath: share of noise at 8 kHz in voiced speech when WORLD has resynthesised it.
    """

    engine: Engine
    name: str
    pitch: float = 1.0
    formant: float = 1.0
    intonation: float = 1.0
    breath: float = 0.5

    @property
    def converted(self) -> bool:
        """Whether the engine's speech goes through WORLD."""
        return (self.pitch, self.formant, self.intonation) != (1.0, 1.0, 1.0)

    @property
    def label(self) -> str:
        """What manifests call it, for example `flite:slt` or `flite:slt/p1.30/f1.12`."""
        return f"{self.engine}:{self.name}" + (f"/p{self.pitch:.2f}/f{self.formant:.2f}" if self.converted else "")


def speak(voice: Voice, text: str, rng: Random | None = None) -> Samples:
    """`text` in `voice`, float32 [n] at 16 kHz, peak at 0.6, with 50 to 150 ms of silence at each side.

    With an `rng` tempo, pitch and margins vary as they do between occasions; without one they are the voice's own.
    Raises ConfigError: the engine is not installed. DataError: it failed, or nothing in `text` can be spoken.
    """
    if not any(character.isalnum() for character in text):
        raise DataError(f"text {text!r}: holds nothing that can be spoken; expected words")
    tempo = rng.uniform(0.85, 1.2) if rng else 1.0
    wide = 0.2 if voice.engine == "espeak" else 0.1  # most of espeak's variants are men of 100 Hz
    pitch = rng.uniform(1 - wide, 1 + wide) if rng else 1.0
    text = spoken_form(text)
    if voice.engine == "flite":
        samples = _flite(voice.name, text, tempo, pitch)
    elif voice.engine == "espeak":
        expression = rng.randint(30, 70) if rng else 50
        samples = _espeak().speak(voice.name, text, tempo, pitch, expression)
    else:
        samples = _festival(voice.name, text, tempo)
    if voice.converted:
        samples = convert(samples, voice, rng)
    if rng and rng.random() < 0.5:  # a speed change of the finished sound moves pitch and formants together
        samples = soxr.resample(samples, SAMPLE_RATE * rng.uniform(0.87, 1.15), SAMPLE_RATE)
    margins = (rng.uniform(0.05, 0.15), rng.uniform(0.05, 0.15)) if rng else (0.1, 0.1)
    return _trim(samples, margins, f"{voice.label}: {text!r}")


_LETTERS = re.compile(r"(?<!')\b(?=[ai, ]*[b-hj-z]\b)[a-z](?:,? [a-z])+\b")  # "am i a" is no spelling
_LETTER_A = re.compile(r"\b(?<=letter )[aA]\b(?=[ \w])|\b[aA](?= (?:and|or|come|comes|is|in|to|then)\b)")


def spoken_form(text: str) -> str:
    """`text` with letters as every engine names them: runs in capitals, and "a" kept from being an article."""
    capitals = _LETTERS.sub(lambda run: run[0].upper(), text)
    return _LETTER_A.sub("A,", capitals)


def _trim(samples: Samples, margins: tuple[float, float], name: str) -> Samples:
    """`samples` normalised, with exactly `margins` seconds before and after the speech, silence added where missing."""
    peak = float(np.abs(samples).max(initial=0.0))
    if peak < 1e-3:
        raise DataError(f"{name}: the engine answered with silence")
    loud = np.flatnonzero(np.abs(samples) > 0.01 * peak)
    before, after = (round(margin * SAMPLE_RATE) for margin in margins)
    start, stop = loud[0] - before, loud[-1] + 1 + after
    body = samples[max(start, 0):stop] * (PEAK / peak)
    return np.pad(body, (max(-start, 0), max(stop - len(samples), 0))).astype(np.float32)


# -- engines ----------------------------------------------------------------------------------------------------------

FLITE_PITCH = {"slt": 165.0, "awb": 122.0, "kal16": 95.0}  # Hz, measured; rms ignores the setting


def program(name: str) -> str:
    """The path of an engine's program. Raises ConfigError with what to install where there is none."""
    path = shutil.which(name)
    if path is None:
        raise ConfigError(f"{name}: no such program; install it with: apt-get install {PACKAGES[name]}")
    return path


def _run(command: list[str], text: str, stdin: str = "") -> Samples:
    """Float32 [n] at 16 kHz from a program to which `-o FILE` says where its wav file goes."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:  # text2wave cannot write its header into a pipe
        done = subprocess.run([*command, "-o", file.name], check=False, capture_output=True, timeout=120,
                              input=stdin.encode("ascii", "ignore"))
        try:
            samples, rate = soundfile.read(file.name, dtype="float32")
        except soundfile.LibsndfileError as error:
            said = done.stderr.decode(errors="replace").strip()[-200:]
            name = Path(command[0]).name
            raise DataError(f"{name}: no speech for {text!r} (exit {done.returncode}): {said}") from error
    return np.asarray(samples if rate == SAMPLE_RATE else soxr.resample(samples, rate, SAMPLE_RATE), dtype=np.float32)


def _flite(name: str, text: str, tempo: float, pitch: float) -> Samples:
    if name not in FLITE:  # flite itself would quietly use another
        raise ConfigError(f"flite voice {name!r}: not one of {', '.join(FLITE)}")
    command = [program("flite"), "-voice", name, "--setf", f"duration_stretch={1 / tempo:.3f}"]
    if pitch != 1.0 and name in FLITE_PITCH:
        command += ["--setf", f"int_f0_target_mean={FLITE_PITCH[name] * pitch:.1f}"]
    return _run([*command, "-t", text], text)


def _festival(name: str, text: str, tempo: float) -> Samples:
    """Both of festival's voices ask for durations stretched by 1.1 themselves."""
    setting = f"(begin (voice_{name}) (Parameter.set 'Duration_Stretch {1.1 / tempo:.3f}))"
    return _run([program("text2wave"), "-eval", setting], text, text + "\n")


_RATE, _PITCH, _RANGE = 1, 3, 4  # espeak_PARAMETER
_WORDS_PER_MINUTE = 165
_SYNCHRONOUS, _UTF8 = 2, 1
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class _Espeak:
    """espeak-ng's C interface; the library holds one global voice and one buffer, so a process has one of these."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise ConfigError("espeak: Python package espeakng-loader is missing; install it with: "
                              "pip install espeakng-loader (no Debian package is needed)") from error
        self._library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        self._library.espeak_Synth.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int,
                                               ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p]
        self._rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
        self._library.espeak_ng_SetRandSeed(1)  # the library seeds itself by the clock
        self._pieces: list[NDArray[np.int16]] = []
        self._callback = _CALLBACK(self._receive)  # kept: ctypes does not own callbacks
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: Any, count: int, _: Any) -> int:
        if count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def speak(self, name: str, text: str, tempo: float, pitch: float, expression: int) -> Samples:
        self._pieces.clear()
        if self._library.espeak_SetVoiceByName(name.encode()) != 0:
            raise ConfigError(f"espeak voice {name!r}: not known to espeak-ng; expected one like en-us or en-us+f3")
        settings = {_RATE: round(_WORDS_PER_MINUTE * tempo), _PITCH: round(50 + 170 * (pitch - 1)), _RANGE: expression}
        for parameter, value in settings.items():
            self._library.espeak_SetParameter(parameter, value, 0)
        data = text.encode() + b"\0"
        self._library.espeak_Synth(data, len(data), 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        samples = np.concatenate([np.zeros(1, np.int16), *self._pieces]).astype(np.float32) / 32768
        return np.asarray(soxr.resample(samples, self._rate, SAMPLE_RATE), dtype=np.float32)


@cache
def _espeak() -> _Espeak:
    return _Espeak()


# -- voice conversion -------------------------------------------------------------------------------------------------

def convert(samples: Samples, voice: Voice, rng: Random | None = None) -> Samples:
    """WORLD: `samples` [n] with the voice's pitch, formants, intonation and breath; with an `rng` its timing wanders.

    D4C, half of WORLD's cost, is left out: the aperiodicity is a curve of ours, so `breath` is another dimension in
    which speakers differ. About 170 CPU seconds for an hour of speech.
    """
    world = _world()
    wave = samples.astype(np.float64)
    f0, times = world.dio(wave, SAMPLE_RATE, frame_period=FRAME_MS, speed=4)
    f0 = world.stonemask(wave, f0, times, SAMPLE_RATE)
    envelope = world.cheaptrick(wave, f0, times, SAMPLE_RATE)  # [F, Q]
    voiced = f0 > 0
    if voiced.any():
        centre = np.exp(np.log(f0[voiced]).mean())
        f0 = np.where(voiced, voice.pitch * centre * (np.maximum(f0, 1.0) / centre) ** voice.intonation, 0.0)
    envelope = stretch_bins(envelope, voice.formant)
    if rng:
        frames = _wandering(len(f0), rng)
        f0, envelope = f0[frames], envelope[frames]
    frequency = np.linspace(0.0, 1.0, envelope.shape[1])
    aperiodicity = np.where((f0 > 0)[:, None], 0.002 + (voice.breath - 0.002) * frequency[None] ** 1.5, 1.0)
    spoken = world.synthesize(f0, np.ascontiguousarray(envelope), aperiodicity, SAMPLE_RATE, FRAME_MS)
    return np.asarray(spoken, dtype=np.float32)


def stretch_bins(envelope: NDArray[np.float64], ratio: float) -> NDArray[np.float64]:
    """`envelope` [F, Q] with every frequency multiplied by `ratio`: out[q] = in[q / ratio], in log power."""
    bins = envelope.shape[1]
    source = np.minimum(np.arange(bins) / ratio, bins - 1)
    low = np.minimum(source.astype(int), bins - 2)
    share = source - low
    log = np.log(np.maximum(envelope, 1e-16))
    return np.asarray(np.exp(log[:, low] * (1 - share) + log[:, low + 1] * share))


def _wandering(frames: int, rng: Random) -> NDArray[np.int64]:
    """Indices of `frames` source frames, read at a pace that wanders between 0.8 and 1.25 every 200 ms or so."""
    knots = max(2, frames // 40)
    pace = np.interp(np.arange(frames), np.linspace(0, frames, knots), [rng.uniform(0.8, 1.25) for _ in range(knots)])
    read = np.cumsum(pace)
    read = read / read[-1] * (frames - 1)
    return np.asarray(np.round(read).astype(np.int64))


@cache
def _world() -> Any:
    try:
        with warnings.catch_warnings():  # pyworld asks pkg_resources for its own version
            warnings.simplefilter("ignore")
            import pyworld
    except ImportError as error:
        raise ConfigError(f"WORLD: {error}; install it with: pip install pyworld 'setuptools<81'") from error
    return pyworld


# -- the lists --------------------------------------------------------------------------------------------------------

FLITE = ("slt", "awb", "kal16", "rms")
ACCENTS = ("en-us", "gmw/en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-us-nyc", "en-029")
HELD_ACCENT = "en-gb-x-gbcwmd"
VARIANTS = (
    "", "Alex", "Andrea", "Andy", "Annie", "AnxiousAndy", "Denis", "Diogo", "Gene", "Gene2", "Henrique", "Hugo",
    "Jacky", "Lee", "Marco", "Mario", "Michael", "Mr serious", "Nguyen", "Reed", "RicishayMax", "RicishayMax2",
    "RicishayMax3", "Storm", "Tweaky", "UniRobot", "adam", "anika", "anikaRobot", "announcer", "antonio", "aunty",
    "belinda", "benjamin", "boris", "caleb", "croak", "david", "ed", "edward", "edward2", "f1", "f2", "f3", "f5",
    "fast", "grandma", "grandpa", "gustave", "ian", "iven", "iven2", "iven3", "iven4", "john", "kaukovalta", "klatt",
    "klatt2", "klatt3", "klatt5", "klatt6", "m1", "m2", "m3", "m4", "m6", "m7", "m8", "marcelo", "max", "michel",
    "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "robosoft", "robosoft2", "robosoft3",
    "robosoft4", "robosoft5", "robosoft6", "robosoft8", "sandro", "shelby", "steph", "steph2", "steph3", "travis",
    "whisper", "whisperf", "zac")
HELD_VARIANTS = ("f4", "m5", "Alicia", "Mike", "mike2", "klatt4", "linda", "victor")
VIRTUAL_SPEAKERS = {"slt": 50, "awb": 50, "kal16": 90, "rms": 50}  # kal16 is the diphone voice, of its kind alone
HELD_SHIFTS = ((1.45, 1.14), (1.22, 1.06), (0.8, 0.92), (0.68, 0.86))  # (pitch, formant)


def _espeak_voices(accents: Sequence[str], variants: Sequence[str]) -> list[Voice]:
    return [Voice("espeak", f"{accent}+{variant}" if variant else accent) for accent in accents for variant in variants]


def _virtual_speakers(name: str, count: int) -> list[Voice]:
    """`count` speakers made of one flite voice: pitch x0.6 to 1.8, formants x0.82 to 1.22, clear of the held shifts."""
    rng, speakers = Random(f"virtual speakers of {name}"), list[Voice]()
    while len(speakers) < count:
        formant = 0.82 * (1.22 / 0.82) ** rng.random()
        pitch = formant ** 1.6 * rng.lognormvariate(0.0, 0.22)  # small bodies speak high, on average
        pitch = min(1.8, max(0.6, pitch))
        if all(abs(np.log(pitch / p)) > 0.08 or abs(np.log(formant / f)) > 0.04 for p, f in HELD_SHIFTS):
            speakers.append(Voice("flite", name, round(pitch, 3), round(formant, 3), round(rng.uniform(0.4, 1.7), 2),
                                  round(rng.uniform(0.02, 0.9), 2)))
    return speakers


ANSWER_VOICE = Voice("flite", "rms")
TRAIN_VOICES = [
    *(Voice("flite", name) for name in FLITE),
    *(speaker for name, count in VIRTUAL_SPEAKERS.items() for speaker in _virtual_speakers(name, count)),
    *_espeak_voices(ACCENTS, VARIANTS),
]
HELD_VOICES = [
    *(Voice("flite", name, pitch, formant) for name, (pitch, formant) in zip(FLITE, HELD_SHIFTS, strict=True)),
    *_espeak_voices(("en-us", "gmw/en", HELD_ACCENT), HELD_VARIANTS),
]
HELD_ENGINE_VOICES = [Voice("festival", "ked_diphone"), Voice("festival", "kal_diphone")]

SHARES = {"plain flite": 0.35, "converted flite": 0.3, "espeak": 0.35, "festival": 1.0}
TRAIN_SHARES = {"plain flite": 0.3, "converted flite": 0.25, "espeak": 0.45, "festival": 1.0}


def pick(voices: Sequence[Voice], rng: Random, shares: Mapping[str, float] = SHARES) -> Voice:
    """One of `voices`: first a kind of voice by `shares`, lest espeak's hundreds drown the rest; then evenly."""
    kinds: dict[str, list[Voice]] = {}
    for voice in voices:
        kind = ("converted " if voice.converted else "plain ") + "flite" if voice.engine == "flite" else voice.engine
        kinds.setdefault(kind, []).append(voice)
    names = list(kinds)
    return rng.choice(kinds[rng.choices(names, [shares[name] for name in names])[0]])
