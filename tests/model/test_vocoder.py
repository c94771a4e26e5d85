"""Units to frames, and what one window of a generator depends on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from omnivox.model.config import DurationConfig, HifiganConfig
from omnivox.model.hifigan import Hifigan
from omnivox.model.vocoder import DurationPredictor, Window, drop_negative, repeat_units

TINY = HifiganConfig(units=9, embedding_dim=4, initial_channels=8, upsample_rates=(3, 2), upsample_kernels=(7, 4),
                     residual_kernels=(3, 5), residual_dilations=((1, 3), (1, 2)),
                     duration=DurationConfig(embedding_dim=4, hidden_dim=6))


@pytest.fixture(scope="module")
def hifigan() -> Hifigan:
    torch.manual_seed(0)
    return Hifigan(TINY).eval().requires_grad_(False)


def test_negative_units_are_packed_away_row_by_row() -> None:
    units, length = drop_negative(torch.tensor([[-1, 4, -1, 5], [1, 2, 3, 7]]), torch.tensor([4, 3]))
    assert length.tolist() == [2, 3]
    assert units[0, :2].tolist() == [4, 5]
    assert units[1, :3].tolist() == [1, 2, 3]


def test_units_are_repeated_and_zero_repeats_vanish() -> None:
    frames, count = repeat_units(torch.tensor([[7, 8, 9], [1, 2, 3]]), torch.tensor([[2, 0, 3], [0, 1, 0]]))
    assert count.tolist() == [5, 1]
    assert frames[0].tolist() == [7, 7, 9, 9, 9]
    assert frames[1, 0] == 2


def test_no_units_make_no_frames() -> None:
    frames, count = repeat_units(torch.zeros(2, 0, dtype=torch.long), torch.zeros(2, 0, dtype=torch.long))
    assert frames.shape == (2, 0)
    assert count.tolist() == [0, 0]


def test_durations_are_whole_and_at_least_one(hifigan: Hifigan) -> None:
    log_durations = torch.tensor([-3.0, 0.0, 0.9, 1.0, 2.0])
    # exp(x) − 1 is −0.95, 0, 1.46, 1.72, 6.39
    assert hifigan.frames_of(log_durations).tolist() == [1, 1, 1, 2, 6]


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_duration_depends_on_its_reach_and_no_more(kernel: int) -> None:
    predictor = DurationPredictor(DurationConfig(4, 6, kernel)).eval()
    x = torch.randn(1, 11, 4, requires_grad=True)
    predictor(x, torch.ones(1, 11, dtype=torch.bool))[0, 5].backward()
    assert x.grad is not None
    moved = x.grad[0].abs().sum(1).nonzero()[:, 0]
    assert (moved.min(), moved.max()) == (5 - predictor.reach, 5 + predictor.reach)


def test_padding_never_moves_a_duration(hifigan: Hifigan) -> None:
    units, length = torch.tensor([[1, 2, 3, 8, 8]]), torch.tensor([3])
    padded = hifigan.durations(units, length)
    assert padded[0, 3:].tolist() == [0, 0]
    assert torch.equal(padded[:, :3], hifigan.durations(units[:, :3], length))


def spoken(hifigan: Hifigan, embedded: Tensor) -> Tensor:
    """All the frames of `embedded` [F, E] as sound, with a gradient to each."""
    frames = len(embedded)
    units = torch.arange(frames)[None]
    hifigan.embedding.weight = torch.nn.Parameter(embedded)
    ones = torch.ones(1, frames, dtype=torch.bool)
    return hifigan.speak(Window(units, ones, 0, frames, torch.zeros(1).long(), torch.zeros(1))).samples[0]


def test_the_nominal_context_covers_what_a_frame_depends_on() -> None:
    vocoder = Hifigan(TINY).eval()
    left, right = vocoder.context
    middle, frames = left + 2, left + right + 5
    wave = spoken(vocoder, torch.randn(frames, 4))
    wave[middle * 6 : (middle + 1) * 6].sum().backward()
    gradient = vocoder.embedding.weight.grad
    assert gradient is not None
    moved = gradient.abs().sum(1).nonzero()[:, 0]
    assert moved.min() >= middle - left
    assert moved.max() <= middle + right
    assert moved.max() - moved.min() >= left + right - 2, "the context is not much larger than it must be"


def test_what_lies_outside_a_window_is_not_computed(hifigan: Hifigan) -> None:
    """More context than the vocoder looks at changes nothing, and a window in the middle equals the whole."""
    left, right = hifigan.context
    frames = 3 * (left + right)
    units, ones = torch.randint(0, 9, (1, frames)), torch.ones(1, frames, dtype=torch.bool)
    nothing = torch.zeros(1).long(), torch.zeros(1)
    whole = hifigan.speak(Window(units, ones, 0, frames, *nothing)).samples
    start = left + 4
    part = hifigan.speak(Window(units, ones, start, 5, *nothing)).samples
    torch.testing.assert_close(part, whole[:, start * 6 : (start + 5) * 6], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("change", "named"), [
    ({"upsample_kernels": (7,)}, "upsample_kernels"),
    ({"upsample_kernels": (6, 4)}, "found 6 at rate 3"),
    ({"residual_dilations": ((1, 3),)}, "residual_dilations"),
    ({"residual_kernels": (3, 4)}, "residual_kernels"),
    ({"initial_channels": 2}, "initial_channels"),
    ({"duration": DurationConfig(5, 6)}, "duration.embedding_dim"),
    ({"duration": DurationConfig(4, 6, 2)}, "duration.kernel"),
])
def test_impossible_sizes_are_refused_by_name(change: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Hifigan(replace(TINY, **change))
