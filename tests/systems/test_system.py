"""Parts into a reply: what is counted, what is left out, what is closed."""

from __future__ import annotations

import pytest
import torch

from omnivox.errors import AudioError
from omnivox.runtime.events import Audio, Done, Text
from omnivox.systems.system import Making, Parts, answered


def parts(making: Making) -> Parts:
    making.token_ids += [5, 6]
    making.units += [7]
    yield Text("one ")
    yield Audio(torch.empty(0))
    yield Audio(torch.full((3,), 0.5, dtype=torch.float64))
    yield Text("two")
    making.cut = True


def test_everything_is_together_at_the_end() -> None:
    first, sound, second, done = answered(parts, 8000)
    assert (first, second) == (Text("one "), Text("two"))
    assert isinstance(sound, Audio)
    assert sound.samples.dtype == torch.float32
    assert isinstance(done, Done)
    given = done.reply
    assert (given.text, given.token_ids, given.units, given.cut) == ("one two", [5, 6], [7], True)
    assert given.audio.tolist() == [0.5] * 3
    assert given.timings.audio_seconds == 3 / 8000


def test_the_callers_time_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("omnivox.runtime.clock.perf_counter", lambda: now)

    def slow(making: Making) -> Parts:
        nonlocal now
        now += 1
        making.timings.encode = making.clock.lap()
        yield Text("a")
        now += 2
        yield Audio(torch.ones(8))
        now += 4

    for event in answered(slow, 8):
        if isinstance(event, Done):
            t = event.reply.timings
            assert (t.encode, t.first_token, t.first_audio, t.total, t.real_time_factor) == (1, 1, 3, 7, 7)
        now += 100


def test_a_token_may_come_before_its_text() -> None:
    def early(making: Making) -> Parts:
        making.timings.first_token = 1e-9
        yield Text("a")

    *_, done = answered(early, 8)
    assert isinstance(done, Done)
    assert done.reply.timings.first_token == 1e-9


def test_nothing_made_is_an_empty_reply() -> None:
    def nothing(making: Making) -> Parts:
        yield from ()

    (done,) = answered(nothing, 8)
    assert isinstance(done, Done)
    assert (done.reply.text, len(done.reply.audio), done.reply.timings.real_time_factor) == ("", 0, 0)


def test_leaving_closes_the_parts_and_an_error_comes_through() -> None:
    closed = []

    def open_ended(making: Making) -> Parts:
        try:
            while True:
                yield Text("more ")
        finally:
            closed.append(True)

    events = answered(open_ended, 8)
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert closed == [True]

    def failing(making: Making) -> Parts:
        yield Text("a")
        raise AudioError("question: cannot be heard")

    with pytest.raises(AudioError, match="cannot be heard"):
        list(answered(failing, 8))
