"""Sets of numbers computed by the published implementation, wherever they lie, and what they hold.

A set is a folder `omni_*` or `vocoder_*` under `tests/fixtures/reference`, `shared/reference` beside the project, or
in a folder that the environment variable OMNIVOX_REFERENCE names (several: joined as in PATH; a set itself will do).
Every size is read from the set's own files, and what a set does not hold is not tested on it.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import soundfile
import torch
from safetensors.torch import load_file
from torch import Tensor

from omnivox.checkpoint import load_checkpoint
from omnivox.model.omni import SpokenBatch, SpokenLM

ROOT = Path(__file__).parents[2]
PLACES = [ROOT / "tests/fixtures/reference", ROOT.parent / "shared/reference"]
PLACES += [Path(place) for place in os.environ.get("OMNIVOX_REFERENCE", "").split(os.pathsep) if place]


def sets(kind: str) -> list[Path]:
    """The folders of one kind of set."""
    candidates = [folder for place in PLACES for folder in (place, *sorted(place.glob(f"{kind}_*")))]
    return [folder for folder in candidates if folder.is_dir() and folder.name.startswith(f"{kind}_")]


def label(folder: Path) -> str:
    """What a set is called in a test's name."""
    return "/".join(folder.parts[-3:])


@dataclass
class OmniReference:
    """One set `omni_*`."""

    folder: Path

    @cached_property
    def model(self) -> SpokenLM:
        return load_checkpoint(self.folder, device="cpu", dtype="float32").model

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        return load_file(self.folder / "inputs.safetensors")

    @cached_property
    def outputs(self) -> dict[str, Tensor]:
        return load_file(self.folder / "outputs.safetensors")

    @cached_property
    def facts(self) -> dict[str, Any]:
        return json.loads((self.folder / "outputs.json").read_text())

    @cached_property
    def config(self) -> dict[str, Any]:
        return json.loads((self.folder / "config.json").read_text())

    @cached_property
    def cases(self) -> list[str]:
        """case0, case1, ..."""
        found = [name.removesuffix(".input_ids") for name in self.inputs if name.endswith(".input_ids")]
        return sorted(found, key=lambda name: int(name.removeprefix("case")))

    @property
    def spoken(self) -> list[str]:
        """Those with speech."""
        return [case for case in self.cases if f"{case}.mel_prefix" in self.inputs]

    def mel(self, case: str) -> Tensor:
        """[T, C], the constant rows at the end included."""
        prefix, frames = self.inputs[f"{case}.mel_prefix"], int(self.inputs[f"{case}.speech_lengths"])
        padding = self.inputs[f"{case}.mel_pad_value"].expand(frames - len(prefix), prefix.shape[1])
        return torch.cat([prefix, padding])

    def wave(self, case: str) -> Tensor | None:
        """Samples [n] at 16 kHz, where the set has them, as a file or as numbers."""
        path = self.folder / "wav" / f"{case}_16k.wav"
        if path.exists():
            return torch.from_numpy(soundfile.read(path, dtype="float32")[0])
        numbers = self.inputs.get(f"{case}.wave_int16")
        return None if numbers is None else numbers.float() / 32768

    def expected(self, case: str, name: str) -> Tensor | None:
        """An output, or its first rows: what is there."""
        for key, tensor in self.outputs.items():
            if re.fullmatch(rf"{case}\.{name}(_first\d+)?", key):
                return tensor
        return None

    def embeds(self, case: str) -> Tensor:
        """Our embeddings of a case's prompt [P, D]."""
        speech = self.model.encode(self.mel(case)[None]).row(0) if case in self.spoken else None
        return self.model.embed_prompt(self.inputs[f"{case}.input_ids"], speech)

    # -- training -----------------------------------------------------------------------------------------------------

    @property
    def trains(self) -> bool:
        return (self.folder / "train_batch.safetensors").exists()

    @cached_property
    def train_outputs(self) -> dict[str, Tensor]:
        return load_file(self.folder / "train_outputs.safetensors")

    @cached_property
    def train_facts(self) -> dict[str, Any]:
        return json.loads((self.folder / "train_outputs.json").read_text())

    @cached_property
    def batch(self) -> SpokenBatch:
        """Row b asks what case b asks."""
        given = load_file(self.folder / "train_batch.safetensors")
        mel = torch.stack([self.mel(case) for case in self.spoken[: len(given["input_ids"])]])
        return SpokenBatch(given["input_ids"], given["labels"], given["attention_mask"].sum(1), mel,
                           given["speech_lengths"], given["tgt_units"], (given["tgt_units"] >= 0).sum(1))
