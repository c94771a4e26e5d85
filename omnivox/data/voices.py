"""Who speaks: any engine by its name, and the offline ones, each a program.

    flite, festival   as nano uses them
    espeak            the program espeak-ng, a process for each sentence: its speech repeats from nowhere else

Samples are float32 [n] at 16 kHz.
"""
# ruff: noqa: RUF001

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from omnivox.data.speaker import Speaker, Voices, decoded, program
from omnivox.errors import ConfigError, DataError
from omnivox.nano.voices import PACKAGES, Samples, Voice
from omnivox.nano.voices import speak as speak_offline
from omnivox.rates import SAMPLE_RATE

PROGRAMS = {"flite": "flite", "espeak": "espeak-ng", "festival": "text2wave"}
OFFLINE = {
    "female": ("flite:slt", "espeak:en-us+f1", "espeak:en-us+f2", "espeak:en-us+f3", "espeak:en-us+f5",
               "espeak:en-us+Annie", "espeak:gmw/en+f2", "espeak:en-gb-scotland+f3"),
    "male": ("flite:awb", "flite:kal16", "flite:rms", "espeak:en-us+m1", "espeak:en-us+m3", "espeak:en-us+m7",
             "espeak:gmw/en", "espeak:en-gb-scotland+m2", "festival:kal_diphone", "festival:ked_diphone"),
}
PEAK, MARGIN = 0.6, 0.1  # of full scale; seconds of silence at each side, of espeak's speech, as nano's others have it
_PLAIN = str.maketrans({"æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O", "ß": "ss", "ł": "l", "Ł": "L",
                        "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ı": "i", "‘": "'", "’": "'",
                        "“": '"', "”": '"', "–": "-", "—": ","})


@dataclass(frozen=True)
class Offline:
    """The engines of this machine. `voices` are called engine:name. Raises ConfigError: one is missing, or unknown."""

    voices: Voices
    at_once: int = field(default_factory=lambda: os.cpu_count() or 1)

    def __post_init__(self) -> None:
        for label in [label for labels in self.voices.values() for label in labels]:
            engine, _, name = label.partition(":")
            if engine not in PROGRAMS or not name:
                raise ConfigError(f"voice: found {label!r}; expected engine:name, the engine one of "
                                  f"{', '.join(PROGRAMS)}, such as flite:slt")
            program(PROGRAMS[engine])

    def settings(self) -> Mapping[str, Any]:
        return {"engine": "offline", "voices": {sex: list(labels) for sex, labels in self.voices.items()}}

    def speak(self, text: str, voice: str, seed: int | None) -> Samples:
        rng = None if seed is None else Random(seed)
        try:
            return self._speak(text, voice, rng)
        except subprocess.TimeoutExpired as error:
            raise DataError(f"{voice}: no end after {error.timeout:g} s of {text[:60]!r}") from error

    @staticmethod
    def _speak(text: str, voice: str, rng: Random | None) -> Samples:
        engine, _, name = voice.partition(":")
        if engine == "espeak":
            return _espeak(name, text, rng)
        return speak_offline(Voice("flite" if engine == "flite" else "festival", name), plain_letters(text), rng)


def plain_letters(text: str) -> str:
    """`text` in ASCII, for engines that read bytes: they would spell what an accented letter is made of."""
    return unicodedata.normalize("NFKD", text.translate(_PLAIN)).encode("ascii", "ignore").decode()


def installed() -> Voices:
    """The voices of `OFFLINE` whose programs are here. Raises ConfigError: none is."""
    there = {engine for engine, name in PROGRAMS.items() if shutil.which(name)}
    found = {sex: tuple(label for label in labels if label.partition(":")[0] in there)
             for sex, labels in OFFLINE.items()}
    if not there:
        raise ConfigError("voices: no engine is installed here; install one with: apt-get install flite, espeak-ng, or "
                          f"{PACKAGES['text2wave']}; or use vits:MODEL or a server")
    return {sex: labels for sex, labels in found.items() if labels}


def _espeak(name: str, text: str, rng: Random | None) -> Samples:
    if not any(character.isalnum() for character in text):
        raise DataError(f"text {text!r}: holds nothing that can be spoken; expected words")
    speed, pitch = (round(165 * rng.uniform(0.85, 1.2)), rng.randint(20, 80)) if rng else (165, 50)
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        command = [program("espeak-ng"), "-v", name, "-s", str(speed), "-p", str(pitch), "-w", file.name, "--stdin",
                   "-b", "1"]
        done = subprocess.run(command, input=text.encode(), capture_output=True, check=False, timeout=120)
        said = done.stderr.decode(errors="replace").strip()[-200:]
        if "voice does not exist" in said.lower():
            raise ConfigError(f"espeak voice {name!r}: not known to espeak-ng; expected one like en-us or en-us+f3")
        if done.returncode or not Path(file.name).stat().st_size:
            raise DataError(f"espeak-ng: no speech for {text[:60]!r} (exit {done.returncode}): {said}")
        samples = decoded(Path(file.name).read_bytes(), "espeak-ng")
    peak = float(np.abs(samples).max(initial=0.0))
    if peak < 1e-3:
        raise DataError(f"espeak-ng: answered {text[:60]!r} with silence")
    loud = np.flatnonzero(np.abs(samples) > 0.01 * peak)
    margin = round(MARGIN * SAMPLE_RATE)
    return np.pad(samples[loud[0]:loud[-1] + 1] * np.float32(PEAK / peak), margin)


def speaker(spec: str, *, voices: Voices | None = None, url: str | None = None, model: str | None = None,
            api_key: str | None = None, device: str = "cpu", at_once: int | None = None) -> Speaker:
    """The engine that `spec` names.

    offline: every installed one of `OFFLINE`, or `voices` (engine:name). flite:rms and its like: that voice alone.
    vits:NAME: a VITS of the hub or a folder; its `voices` are numbers of speakers. server: an OpenAI-compatible one at
    `url`, with its `model` and `voices`. at_once: utterances made together. Raises ConfigError, CheckpointError.
    """
    kind, _, rest = spec.partition(":")
    if spec == "offline":
        return Offline(voices or installed(), **({"at_once": at_once} if at_once else {}))
    if kind in PROGRAMS:
        return Offline({"any": (spec,)}, **({"at_once": at_once} if at_once else {}))
    if kind == "vits" and rest:
        from omnivox.data.vits import Vits

        return Vits(rest, voices or {"any": ("0",)}, device)
    if spec == "server":
        from omnivox.data.tts_server import SpeechServer

        if not url or not model or not voices:
            raise ConfigError("server: needs its URL, a model and the names of its voices, such as "
                              "http://127.0.0.1:8880/v1, kokoro, af_heart")
        return SpeechServer(url, model, voices, api_key, at_once=at_once or 4)
    raise ConfigError(f"voice: found {spec!r}; expected offline, flite:NAME, espeak:NAME, festival:NAME, "
                      "vits:FOLDER-OR-HUB-NAME, or server")
