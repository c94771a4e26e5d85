"""The source-filter vocoder: its pulse train, its noise, and that a stream has no memory but its phase and position."""

from __future__ import annotations

import math

import pytest
import torch

from omnivox.model.config import SourceFilterConfig
from omnivox.model.source_filter import HIGHEST_HARMONIC, NOISE_HOPS, Pitch, SourceFilter
from omnivox.model.vocoder import Window
from omnivox.model.windowed import StreamingVocoder
from omnivox.streaming import Chunk

SMALL = SourceFilterConfig(units=12, width=16, pitch_width=8, duration_width=8)


@pytest.fixture(scope="module")
def vocoder() -> SourceFilter:
    torch.manual_seed(0)
    return SourceFilter(SMALL).eval().requires_grad_(False)


def steady(vocoder: SourceFilter, hertz: float, hops: int, voicing: float = 20.0) -> Pitch:
    shape = (1, hops + 2 * vocoder.pulse_hops + 1)
    return Pitch(torch.full(shape, hertz, dtype=torch.float64), torch.full(shape, voicing),
                 torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize("hertz", [70, 125, 200])
def test_a_steady_pitch_gives_equal_harmonics_below_the_highest(vocoder: SourceFilter, hertz: int) -> None:
    pulses, _ = vocoder.pulses(steady(vocoder, hertz, 100), torch.zeros(1, dtype=torch.float64))
    second = pulses[0, 800:16_800]
    power = torch.fft.rfft(second.double()).abs().square()
    peaks = power[torch.arange(1, math.floor(HIGHEST_HARMONIC * 16_000 / hertz)) * hertz]
    torch.testing.assert_close(peaks / peaks.mean(), torch.ones_like(peaks), atol=2e-3, rtol=0)
    assert abs(float(second.square().mean()) - 1.0) < 0.05, "unit power whatever the pitch"
    above = power[int(HIGHEST_HARMONIC * 16_000) + hertz + 2 :].sum() / power.sum()
    assert above < 1e-4, "nothing folds"


def test_phase_goes_on_where_it_was(vocoder: SourceFilter) -> None:
    start = torch.tensor([0.25], dtype=torch.float64)
    _, phase = vocoder.pulses(steady(vocoder, 125.0, 8), start)
    spoken = phase[0, vocoder.pulse_hops :]
    expected = (0.25 + torch.arange(len(spoken)) * 125.0 * 0.01) % 1
    torch.testing.assert_close(spoken, expected.double(), atol=1e-9, rtol=0)


def test_the_unvoiced_has_no_pulses(vocoder: SourceFilter) -> None:
    pulses, _ = vocoder.pulses(steady(vocoder, 125.0, 8, voicing=-30.0), torch.zeros(1, dtype=torch.float64))
    assert pulses.abs().max() < 1e-6


def test_filters_of_one_return_their_excitation(vocoder: SourceFilter) -> None:
    """Analysis and synthesis windows overlap to one."""
    hops = 20 * vocoder.hops
    pulses, _ = vocoder.pulses(steady(vocoder, 110.0, hops), torch.zeros(1, dtype=torch.float64))
    flat = torch.full((1, hops + 2 * vocoder.filter_hops, 2, 321), -math.inf)
    flat[:, :, 0] = 0.0
    wave = vocoder.filtered(pulses, flat, torch.zeros(1, dtype=torch.long))
    lead = vocoder.pulse_hops * 160
    torch.testing.assert_close(wave, pulses[:, lead : lead + wave.shape[1]], atol=2e-5, rtol=0)


def test_noise_depends_on_position_alone(vocoder: SourceFilter) -> None:
    hops = 3 * vocoder.hops
    silent = torch.zeros(1, (hops + 2 * vocoder.pulse_hops) * 160)
    flat = torch.full((1, hops + 2 * vocoder.filter_hops, 2, 321), -math.inf)
    flat[:, :, 1] = 0.0
    at = {p: vocoder.filtered(silent, flat, torch.tensor([p]))[0] for p in (0, 1, NOISE_HOPS // vocoder.hops)}
    torch.testing.assert_close(at[0][640:], at[1][:-640], atol=1e-5, rtol=0)
    torch.testing.assert_close(at[0], at[NOISE_HOPS // vocoder.hops], atol=1e-5, rtol=0)
    assert (at[0] - at[1]).abs().max() > 0.1


def test_a_frame_depends_on_its_context_and_no_more(vocoder: SourceFilter) -> None:
    left, right = vocoder.context
    assert right <= 6, "sound waits for at most 240 ms"
    frames, middle = left + right + 9, left + 4
    torch.manual_seed(1)
    units = torch.randint(0, 12, (1, frames))
    ones = torch.ones(1, frames, dtype=torch.bool)

    def sound(units: torch.Tensor) -> torch.Tensor:
        window = Window(units, ones, middle, 1, torch.tensor([middle]), torch.zeros(1, dtype=torch.float64))
        return vocoder.speak(window).samples

    heard = sound(units)
    changed = [i for i in range(frames) if not torch.equal(sound(units.index_fill(1, torch.tensor([i]), 11)), heard)
               and units[0, i] != 11]
    assert changed[0] >= middle - left
    assert changed[-1] <= middle + right
    assert changed[-1] > middle, "it hears what comes"


def test_a_long_stream_keeps_its_phase() -> None:
    """Half a minute in steps of five frames: rounding does not add up."""
    torch.manual_seed(2)
    vocoder = SourceFilter(SMALL).eval().requires_grad_(False)
    units = torch.randint(0, 12, (1, 750))
    ones, length = torch.ones_like(units), torch.tensor([750])
    whole = vocoder(units, length, durations=ones).row(0)
    streaming = StreamingVocoder(vocoder)
    vocoder.duration.proj.weight.zero_()
    vocoder.duration.proj.bias.fill_(math.log(2.0))  # one frame each
    state = streaming.initial_state(1)
    parts = [streaming.step(Chunk.full(piece), state)[0].row(0) for piece in units.split(5, dim=1)]
    parts.append(streaming.flush(state)[0].row(0))
    error = torch.cat(parts) - whole
    assert 10 * torch.log10(whole.square().mean() / error.square().mean()) > 100


def test_size_of_the_bundled_one() -> None:
    parameters = sum(p.numel() for p in SourceFilter(SourceFilterConfig()).parameters())
    assert parameters <= 1.9e6
