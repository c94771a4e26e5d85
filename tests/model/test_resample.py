"""The resampler against soxr, against its own definition, and in pieces."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
import torch
from scipy import signal

from omnivox.model.resample import Resampler
from omnivox.streaming import Chunk

RATES = (8000, 16000, 22050, 24000, 44100, 48000)
PAIRS = [(a, b) for a in RATES for b in RATES if a != b]


def speech_band_noise(rate: int, seconds: float, top: float) -> np.ndarray:
    """White noise between 100 Hz and `top` Hz, fading in and out."""
    noise = np.random.default_rng(0).standard_normal(int(rate * seconds))
    band = signal.butter(12, [100, top], "bandpass", fs=rate, output="sos")
    return (0.1 * signal.sosfiltfilt(band, noise) * signal.windows.tukey(len(noise), 0.2)).astype(np.float32)


def snr_db(expected: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10(np.square(expected).sum() / np.square(expected - found).sum()))


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_as_good_as_soxr(source: int, target: int) -> None:
    """What lies below 0.8 of both Nyquist frequencies passes as through soxr's high quality."""
    wave = speech_band_noise(source, 0.5, top=min(3400, 0.75 * min(source, target) / 2))
    expected = soxr.resample(wave, source, target, quality="VHQ")
    found = Resampler(source, target)(torch.from_numpy(wave)[None])[0].numpy()
    assert len(found) == -(-len(wave) * target // source)
    n = min(len(expected), len(found))
    assert abs(len(expected) - len(found)) <= 1
    assert snr_db(expected[:n], found[:n]) >= 75


@pytest.mark.parametrize(("source", "target"), [(48000, 16000), (24000, 16000), (16000, 8000), (44100, 22050)])
def test_what_the_lower_rate_cannot_hold_is_silenced(source: int, target: int) -> None:
    time = np.arange(source) / source
    tone = (signal.windows.tukey(source, 0.2) * np.sin(2 * np.pi * 0.51 * target * time)).astype(np.float32)
    found = Resampler(source, target)(torch.from_numpy(tone)[None])[0].numpy()
    assert 20 * np.log10(np.abs(found).max()) < -80


def test_a_constant_stays_a_constant() -> None:
    found = Resampler(22050, 16000)(torch.ones(1, 3000))[0]
    torch.testing.assert_close(found[200:-200], torch.ones_like(found[200:-200]), atol=1e-6, rtol=0)


def test_delay_is_half_a_filter() -> None:
    """An input sample is heard no later than `reach` samples after it."""
    resampler = Resampler(24000, 16000)
    y, _ = resampler.step(Chunk.full(torch.randn(1, 1000)), resampler.initial_state(1))
    assert int(y.length[0]) == -(-(1000 - resampler.reach) * 2 // 3)


def test_long_inputs_are_computed_in_blocks_without_a_seam() -> None:
    wave = speech_band_noise(16000, 2.0, top=3400)
    found = Resampler(16000, 24000)(torch.from_numpy(wave)[None])[0].numpy()
    assert snr_db(soxr.resample(wave, 16000, 24000, quality="VHQ"), found) >= 75


def test_rates_must_be_positive() -> None:
    with pytest.raises(ValueError, match="found rates 16000 and 0 Hz"):
        Resampler(16000, 0)
