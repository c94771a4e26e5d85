"""Whisper's log-mel spectrogram (Radford et al. 2022), for any number of mel bins.

Shapes: B batch, N samples, T mel frames (100 per second), F frequency bins (201), C mel bins.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from omnivox.rates import CHUNK_SAMPLES, HOP_LENGTH, N_FFT, SAMPLE_RATE

_LINEAR_HZ = 200 / 3  # Slaney's mel scale: linear below 1 kHz at this many Hz per mel ...
_LOG_START = 1000.0 / _LINEAR_HZ  # ... and logarithmic above
_LOG_STEP = math.log(6.4) / 27


def _hz_to_mel(hz: Tensor) -> Tensor:
    return torch.where(hz < 1000, hz / _LINEAR_HZ, _LOG_START + (hz.clamp(min=1000) / 1000).log() / _LOG_STEP)


def _mel_to_hz(mel: Tensor) -> Tensor:
    return torch.where(mel < _LOG_START, mel * _LINEAR_HZ, 1000 * (_LOG_STEP * (mel - _LOG_START)).exp())


def mel_filters(n_mels: int, n_fft: int = N_FFT, rate: int = SAMPLE_RATE) -> Tensor:
    """Slaney-normalised triangular filters from 0 Hz to half the rate, [C, F] float32."""
    frequencies = torch.linspace(0, rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    highest = _hz_to_mel(torch.tensor(rate / 2, dtype=torch.float64, device="cpu")).item()
    edges = _mel_to_hz(torch.linspace(0, highest, n_mels + 2, dtype=torch.float64))
    width = edges.diff()
    slopes = edges[:, None] - frequencies
    rising, falling = -slopes[:-2] / width[:-1, None], slopes[2:] / width[1:, None]
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).float()


def pad_or_cut(wave: Tensor, samples: int = CHUNK_SAMPLES) -> Tensor:
    """Zero-pad or cut waveforms [..., N] to `samples`."""
    return F.pad(wave[..., :samples], (0, max(0, samples - wave.shape[-1])))


def power_spectrogram(wave: Tensor) -> Tensor:
    """|STFT|² of waveforms [B, N] with a periodic Hann window, centred by reflection, last frame dropped: [B, F, T]."""
    window = torch.hann_window(N_FFT, device=wave.device)
    spectrum = torch.stft(wave, N_FFT, HOP_LENGTH, window=window, return_complex=True)
    return spectrum[..., :-1].abs().square()


def compress(mel: Tensor) -> Tensor:
    """Whisper's range compression of mel energies [B, C, T]: log10, at most 8 below each row's maximum, (x + 4) / 4."""
    log = mel.clamp(min=1e-10).log10()
    floor = log.amax(dim=(-2, -1), keepdim=True) - 8
    return (torch.maximum(log, floor) + 4) / 4


def log_mel(wave: Tensor, filters: Tensor) -> Tensor:
    """Log-mel spectrogram [B, T, C] of waveforms [B, N] at 16 kHz; T = N // 160.

    Waveforms shorter than 201 samples cannot be reflected: they are zero-padded to one window first.
    """
    if wave.shape[-1] < N_FFT:
        wave = pad_or_cut(wave, N_FFT)
    return compress(filters @ power_spectrogram(wave)).transpose(1, 2)
