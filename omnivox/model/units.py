"""Discrete units of speech: the nearest of K centres to each frame of a waveform's features.

Published systems quantise a HuBERT layer; the bundled model quantises mel-cepstra. Both offer `encode`.

Shapes: N samples, T mel frames (100 per second), U unit frames, C cepstral coefficients, D = 2·C features, K units.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnivox.model.config import MfccConfig
from omnivox.model.mel import mel_filters, power_spectrogram
from omnivox.rates import HOP_LENGTH, N_FFT, exact_div

POWER_FLOOR = 1e-5  # mel power below which everything is silence: digital silence must not be a unit of its own


class Quantiser(Protocol):
    """Speech to units."""

    units: int
    frame_samples: int

    def encode(self, wave: Tensor) -> Tensor:
        """Units [N // frame_samples] int64 of a waveform [N] at 16 kHz."""
        ...


def merge_repeats(units: Tensor) -> tuple[Tensor, Tensor]:
    """Units [U] without equal neighbours, and how many frames each lasted (the same shape, int64)."""
    merged, durations = torch.unique_consecutive(units, return_counts=True)
    return merged, durations


def cepstral_transform(coefficients: int, n_mels: int) -> Tensor:
    """The orthonormal DCT-II, [coefficients, n_mels] float32."""
    mel = torch.arange(n_mels, dtype=torch.float64) + 0.5
    rows = torch.cos(math.pi / n_mels * torch.arange(coefficients, dtype=torch.float64)[:, None] * mel)
    rows *= math.sqrt(2 / n_mels)
    rows[0] /= math.sqrt(2)
    return rows.float()


class MfccKmeans(nn.Module):
    """Mel-cepstra and their slopes, averaged over each unit frame and normalised, to the nearest centre."""

    mean: Tensor
    deviation: Tensor
    centres: Tensor
    filters: Tensor
    transform: Tensor
    slope: Tensor

    def __init__(self, config: MfccConfig) -> None:
        super().__init__()
        self.config = config
        self.units = config.units
        self.frame_samples = config.frame_samples
        self.mels_per_unit = exact_div(config.frame_samples, HOP_LENGTH)
        width = 2 * config.coefficients
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.register_buffer("centres", torch.zeros(config.units, width))
        reach = config.slope_frames
        offsets = torch.arange(-reach, reach + 1).float()
        self.register_buffer("filters", mel_filters(config.n_mels), persistent=False)
        self.register_buffer("transform", cepstral_transform(config.coefficients, config.n_mels), persistent=False)
        self.register_buffer("slope", (offsets / offsets.square().sum()).view(1, 1, -1), persistent=False)

    def features(self, wave: Tensor) -> Tensor:
        """Features [U, D] of a waveform [N] before normalisation; U = N // frame_samples."""
        count = wave.shape[0] // self.frame_samples
        if not count:
            return wave.new_zeros(0, 2 * self.config.coefficients)
        if wave.shape[0] < N_FFT:
            wave = F.pad(wave, (0, N_FFT - wave.shape[0]))
        mel = self.filters @ power_spectrogram(wave[None])[0]
        cepstra_CT = self.transform @ mel.clamp(min=POWER_FLOOR).log()
        reach = self.config.slope_frames
        padded = F.pad(cepstra_CT[:, None], (reach, reach), mode="replicate")
        slopes_CT = F.conv1d(padded, self.slope)[:, 0]
        both: Tensor = torch.cat([cepstra_CT, slopes_CT])[:, : count * self.mels_per_unit]
        means: Tensor = both.unflatten(1, (count, self.mels_per_unit)).mean(2)
        return means.T

    def nearest(self, features_UD: Tensor) -> Tensor:
        """Index [U] of the centre nearest to each row of features."""
        normal = (features_UD - self.mean) / self.deviation
        distance = self.centres.square().sum(1) - 2 * normal @ self.centres.T
        return torch.argmin(distance, 1)

    @torch.no_grad()
    def encode(self, wave: Tensor) -> Tensor:
        """Units [N // frame_samples] int64 of a waveform [N] at 16 kHz."""
        return self.nearest(self.features(wave))
