"""VITS (Kim, Kong and Son 2021) through transformers: `kakao-enterprise/vits-ljs` speaks the paper's answers.

Models that read phonemes get them from espeak-ng, the program, with the punctuation kept in its place.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import torch

from omnivox.checkpoint.files import find_folder, read_json
from omnivox.data.speaker import Voices, at_16k, program
from omnivox.errors import CheckpointError, ConfigError, DataError
from omnivox.nano.voices import Samples

PLAIN_SEED = 0  # of the noise, where no manner is asked for
_PUNCTUATION = re.compile(r"(\s*[;:,.!?¡¿—…\"«»“”()]+\s*)")
_LANGUAGE = re.compile(r"\([a-z-]+\)")  # espeak's marks where it changes language
_lock = threading.Lock()  # torch's random numbers are one stream for all threads


@dataclass(frozen=True)
class Vits:
    """`name`: a folder or a name of the hub. `voices`: numbers of its speakers, as text; "0" where it has but one.

    max_seconds: longer speech is refused as runaway durations. Raises CheckpointError on first use.
    """

    name: str
    voices: Voices = field(default_factory=lambda: {"any": ("0",)})
    device: str = "cpu"
    rate: float = 1.0  # of speaking
    max_seconds: float = 180.0
    at_once: ClassVar[int] = 1

    def settings(self) -> Mapping[str, Any]:
        return {"engine": "vits", "model": self.name, "rate": self.rate,
                "voices": {sex: list(names) for sex, names in self.voices.items()}}

    def speak(self, text: str, voice: str, seed: int | None) -> Samples:
        with _lock, _own_random_numbers(self.device):  # weights are drawn before they are read
            model, tokenizer, phonemes = _load(self.name, self.device)
        speakers = model.config.num_speakers
        if not voice.isdigit() or int(voice) >= speakers:
            raise ConfigError(f"voice: found {voice!r}; {self.name} has {speakers}, numbered from 0")
        ids = tokenizer(phonemised(text) if phonemes else text, return_tensors="pt").input_ids
        if ids.numel() < 2:
            raise DataError(f"text {text!r}: holds nothing that {self.name} can speak")
        with _lock, torch.no_grad(), _own_random_numbers(self.device):
            torch.manual_seed(PLAIN_SEED if seed is None else seed % 2**63)
            model.speaking_rate = self.rate
            spoken = model(ids.to(model.device), speaker_id=int(voice) if speakers > 1 else None).waveform[0]
        samples = spoken.float().cpu().numpy()
        if not len(samples) or len(samples) > self.max_seconds * model.config.sampling_rate:
            raise DataError(f"{self.name}: {len(samples) / model.config.sampling_rate:.0f} s for {text[:60]!r}; "
                            f"expected {self.max_seconds:g} s at most")
        return at_16k(samples, model.config.sampling_rate)


def _own_random_numbers(device: str) -> AbstractContextManager[None]:
    """Whoever else draws from torch's random numbers will not notice what is drawn inside."""
    return torch.random.fork_rng([torch.device(device)] if device.startswith("cuda") else [])


@cache
def _load(name: str, device: str) -> tuple[Any, Any, bool]:
    """The model, its tokenizer, and whether it reads phonemes."""
    from transformers import VitsModel, VitsTokenizer

    folder = find_folder(name)
    found = read_json(folder / "config.json").get("model_type")
    if found != "vits":
        raise CheckpointError(f"{folder / 'config.json'}: model_type is {found!r}; expected 'vits'")
    try:
        loaded: Any = VitsModel.from_pretrained(folder, output_loading_info=True)
        model, told = loaded
        tokenizer = VitsTokenizer.from_pretrained(folder)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: no VITS that can be read ({type(error).__name__}: "
                              f"{str(error).splitlines()[0] if str(error) else 'no reason given'})") from error
    if told["missing_keys"]:
        raise CheckpointError(f"{folder}: tensor {sorted(told['missing_keys'])[0]!r} is missing")
    phonemes, tokenizer.phonemize = tokenizer.phonemize, False
    if phonemes:
        program("espeak-ng")
    return model.to(device).eval(), tokenizer, phonemes


def phonemised(text: str) -> str:
    """`text` in the International Phonetic Alphabet, as American English, with its punctuation.

    Raises ConfigError: espeak-ng is missing. DataError: it failed.
    """
    parts = _PUNCTUATION.split(" ".join(text.split()))
    words = [" ".join(part.split()) for part in parts[::2]]
    command = [program("espeak-ng"), "-q", "--ipa", "-v", "en-us", "-b", "1", "--stdin"]
    lines = [_spoken(command, part) if part else "" for part in words]
    marks = [*(mark.strip() + " " if mark[-1:].isspace() else mark for mark in parts[1::2]), ""]
    return "".join(line + mark for line, mark in zip(lines, marks, strict=True)).strip()


def _spoken(command: list[str], words: str) -> str:
    done = subprocess.run(command, input=words.encode(), capture_output=True, check=False, timeout=60)
    if done.returncode:
        raise DataError(f"espeak-ng: no phonemes for {words[:60]!r}: {done.stderr.decode(errors='replace')[-200:]}")
    return " ".join(_LANGUAGE.sub("", done.stdout.decode()).split())
