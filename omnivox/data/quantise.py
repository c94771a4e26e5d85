"""Stage 5: the units of each answer, repeats merged, as the speech decoder is to predict them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omnivox.checkpoint.files import open_tensors
from omnivox.checkpoint.hubert import load_centres
from omnivox.data.hubert import LAYER, HubertKmeans
from omnivox.data.records import Rejected, Row
from omnivox.data.stage import Outcome, Stage
from omnivox.errors import AudioError, CheckpointError, ConfigError
from omnivox.model.config import MfccConfig
from omnivox.model.units import MfccKmeans, Quantiser, merge_repeats
from omnivox.sound import read_audio

MAX_SECONDS = 3600.0  # of one answer
OURS = "units.safetensors"


class QuantiseStage(Stage):
    """model: a HuBERT (folder, hub name, fairseq's .pt) with its `centres`; or, without, a quantiser of ours: the file
    units.safetensors or a folder with it. `batch` answers are encoded at once. Raises ConfigError, CheckpointError."""

    name = "quantise"

    def __init__(self, model: str | Path, centres: str | Path | None = None, layer: int = LAYER, device: str = "cpu",
                 batch: int = 16) -> None:
        if batch < 1:
            raise ConfigError(f"batch: found {batch}; expected 1 or more")
        self.model, self.centres, self.layer = str(model), None if centres is None else str(centres), layer
        self.device, self.batch = device, batch
        file = _own_file(self.model) if self.centres is None else Path(self.centres)
        self.units = len(load_centres(file)) if self.centres else _own(file).units
        self._digest = hashlib.sha256(file.read_bytes()).hexdigest()

    def settings(self) -> Mapping[str, Any]:
        return {"model": self.model, "layer": self.layer if self.centres else None, "centres": self._digest,
                "units": self.units}

    def apply(self, rows: Sequence[Row], build: Path) -> Iterator[Outcome]:
        quantiser = load_quantiser(self.model, self.centres, self.layer, self.device)
        group: list[Row] = []
        for row in rows:
            group.append(row)
            if sum(len(one.turns) for one in group) >= self.batch:
                yield from _quantised(group, build, quantiser)
                group = []
        yield from _quantised(group, build, quantiser)


def _quantised(rows: Sequence[Row], build: Path, quantiser: Quantiser) -> Iterator[Outcome]:
    heard = [_heard(row, build) for row in rows]
    units = iter(_encode(quantiser, [wave for waves in heard if not isinstance(waves, Rejected) for wave in waves]))
    for row, waves in zip(rows, heard, strict=True):
        if isinstance(waves, Rejected):
            yield waves
            continue
        found = [merge_repeats(next(units))[0].tolist() for _ in waves]
        empty = next((index for index, one in enumerate(found, 1) if not one), None)
        yield Rejected(f"units: the answer of turn {empty} is too short for one") if empty else row.with_turns(
            [replace(turn, units=tuple(one)) for turn, one in zip(row.turns, found, strict=True)])


def _heard(row: Row, build: Path) -> list[Tensor] | Rejected:
    waves = []
    for index, turn in enumerate(row.turns, 1):
        if turn.answer_audio is None:
            return Rejected(f"unspoken: the answer of turn {index} has no sound")
        try:
            waves.append(read_audio(build / turn.answer_audio.path, max_seconds=MAX_SECONDS))
        except AudioError as error:
            return Rejected(f"sound: {error}")
    return waves


def _encode(quantiser: Quantiser, waves: list[Tensor]) -> list[Tensor]:
    if isinstance(quantiser, HubertKmeans):
        return quantiser.encode_many(waves)
    return [quantiser.encode(wave) for wave in waves]


@cache
def load_quantiser(model: str, centres: str | None = None, layer: int = LAYER, device: str = "cpu") -> Quantiser:
    """As `QuantiseStage` takes it; one in each process. Raises CheckpointError, ConfigError."""
    if centres is None:
        return _own(_own_file(model))
    return HubertKmeans.load(model, centres, layer, device)


def _own_file(model: str) -> Path:
    path = Path(model)
    file = path / OURS if path.is_dir() else path
    if file.suffix != ".safetensors" or not file.is_file():
        raise ConfigError(f"--quantiser: {model} holds no {OURS}; a HuBERT needs --centres, its k-means file, beside")
    return file


def _own(file: Path) -> MfccKmeans:
    """A quantiser of ours: its widths are those of its tensors, its frames those of every one we train."""
    tensors = open_tensors(file)
    centres = tensors.required("centres")
    if centres.ndim != 2 or centres.shape[1] % 2:
        raise CheckpointError(f"{file}: centres are {list(centres.shape)}; expected [K, 2 x coefficients]")
    quantiser = MfccKmeans(MfccConfig(units=centres.shape[0], coefficients=centres.shape[1] // 2))
    state = {name: tensors.required(name) for name in ("mean", "deviation", "centres")}
    try:
        quantiser.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{file}: {str(error).splitlines()[-1].strip()}") from error
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise CheckpointError(f"{file}: holds numbers that are not finite")
    return quantiser.eval()
