"""The numpy resampler is the torch one, at any chunking."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omnivox.model import resample as tensors
from omnivox.runtime.resample import Resampler

RATES = [(24_000, 16_000), (16_000, 24_000), (8_000, 16_000), (16_000, 8_000), (22_050, 24_000)]


@pytest.mark.parametrize(("source", "target"), RATES)
@pytest.mark.parametrize("packet", [1, 37, 480, 5000])
def test_it_equals_the_torch_one(source: int, target: int, packet: int) -> None:
    samples = np.random.default_rng(0).standard_normal(3001).astype(np.float32)
    expected = tensors.Resampler(source, target)(torch.from_numpy(samples)[None])[0].numpy()
    resampler = Resampler(source, target)
    pieces = [resampler.push(samples[at:at + packet]) for at in range(0, len(samples), packet)]
    made = np.concatenate([*pieces, resampler.flush()])
    assert len(made) == len(expected) == -(-len(samples) * target // source)
    np.testing.assert_allclose(made, expected, atol=2e-5)


def test_nothing_in_nothing_out() -> None:
    resampler = Resampler(24_000, 16_000)
    assert len(resampler.push(np.zeros(0, np.float32))) == len(resampler.flush()) == 0


def test_rates_are_positive() -> None:
    with pytest.raises(ValueError, match="found rates 0 and 16000 Hz"):
        Resampler(0, 16_000)
