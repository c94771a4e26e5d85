"""Rooms and noises: the levels asked for are reached, bands are cut, and one seed hears one room."""

import math

import pytest
import torch
from torch import Tensor

from omnivox.model.mel import mel_filters
from omnivox.nano import rooms
from omnivox.nano.rooms import (
    NOISES,
    add_noise,
    augment,
    change_speed,
    convolve,
    impulse_response,
    mu_law,
    speech_power,
    telephone,
    warp_mel_filters,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tone(hertz: float, samples: int = 16000) -> Tensor:
    return torch.sin(2 * math.pi * hertz * torch.arange(samples) / 16000)


def speech(seed: int = 1) -> Tensor:
    """A second of noise in bursts between two half seconds of silence."""
    bursts = torch.randn(16000, generator=generator(seed)) * (tone(2) > 0) * 0.1
    return torch.cat([torch.zeros(8000), bursts, torch.zeros(8000)])


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("snr", [0.0, 20.0])
def test_the_snr_asked_for_is_reached_over_the_speech_alone(kind: rooms.Noise, snr: float):
    wave = speech()
    noisy = add_noise(wave, snr, generator(), kind, [speech(2), speech(3)])
    reached = 10 * torch.log10(speech_power(wave) / (noisy - wave).square().mean())
    assert float(reached) == pytest.approx(snr, abs=0.05)
    assert float(speech_power(wave)) == pytest.approx(0.01, rel=0.1)  # silence does not count as speech


def test_colours_fall_as_they_are_named():
    slopes = {}
    for kind in ("white", "pink", "brown"):
        power = torch.fft.rfft(rooms.noise(kind, 1 << 16, generator())).abs().square()
        low, high = power[800:1600].mean(), power[6400:12800].mean()  # three octaves apart
        slopes[kind] = float(10 * torch.log10(low / high)) / 3
    assert slopes == pytest.approx({"white": 0, "pink": 3, "brown": 6}, abs=0.5)  # dB an octave


def test_convolution_is_exact():
    wave, response = torch.randn(1000, generator=generator()), torch.randn(77, generator=generator(1))
    direct = torch.nn.functional.conv1d(wave[None, None], response.flip(0)[None, None], padding=76)[0, 0, :1000]
    torch.testing.assert_close(convolve(wave, response), direct, atol=1e-4, rtol=1e-4)


def test_a_longer_reverberation_decays_more_slowly_and_the_direct_sound_comes_first():
    short, long = (impulse_response(rt60, generator()) for rt60 in (0.15, 0.6))
    assert float(short[0]) == float(long[0]) == 1
    for response, rt60 in ((short, 0.15), (long, 0.6)):
        early, late = (response[start:start + 400].square().mean() for start in (800, 1200))
        assert float(10 * torch.log10(early / late)) == pytest.approx(60 / rt60 * 0.025, abs=2.5)  # dB in 25 ms


def test_a_telephone_passes_a_voice_and_cuts_the_rest():
    gain = {hertz: float(telephone(tone(hertz))[2000:-2000].abs().max()) for hertz in (100, 1000, 3000, 5000)}
    assert gain[1000] == pytest.approx(1, abs=0.02)
    assert gain[3000] == pytest.approx(1, abs=0.02)
    assert gain[100] < 0.01
    assert gain[5000] < 0.01


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_speed_moves_length_and_pitch_together(factor: float):
    played = change_speed(tone(1000), factor)
    assert len(played) == round(16000 / factor)
    middle = played[1000:13000]
    assert float(torch.fft.rfft(middle).abs().argmax()) * 16000 / 12000 == pytest.approx(1000 * factor, abs=2)
    assert float(middle.abs().max()) == pytest.approx(1, abs=0.02)


def test_mu_law_is_about_38_db_and_keeps_zero_quiet():
    wave = 0.3 * tone(440)
    error = mu_law(wave) - wave
    assert 34 < float(10 * torch.log10(wave.square().mean() / error.square().mean())) < 42
    assert mu_law(wave).unique().numel() <= 256


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_one_seed_hears_one_room_and_nothing_breaks(strength: float):
    wave, babble = speech(), [speech(2), speech(3)]
    heard = [augment(wave, generator(seed), strength, babble) for seed in range(40)]
    assert all(torch.isfinite(sound).all() and sound.abs().max() <= 1.5 for sound in heard)
    assert all(28000 < len(sound) < 50000 for sound in heard)
    assert torch.equal(heard[7], augment(wave, generator(7), strength, babble))
    assert len({float(sound.sum()) for sound in heard}) > 40 * strength / 2


def test_strength_nought_is_the_wave_itself_and_the_wave_is_never_written_to():
    wave = speech()
    before = wave.clone()
    assert augment(wave, generator(), 0.0) is wave
    for seed in range(10):
        augment(wave, generator(seed), 1.0)
    assert torch.equal(wave, before)


def test_silence_survives():
    assert torch.isfinite(augment(torch.zeros(8000), generator(3), 1.0)).all()


def test_warped_filters_hear_a_scaled_frequency():
    filters = mel_filters(80)
    centre = int(filters[40].argmax())
    for alpha in (0.85, 1.18):
        assert float(warp_mel_filters(filters, alpha)[40].argmax()) == pytest.approx(alpha * centre, abs=1.01)
    torch.testing.assert_close(warp_mel_filters(filters, 1.0), filters, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("alpha", [0.8, 0.9, 1.1, 1.25])
def test_warped_filters_keep_their_area_and_stay_tame(alpha: float):
    filters = mel_filters(80)
    warped = warp_mel_filters(filters, alpha)
    torch.testing.assert_close(warped.sum(1), filters.sum(1), rtol=1e-3, atol=1e-6)
    assert warped.min() >= 0
    assert warped.max() < 2 * filters.max()
