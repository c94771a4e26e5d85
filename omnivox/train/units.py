"""Learn a quantiser: k-means over the features of one voice (Lloyd 1982, seeded by k-means++).

Shapes: N rows of features, D features, K centres.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from omnivox.errors import DataError
from omnivox.model.config import MfccConfig
from omnivox.model.units import MfccKmeans
from omnivox.writing import atomic

log = logging.getLogger(__name__)
_BLOCK = 16_384  # rows whose distances to all centres are held at once


@dataclass(frozen=True)
class UnitsRecipe:
    """How the centres are sought."""

    frames: int = 200_000  # at most so many frames are looked at, spread over the whole corpus
    iterations: int = 30
    seed: int = 0


def waveform(item: Any) -> Tensor:
    """The samples [n] float32 of a corpus item: an array, or an utterance with an `audio` field."""
    samples = getattr(item, "audio", item)
    return torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))


def seed_centres(rows_ND: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """k-means++ (Arthur and Vassilvitskii 2007): each next centre drawn with the square of its distance."""
    first = int(torch.randint(len(rows_ND), (1,), generator=generator))
    chosen = [rows_ND[first]]
    distance_N = (rows_ND - chosen[0]).square().sum(1)
    for _ in range(k - 1):
        drawn = int(torch.multinomial(distance_N.clamp(min=1e-12), 1, generator=generator))
        chosen.append(rows_ND[drawn])
        distance_N = torch.minimum(distance_N, (rows_ND - chosen[-1]).square().sum(1))
    return torch.stack(chosen)


def _assign(rows_ND: Tensor, centres_KD: Tensor) -> tuple[Tensor, float]:
    """The nearest centre of each row [N], and the mean squared distance to it."""
    bias = centres_KD.square().sum(1)
    labels, total = [], 0.0
    for block in rows_ND.split(_BLOCK):
        distance, label = (bias - 2 * block @ centres_KD.T).min(1)
        labels.append(label)
        total += float((distance + block.square().sum(1)).sum())
    return torch.cat(labels), total / len(rows_ND)


def kmeans(rows_ND: Tensor, k: int, iterations: int, seed: int) -> Tensor:
    """Centres [K, D]. An empty centre is put on a row drawn at random. The same rows and seed give the same centres."""
    generator = torch.Generator().manual_seed(seed)
    sample = rows_ND[torch.randperm(len(rows_ND), generator=generator)[: 100 * k]]
    centres = seed_centres(sample, k, generator)
    for iteration in range(iterations):
        labels, error = _assign(rows_ND, centres)
        counts = torch.bincount(labels, minlength=k)
        sums = torch.zeros_like(centres).index_add_(0, labels, rows_ND)
        strays = rows_ND[torch.randint(len(rows_ND), (k,), generator=generator)]
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], strays)
        if iteration % 10 == 0 or iteration == iterations - 1:
            log.info("k-means %d/%d: mean squared distance %.4f", iteration + 1, iterations, error)
    return centres


def train_units(corpus: Sequence[Any], out: Path, config: MfccConfig | None = None,
                recipe: UnitsRecipe | None = None) -> MfccKmeans:
    """Fit a quantiser to a corpus of one voice (16 kHz waveforms) and save it to `out`; if there already, load it."""
    config, recipe = config or MfccConfig(), recipe or UnitsRecipe()
    if out.exists():
        return load_units(out, config)
    quantiser = MfccKmeans(config)
    rows, seen = [], 0
    for index in np.random.default_rng(recipe.seed).permutation(len(corpus)):
        rows.append(quantiser.features(waveform(corpus[int(index)])))
        seen += len(rows[-1])
        if seen >= recipe.frames:
            break
    if seen < config.units:
        raise DataError(f"corpus: holds {seen} unit frames; at least as many as units ({config.units}) are needed")
    features = torch.cat(rows)
    quantiser.mean.copy_(features.mean(0))
    quantiser.deviation.copy_(features.std(0) + 1e-4)
    normal = (features - quantiser.mean) / quantiser.deviation
    quantiser.centres.copy_(kmeans(normal, config.units, recipe.iterations, recipe.seed))
    with atomic(out) as temporary:
        save_file(quantiser.state_dict(), temporary)
    log.info("units: %d centres from %d frames of %d utterances", config.units, seen, len(rows))
    return quantiser


def load_units(path: Path, config: MfccConfig | None = None) -> MfccKmeans:
    """A quantiser saved by `train_units`."""
    quantiser = MfccKmeans(config or MfccConfig())
    quantiser.load_state_dict(load_file(path))
    return quantiser
