"""The streaming laws (see `test_streaming_laws.py`) held by both vocoders, at tiny sizes and with random weights."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from omnivox.model.config import DurationConfig, HifiganConfig, SourceFilterConfig
from omnivox.model.hifigan import Hifigan
from omnivox.model.source_filter import SourceFilter
from omnivox.model.vocoder import Vocoder, vocode_alone
from omnivox.model.windowed import StreamingVocoder
from omnivox.streaming import Chunk
from tests import laws
from tests.laws import Subject

UNITS = 11


@functools.cache
def hifigan() -> Vocoder:
    torch.manual_seed(1)
    vocoder = Hifigan(HifiganConfig(units=UNITS, embedding_dim=6, initial_channels=8, upsample_rates=(3, 2),
                                    upsample_kernels=(7, 4), residual_kernels=(3, 5),
                                    residual_dilations=((1, 3), (1, 2)),
                                    duration=DurationConfig(embedding_dim=6, hidden_dim=5)))
    for parameter in vocoder.parameters():
        parameter.requires_grad_(False)
        parameter.mul_(2.0 if parameter.ndim > 1 else 1.0)  # loud enough that a wrong context would be heard
    return with_varied_durations(vocoder)


@functools.cache
def source_filter() -> Vocoder:
    torch.manual_seed(2)
    vocoder = SourceFilter(SourceFilterConfig(units=UNITS, width=8, pitch_width=6, frame_samples=32, hop=8, n_fft=32,
                                              kernel=3, unit_right=(1, 0), filter_right=(1, 0), sample_rate=800,
                                              pitch_hz=40.0, duration_width=5))
    vocoder.requires_grad_(False)
    vocoder.head.bias.fill_(0.0)
    return with_varied_durations(vocoder)


def with_varied_durations(vocoder: Vocoder) -> Vocoder:
    vocoder.duration.proj.bias.data.fill_(1.0)
    vocoder.duration.proj.weight.data.mul_(2.0)
    return vocoder.eval()


VOCODERS = {"hifigan": hifigan, "source_filter": source_filter}


def subject(name: str, lookahead: int | None = None) -> Subject:
    vocoder = VOCODERS[name]()

    def offline(row: Tensor) -> Tensor:
        with torch.no_grad():
            return vocoder(row[None], torch.tensor([len(row)])).row(0)

    return Subject(name, StreamingVocoder(vocoder, lookahead),
                   lambda n, generator: torch.randint(0, UNITS, (n,), generator=generator), offline,
                   longest=14, piece=5)


each_vocoder = pytest.mark.parametrize("name", sorted(VOCODERS))
few = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
schedules = laws.schedules(rows=3, longest=14, piece=5)
seeds = st.integers(0, 2**16)


@each_vocoder
@few
@given(schedule=schedules, seed=seeds)
def test_any_chunking_is_offline(name: str, schedule: laws.Schedule, seed: int) -> None:
    laws.any_chunking_is_offline(subject(name), schedule, seed)


@each_vocoder
@few
@given(schedule=schedules, seed=seeds)
def test_in_a_batch_is_alone(name: str, schedule: laws.Schedule, seed: int) -> None:
    laws.in_a_batch_is_alone(subject(name, lookahead=2), schedule, seed)


@each_vocoder
@pytest.mark.parametrize("law", [laws.idle_is_nothing, laws.reset_is_fresh, laws.fork_is_both,
                                 laws.saved_and_loaded_is_continued, laws.storage_is_never_rebound],
                         ids=lambda law: law.__name__)
def test_law(name: str, law) -> None:
    law(subject(name), seed=3)


@each_vocoder
@few
@given(schedule=schedules, seed=seeds, lookahead=st.integers(0, 3))
def test_less_lookahead_costs_accuracy_but_no_sample(name: str, schedule: laws.Schedule, seed: int,
                                                     lookahead: int) -> None:
    it = subject(name, lookahead)
    if not schedule:
        return
    rows = it.rows(laws.lengths(schedule, len(schedule[0])), seed)
    for row, y in zip(rows, laws.run(it, laws.chunks(rows, schedule), it.fresh(len(rows))), strict=True):
        assert len(y) == (len(it.offline(row)) if len(row) else 0)
        assert torch.isfinite(y).all()


@each_vocoder
def test_waiting_longer_than_needed_changes_nothing(name: str) -> None:
    it = subject(name, VOCODERS[name]().context[1] + 7)
    row = it.rows([14], seed=5)[0]
    found = laws.run(it, laws.chunks([row], [[4], [1], [9]]), it.fresh(1))[0]
    it.close(found, it.offline(row))


@each_vocoder
def test_too_little_lookahead_is_heard(name: str) -> None:
    """The laws would hold vacuously if a frame's sound did not depend on the frames behind it."""
    it = subject(name, 0)
    row = it.rows([14], seed=6)[0]
    found = laws.run(it, laws.chunks([row], [[1]] * 14), it.fresh(1))[0]
    assert (found - it.offline(row)).abs().max() > 1e-3


@each_vocoder
def test_a_flushed_row_is_fresh_and_the_others_do_not_notice(name: str) -> None:
    it = subject(name)
    rows = it.rows([9, 9, 9], seed=7)
    state = it.fresh(2)
    first = [it.module.step(piece, state)[0] for piece in laws.chunks(rows[:2], [[9, 5]])]
    ended, _ = it.module.flush(state, torch.tensor([True, False]))
    assert int(ended.length[1]) == 0
    it.close(torch.cat([first[0].row(0), ended.row(0)]), it.offline(rows[0]))
    again = laws.run(it, laws.chunks([rows[2], rows[1][5:]], [[9, 4]]), state)
    it.close(again[0], it.offline(rows[2]))
    it.close(torch.cat([first[0].row(1), again[1]]), it.offline(rows[1]))
    silent, _ = it.module.flush(state)
    assert silent.length.tolist() == [0, 0]


@each_vocoder
def test_negative_units_are_dropped_wherever_they_come(name: str) -> None:
    it = subject(name)
    state = it.fresh(1)
    padded = torch.tensor([[3, -1, 4, -100, 4]])
    parts = [it.module.step(Chunk.full(padded), state)[0], it.module.step(Chunk.full(torch.tensor([[-1]])), state)[0],
             it.module.flush(state)[0]]
    it.close(torch.cat([part.row(0) for part in parts]), it.offline(torch.tensor([3, 4, 4])))


@each_vocoder
def test_ragged_rows_of_a_batch_equal_rows_alone_offline(name: str) -> None:
    it, vocoder = subject(name), VOCODERS[name]()
    rows = it.rows([12, 1, 0, 5], seed=8)
    units = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=2)
    together = vocoder(units, torch.tensor([12, 1, 0, 5]))
    for b, row in enumerate(rows):
        if len(row):
            it.close(together.row(b), it.offline(row))
        else:
            assert int(together.length[b]) == 0


@each_vocoder
def test_chunks_alone_differ_from_the_whole(name: str) -> None:
    it = subject(name)
    row = it.rows([12], seed=9)[0]
    pieces = vocode_alone(VOCODERS[name](), list(row.split(4)))
    it.close(pieces[1], it.offline(row[4:8]))
    alone, whole = torch.cat(pieces), it.offline(row)
    assert alone.shape != whole.shape or (alone - whole).abs().max() > 1e-3


@pytest.mark.parametrize("lookahead", [-1, -20])
def test_negative_lookahead_is_refused(lookahead: int) -> None:
    with pytest.raises(ValueError, match=f"lookahead: found {lookahead}"):
        StreamingVocoder(hifigan(), lookahead)


def test_context_of_the_published_sizes() -> None:
    """The nominal field: 21 frames each side whatever the channels."""
    assert Hifigan(replace(HifiganConfig(), initial_channels=32)).context == (21, 21)
