"""What a vocoder learns from: a voice's waveforms with their units and their pitch, cut into windows.

Shapes: B batch, F unit frames of a window, M frames to speak, N = M·S samples, H hops, U merged units.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor

from omnivox.errors import DataError
from omnivox.model.source_filter import SourceFilter
from omnivox.model.units import Quantiser, merge_repeats
from omnivox.model.vocoder import Window
from omnivox.train.units import waveform
from omnivox.writing import atomic

log = logging.getLogger(__name__)


def track_pitch(wave: NDArray[np.float32], rate: int, hop: int) -> NDArray[np.float32]:
    """Hertz at the end of each hop [N // hop], 0 where unvoiced (WORLD's DIO and StoneMask; Morise et al. 2016)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pyworld still asks for pkg_resources
        import pyworld
    samples, count = wave.astype(np.float64), len(wave) // hop
    hertz, times = pyworld.dio(samples, rate, f0_floor=60.0, f0_ceil=400.0, frame_period=1000 * hop / rate)
    hertz = pyworld.stonemask(samples, hertz, times, rate)[1 : count + 1]
    return np.pad(hertz, (0, count - len(hertz))).astype(np.float32)


def fill_unvoiced(hertz: NDArray[np.float32], otherwise: float) -> NDArray[np.float32]:
    """Pitch drawn straight across unvoiced stretches."""
    voiced = np.flatnonzero(hertz)
    if not len(voiced):
        return np.full_like(hertz, otherwise)
    return np.interp(np.arange(len(hertz)), voiced, hertz[voiced]).astype(np.float32)


def nearest_units(quantiser: Quantiser, count: int = 6) -> NDArray[np.int64]:
    """For each unit of a k-means quantiser those with the nearest centres, [K, count]. Raises DataError: no centres."""
    centres = getattr(quantiser, "centres", None)
    if centres is None:
        raise DataError("confused: the quantiser has no centres, so no unit is near another; set it to 0")
    distance = torch.cdist(centres, centres).fill_diagonal_(torch.inf)
    found: NDArray[np.int64] = distance.topk(min(count, len(centres) - 1), largest=False).indices.numpy()
    return found


def confuse(units: NDArray[np.int64], near: NDArray[np.int64], share: float, rng: np.random.Generator
            ) -> NDArray[np.int64]:
    """`units` as a speech decoder gives them: some frames have a near unit, as many the one of the frame before."""
    drawn, moved = rng.random(len(units)), np.roll(units, 1)
    moved[:1] = units[:1]
    other = near[units, rng.integers(0, near.shape[1], len(units))]
    return np.where(drawn < share / 2, other, np.where(drawn < share, moved, units))


@dataclass
class Batch:
    """window: the frames to speak, with their context; hertz, voiced: [B, H] at the hops that `SourceFilter.pitch` is
    asked for; samples: [B, N] what it should sound like; heard: [B, N] where there is sound to compare with."""

    window: Window
    hertz: Tensor
    voiced: Tensor
    samples: Tensor
    heard: Tensor


class Voice:
    """A corpus of one voice, held in memory with its units and its pitch."""

    def __init__(self, corpus: Sequence[Any], quantiser: Quantiser, cache: Path, *, hours: float, hop: int, rate: int,
                 confused: float = 0.0, seed: int = 0, often: Sequence[int] = (), share: float = 0.0) -> None:
        """At most `hours` of `corpus`, drawn by `seed`. Pitch is tracked once and kept in `cache`.

        confused: share of the frames of `batch` whose unit is another one, see `confuse`. often: utterances that are
        among them in any case, and are `share` of what is drawn in training.
        """
        self.frame_samples, self.hop, self.confused = quantiser.frame_samples, hop, confused
        self.near = nearest_units(quantiser) if confused else None
        self.waves: list[NDArray[np.float32]] = []
        self.units: list[Tensor] = []
        total, known = 0, 0
        rest = np.random.default_rng(seed).permutation(len(corpus))
        for place, index in enumerate([*often, *(index for index in rest if index not in often)]):
            wave = waveform(corpus[int(index)])
            units = quantiser.encode(wave)
            if len(units) >= 2:
                self.units.append(units)
                self.waves.append(wave[: len(units) * self.frame_samples].numpy())
                total += len(self.waves[-1])
                known += place < len(often)
            if total >= hours * 3600 * rate:
                break
        if not self.waves:
            raise DataError("corpus: holds no utterance of two unit frames or more; nothing can be learnt from it")
        self.hertz = self._pitch(cache, rate)
        voiced = np.concatenate(self.hertz)
        self.median_hz = float(np.median(voiced[voiced > 0])) if (voiced > 0).any() else 115.0
        self.hours = total / rate / 3600
        self.weights = np.array([len(units) for units in self.units], dtype=np.float64)
        self.weights /= self.weights.sum()
        if 0 < known < len(self.weights):
            self.weights[:known] *= share / self.weights[:known].sum()
            self.weights[known:] *= (1 - share) / self.weights[known:].sum()

    def _pitch(self, cache: Path, rate: int) -> list[NDArray[np.float32]]:
        counts = np.array([len(wave) // self.hop for wave in self.waves])
        if cache.exists():
            kept = load_file(cache)
            if np.array_equal(kept["counts"], counts):
                return list(np.split(kept["hertz"], counts.cumsum()[:-1]))
        tracks = []
        for number, wave in enumerate(self.waves):
            tracks.append(track_pitch(wave, rate, self.hop))
            if number % 500 == 499:
                log.info("pitch: %d of %d utterances", number + 1, len(self.waves))
        with atomic(cache) as temporary:
            save_file({"counts": counts, "hertz": np.concatenate(tracks)}, temporary)
        return tracks

    def merged(self, rng: np.random.Generator, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Merged units [B, U] of whole utterances, their durations in frames [B, U] and how many are real [B]."""
        picks = rng.choice(len(self.units), batch, p=self.weights)
        pairs = [merge_repeats(self.units[pick]) for pick in picks]
        units, durations = ([pair[i] for pair in pairs] for i in range(2))
        length = torch.tensor([len(u) for u in units])
        pad = torch.nn.utils.rnn.pad_sequence
        return pad(units, batch_first=True), pad(durations, batch_first=True), length

    def batch(self, vocoder: SourceFilter, rng: np.random.Generator, rows: int, speak: int) -> Batch:
        """Windows of `speak` frames from anywhere in the corpus, with all the context that their vocoder asks for."""
        left, right = vocoder.context
        hop_lead, hop_tail = vocoder.pulse_hops + 1, vocoder.pulse_hops
        cuts: dict[str, list[Any]] = {name: [] for name in ("units", "valid", "hertz", "voiced", "samples", "heard")}
        positions = []
        for pick in rng.choice(len(self.units), rows, p=self.weights):
            units, hertz, wave = self.units[pick].numpy(), self.hertz[pick], self.waves[pick]
            if self.near is not None:
                units = confuse(units, self.near, self.confused, rng)
            start = int(rng.integers(0, max(1, len(units) - speak + 1)))
            hops, samples = vocoder.hops, self.frame_samples
            positions.append(start)
            cuts["units"].append(_cut(units, start - left, start + speak + right))
            cuts["valid"].append(_cut(np.ones(len(units), dtype=bool), start - left, start + speak + right))
            span = (start * hops - hop_lead, (start + speak) * hops + hop_tail)
            cuts["hertz"].append(_cut(fill_unvoiced(hertz, self.median_hz), *span, mode="edge"))
            cuts["voiced"].append(_cut((hertz > 0).astype(np.float32), *span))
            cuts["samples"].append(_cut(wave, start * samples, (start + speak) * samples))
            cuts["heard"].append(_cut(np.ones_like(wave), start * samples, (start + speak) * samples))
        stacked = {name: torch.from_numpy(np.stack(parts)) for name, parts in cuts.items()}
        phase = torch.from_numpy(rng.random(rows)).to(vocoder.phase_dtype)
        window = Window(stacked["units"], stacked["valid"], left, speak, torch.tensor(positions), phase)
        return Batch(window, stacked["hertz"], stacked["voiced"], stacked["samples"], stacked["heard"])


def _cut(values: NDArray[Any], start: int, end: int, mode: Any = "constant") -> NDArray[Any]:
    """values[start:end], padded where the bounds lie outside."""
    start_in, end_in = min(max(start, 0), len(values) - 1), min(end, len(values))
    return np.pad(values[start_in:end_in], (start_in - start, end - end_in), mode=mode)
