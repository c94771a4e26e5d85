"""Rooms, noises, telephones and other mouths: what happens to a question between a person and the model.

    wave ─ speed ─ margins ─ microphone ─ room ─ noise ─ telephone ─ mu-law ─ clipping ─ gain ─► augmented wave

`augment` draws all of it from one torch.Generator, so the same seed hears the same room; `add_noise` alone reaches an
exact signal-to-noise ratio for evaluation. `warp_mel_filters` is vocal tract length perturbation (Jaitly & Hinton
2013): it costs nothing at run time, for the warped filterbanks are made once.

Shapes: n samples at 16 kHz, r samples of an impulse response, M mel filters, Q frequency bins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from omnivox.rates import SAMPLE_RATE

Noise = Literal["white", "pink", "brown", "hum", "babble"]

NOISES: tuple[Noise, ...] = ("white", "pink", "brown", "hum", "babble")
_SLOPES = {"white": 0.0, "pink": 0.5, "brown": 1.0}  # amplitude falls as frequency to this power
_NYQUIST = SAMPLE_RATE / 2


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _choice(generator: torch.Generator, count: int) -> int:
    return int(torch.randint(count, (), generator=generator))


def _fast_length(samples: int) -> int:
    """The smallest length of at least `samples` with no prime factor above 5: others make an FFT ten times slower."""
    best = 1 << max(1, (samples - 1).bit_length())
    power5 = 1
    while power5 < best:
        power3 = power5
        while power3 < best:
            power2 = 1 << max(0, (-(-samples // power3) - 1).bit_length())
            best = min(best, power3 * power2)
            power3 *= 3
        power5 *= 5
    return best


# -- noise ------------------------------------------------------------------------------------------------------------

def noise(kind: Noise, samples: int, generator: torch.Generator, babble: Sequence[Tensor] = ()) -> Tensor:
    """Noise [samples] of unit power. babble: other people's utterances, [n] each; without them babble is pink noise."""
    if kind == "babble" and babble:
        return _unit(_babble(samples, generator, babble))
    if kind == "hum":
        return _unit(_hum(samples, generator) + 0.1 * _unit(_coloured(0.5, samples, generator)))
    return _unit(_coloured(_SLOPES.get(kind, 0.5), samples, generator))


def _unit(wave: Tensor) -> Tensor:
    """wave [n] at unit power."""
    return wave / wave.square().mean().sqrt().clamp_min(1e-8)


def _coloured(slope: float, samples: int, generator: torch.Generator) -> Tensor:
    if slope == 0:
        return torch.randn(samples, generator=generator)
    size = _fast_length(samples)
    bins = size // 2 + 1
    spectrum = torch.view_as_complex(torch.randn(bins, 2, generator=generator))
    frequency = torch.linspace(0, _NYQUIST, bins).clamp_min(40.0)  # flat below 40 Hz, where nothing is heard anyway
    coloured: Tensor = torch.fft.irfft(spectrum * frequency.pow(-slope), n=size)[:samples]
    return coloured


def _hum(samples: int, generator: torch.Generator) -> Tensor:
    """Mains hum of 50 or 60 Hz with falling harmonics, of unit power."""
    mains = (50.0, 60.0)[_choice(generator, 2)]
    order = torch.arange(1, 13)
    phase = 2 * math.pi * torch.rand(len(order), generator=generator)
    level = torch.rand(len(order), generator=generator) / order
    time = torch.arange(samples) / SAMPLE_RATE
    return _unit((level[:, None] * torch.sin(2 * math.pi * mains * order[:, None] * time + phase[:, None])).sum(0))


def _babble(samples: int, generator: torch.Generator, voices: Sequence[Tensor]) -> Tensor:
    """Three to six of `voices`, each looped from a random place and set to about the same level."""
    mixed = torch.zeros(samples)
    for _ in range(3 + _choice(generator, 4)):
        voice = voices[_choice(generator, len(voices))]
        voice = voice.repeat(-(-samples // len(voice))).roll(-_choice(generator, len(voice)))[:samples]
        mixed += _uniform(generator, 0.6, 1.0) * _unit(voice)
    return mixed


def speech_power(wave: Tensor) -> Tensor:
    """Mean power of wave [n] in its 20 ms frames within 30 dB of the loudest: pauses do not count."""
    frames = functional.pad(wave, (0, -len(wave) % 320)).view(-1, 320).square().mean(1)
    return frames[frames >= 1e-3 * frames.max()].mean()


def add_noise(wave: Tensor, snr_db: float, generator: torch.Generator, kind: Noise = "white",
              babble: Sequence[Tensor] = ()) -> Tensor:
    """wave [n] with noise `snr_db` below its speech (`speech_power`): exact, not on average."""
    made = noise(kind, len(wave), generator, babble)
    return wave + made * (speech_power(wave) * 10 ** (-snr_db / 10)).sqrt()


# -- rooms ------------------------------------------------------------------------------------------------------------

def impulse_response(rt60: float, generator: torch.Generator) -> Tensor:
    """A synthetic room [r]: the direct sound, up to eight early reflections, and noise that falls 60 dB in `rt60` s.

    Cut where it has fallen 40 dB, at most 0.3 s. The direct sound is sample 0, so nothing is delayed.
    """
    length = max(64, min(int(rt60 * 2 / 3 * SAMPLE_RATE), int(0.3 * SAMPLE_RATE)))
    time = torch.arange(length) / SAMPLE_RATE
    tail = torch.randn(length, generator=generator) * torch.exp(-math.log(1000.0) / rt60 * time)
    tail[:int(0.004 * SAMPLE_RATE)] = 0.0
    reverberant = 10 ** (_uniform(generator, -14.0, -2.0) / 20)  # to direct
    response: Tensor = tail * (reverberant / tail.norm().clamp_min(1e-8))
    places = torch.randint(16, min(length, int(0.04 * SAMPLE_RATE)), (8,), generator=generator)
    response[places] += 0.3 * torch.randn(8, generator=generator) * torch.exp(-50.0 * places / SAMPLE_RATE)
    response[0] = 1.0
    return response


def convolve(wave: Tensor, response: Tensor) -> Tensor:
    """wave [n] through response [r], the tail cut off: [n]."""
    size = _fast_length(len(wave) + len(response) - 1)
    heard: Tensor = torch.fft.irfft(torch.fft.rfft(wave, size) * torch.fft.rfft(response, size), size)[:len(wave)]
    return heard


# -- channels ---------------------------------------------------------------------------------------------------------

def _shaped(wave: Tensor, frequencies: Sequence[float], decibels: Sequence[float]) -> Tensor:
    """wave [n] through a zero-phase filter whose gain is piecewise linear, in dB over log frequency, between points."""
    size = _fast_length(len(wave) + 512)
    axis = torch.linspace(0, _NYQUIST, size // 2 + 1).clamp_min(20.0).log2()
    points, gains = torch.tensor(frequencies).log2(), torch.tensor(decibels)
    upper = torch.searchsorted(points, axis).clamp(1, len(points) - 1)
    share = ((axis - points[upper - 1]) / (points[upper] - points[upper - 1])).clamp(0, 1)
    gain = torch.pow(10.0, (gains[upper - 1] + share * (gains[upper] - gains[upper - 1])) / 20)
    shaped: Tensor = torch.fft.irfft(torch.fft.rfft(wave, size) * gain, size)[:len(wave)]
    return shaped


def equalise(wave: Tensor, generator: torch.Generator, depth_db: float) -> Tensor:
    """A random smooth colouring of wave [n], as of a microphone: six points and a tilt, each up to `depth_db`."""
    tilt = _uniform(generator, -depth_db, depth_db)
    points = (100.0, 300.0, 900.0, 2000.0, 4000.0, 8000.0)
    gains = [_uniform(generator, -depth_db, depth_db) / 2 + tilt * (i / 2.5 - 1) for i in range(len(points))]
    return _shaped(wave, points, gains)


def telephone(wave: Tensor) -> Tensor:
    """wave [n] cut to the 300 to 3400 Hz of a telephone, with slopes of about 40 dB in a third of an octave."""
    return _shaped(wave, (100.0, 240.0, 300.0, 3400.0, 4200.0, 8000.0), (-60.0, -40.0, 0.0, 0.0, -40.0, -60.0))


def mu_law(wave: Tensor, levels: int = 256) -> Tensor:
    """wave [n] quantised as ITU-T G.711 does, to `levels` logarithmic levels of its own peak."""
    peak, mu = wave.abs().max().clamp_min(1e-6), levels - 1
    squeezed = wave.sign() * torch.log1p(mu * (wave / peak).abs()) / math.log1p(mu)
    stepped = torch.round((squeezed + 1) / 2 * mu) / mu * 2 - 1
    return stepped.sign() * torch.expm1(stepped.abs() * math.log1p(mu)) / mu * peak


def change_speed(wave: Tensor, factor: float) -> Tensor:
    """wave [n] played `factor` times as fast, [n / factor]: tempo, pitch and formants move together."""
    size = _fast_length(len(wave))
    shorter = 2 * round(size / factor / 2)
    spectrum = torch.fft.rfft(wave, size)
    bins = shorter // 2 + 1
    spectrum = functional.pad(torch.view_as_real(spectrum[:bins]), (0, 0, 0, max(0, bins - len(spectrum))))
    played: Tensor = torch.fft.irfft(torch.view_as_complex(spectrum.contiguous()), shorter)
    return played[:round(len(wave) / factor)] / factor


# -- all together -----------------------------------------------------------------------------------------------------

Effect = Callable[[Tensor, torch.Generator, float], Tensor]  # (wave [n], generator, strength) -> wave [n']


def _speed(wave: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    return change_speed(wave, math.exp(_uniform(generator, -0.1, 0.1) * strength))


def _margins(wave: Tensor, generator: torch.Generator, _: float) -> Tensor:
    return functional.pad(wave, [int(_uniform(generator, 0, 0.4) * SAMPLE_RATE) for _ in range(2)])


def _colour(wave: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    return equalise(wave, generator, 10.0 * strength)


def _room(wave: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    return convolve(wave, impulse_response(_uniform(generator, 0.1, 0.1 + 0.5 * strength), generator))


def _codec(wave: Tensor, generator: torch.Generator, _: float) -> Tensor:
    return mu_law(wave, (256, 128, 64)[_choice(generator, 3)])


def _clip(wave: Tensor, generator: torch.Generator, _: float) -> Tensor:
    limit = float(wave.abs().max()) * _uniform(generator, 0.3, 0.9)
    return wave.clamp(-limit, limit)


def _gain(wave: Tensor, generator: torch.Generator, _: float) -> Tensor:
    return wave * (10 ** (_uniform(generator, -24.0, -1.0) / 20) / wave.abs().max().clamp_min(1e-6))


def augment(wave: Tensor, generator: torch.Generator, strength: float = 1.0, babble: Sequence[Tensor] = ()) -> Tensor:
    """wave [n] as it might arrive: [n'], n' differs by speed (10%) and margins (up to 0.4 s at each side).

    strength 0 leaves the wave alone, 1 is the worst of ordinary life: noise down to 3 dB, RT60 up to 0.6 s. Each
    effect is also drawn more seldom as strength falls. babble: other utterances, [n] each, for babble noise.
    """
    def noisy(wave: Tensor, generator: torch.Generator, strength: float) -> Tensor:
        kind = NOISES[_choice(generator, len(NOISES))]
        return add_noise(wave, _uniform(generator, 35.0 - 32.0 * strength, 40.0), generator, kind, babble)

    effects: tuple[tuple[float, Effect], ...] = (
        (0.4, _speed), (0.6, _margins), (0.6, _colour), (0.5, _room), (0.7, noisy),
        (0.15, lambda wave, *_: telephone(wave)), (0.1, _codec), (0.1, _clip), (1.0, _gain))
    for probability, effect in effects:
        if float(torch.rand((), generator=generator)) < probability * strength:
            wave = effect(wave, generator, strength)
    return wave


def warp_mel_filters(filters: Tensor, alpha: float, knee: float = 0.8) -> Tensor:
    """Mel filters [M, Q] that hear a vocal tract `alpha` times as short: feature m reads at alpha times its frequency.

    Piecewise linear in frequency: slope alpha up to the knee (a share of Nyquist, lower where alpha > 1), then to
    Nyquist, so nothing falls off the end. Each filter keeps its own area. alpha 1 gives the filters back.
    """
    bins = filters.shape[1]
    axis = torch.linspace(0, 1, bins, dtype=torch.float64)
    corner = knee * min(1.0, 1.0 / alpha)
    upper = alpha * corner + (1 - alpha * corner) / (1 - corner) * (axis - corner)
    heard = torch.where(axis <= corner, alpha * axis, upper).float()  # where the filters' own axis lands in the sound
    # out(f) = in(heard⁻¹(f)): resample each filter on the inverse of that map, which is monotone.
    source = _interpolate(axis.float(), heard, axis.float()) * (bins - 1)
    low = source.long().clamp(0, bins - 2)
    share = source - low
    warped = filters[:, low] * (1 - share) + filters[:, low + 1] * share
    return warped * (filters.sum(1, keepdim=True) / warped.sum(1, keepdim=True).clamp_min(1e-8))


def _interpolate(at: Tensor, known: Tensor, value: Tensor) -> Tensor:
    """Linear interpolation: the function through (known, value), both rising [Q], at `at` [Q]."""
    upper = torch.searchsorted(known, at).clamp(1, len(known) - 1)
    share = (at - known[upper - 1]) / (known[upper] - known[upper - 1])
    return value[upper - 1] + share.clamp(0, 1) * (value[upper] - value[upper - 1])
