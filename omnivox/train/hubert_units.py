"""Units for a new language: k-means over a HuBERT layer's states of recordings, many speakers if there are.

Shapes: T frames, D features, K units.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from omnivox.checkpoint.hubert import load_centres, load_hubert
from omnivox.data.hubert import LAYER, HubertKmeans
from omnivox.errors import DataError
from omnivox.sound import read_audio
from omnivox.train.progress import Bar
from omnivox.train.unit_vocoder import sound_files
from omnivox.train.units import kmeans
from omnivox.writing import atomic


def train_hubert_units(folder: Path, hubert: str | Path, out: Path, units: int = 1000, layer: int = LAYER,
                       frames: int = 1_000_000, iterations: int = 50, seed: int = 0, device: str = "cpu") -> Tensor:
    """Centres [K, D], written to `out` as `omnivox data quantise` reads them; if there already, nothing is done.

    frames: at most so many are looked at, of recordings in a random order. Raises DataError: fewer frames than units.
    """
    if out.exists():
        return load_centres(out)
    model = load_hubert(hubert).to(device)  # type: ignore[arg-type]
    listener = HubertKmeans(model, torch.zeros(units, model.config.hidden_size), layer)
    files = sound_files(folder)
    random.Random(seed).shuffle(files)
    rows, seen = [], 0
    with Bar("units", frames) as bar:
        for path in files:
            [features] = listener.features([read_audio(path)])
            rows.append(features.cpu())
            seen += len(features)
            bar.show(min(seen, frames))
            if seen >= frames:
                break
    if seen < units:
        raise DataError(f"{folder}: holds {seen} frames; at least as many as units ({units}) are needed")
    centres = kmeans(torch.cat(rows)[:frames], units, iterations, seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic(out) as temporary:
        save_file({"centres": centres}, temporary)
    return centres
