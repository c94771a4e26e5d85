"""Quantising speech: the features, the nearest centre, and k-means."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from omnivox.errors import DataError
from omnivox.model.config import MfccConfig
from omnivox.model.units import MfccKmeans, cepstral_transform, merge_repeats
from omnivox.train.units import UnitsRecipe, kmeans, load_units, train_units

CONFIG = MfccConfig(units=6)


def tones(seconds: float, seed: int) -> torch.Tensor:
    """A tune of harmonic tones, one every 80 ms."""
    generator = torch.Generator().manual_seed(seed)
    count = int(seconds / 0.08)
    hertz = torch.randint(1, 6, (count,), generator=generator) * 400.0
    t = torch.arange(count * 1280) / 16_000
    return torch.sin(2 * torch.pi * hertz.repeat_interleave(1280) * t) * 0.3


def test_merged_units_and_durations_give_the_frames_back() -> None:
    frames = torch.tensor([4, 4, 4, 1, 2, 2, 4])
    units, durations = merge_repeats(frames)
    assert units.tolist() == [4, 1, 2, 4]
    assert torch.equal(units.repeat_interleave(durations), frames)


def test_the_cepstral_transform_is_orthonormal() -> None:
    whole = cepstral_transform(40, 40).double()
    torch.testing.assert_close(whole @ whole.T, torch.eye(40, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("samples", [0, 1, 639, 640, 1279, 16_000, 16_001])
def test_one_unit_for_each_whole_frame(samples: int) -> None:
    quantiser = MfccKmeans(CONFIG)
    quantiser.centres.normal_()
    units = quantiser.encode(torch.randn(samples) * 0.1)
    assert units.shape == (samples // 640,)
    assert units.dtype == torch.long


def test_kmeans_finds_separate_clouds_whatever_the_order() -> None:
    torch.manual_seed(0)
    truth = torch.randn(5, 3) * 10
    rows = torch.cat([centre + 0.1 * torch.randn(200, 3) for centre in truth])
    found = kmeans(rows, 5, iterations=10, seed=1)
    assert torch.cdist(truth, found).min(1).values.max() < 0.1
    assert torch.equal(found, kmeans(rows, 5, iterations=10, seed=1)), "the same seed gives the same centres"


def test_trained_saved_and_loaded(tmp_path: Path) -> None:
    corpus = [tones(2.0, seed).numpy() for seed in range(6)]
    path = tmp_path / "units.safetensors"
    trained = train_units(corpus, path, CONFIG, UnitsRecipe(iterations=5))
    loaded = load_units(path, CONFIG)
    wave = tones(2.0, seed=99)
    assert torch.equal(loaded.encode(wave), trained.encode(wave))
    assert len(trained.encode(wave).unique()) > 2
    again = train_units([], path, CONFIG)  # found, so not trained again
    assert torch.equal(again.centres, trained.centres)


def test_too_little_to_learn_from_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds 1 unit frames"):
        train_units([tones(0.08, 0)[:700].numpy()], tmp_path / "units.safetensors", CONFIG)
    assert not list(tmp_path.iterdir())
