"""What every system is: it answers speech with speech, in events, with timings that mean the same for all."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from omnivox.runtime.clock import Clock
from omnivox.runtime.events import Audio, Done, Reply, Text, Timings

Event = Text | Audio | Done


class System(Protocol):
    """Answers speech with speech."""

    @property
    def name(self) -> str:
        """Short, for tables and file names."""
        ...

    @property
    def sample_rate(self) -> int:
        """Of its answers, in Hz."""
        ...

    def settings(self) -> Mapping[str, Any]:
        """All that its answers depend on, as JSON."""
        ...

    def respond(self, question: Tensor) -> Iterator[Event]:
        """Answer a question, float32 [n] at 16 kHz: Text and Audio as they are made, then Done, once.

        Stop iterating (or call `close`) and the answer stops. Raises AudioError: a question that cannot be heard.
        """
        ...


@dataclass
class Making:
    """What a reply's parts tell about it while they make it. clock: seconds since the question ended.

    Of `timings` they set their own (mel, encode, prefill; first_token where it comes before the first Text).
    """

    clock: Clock = field(default_factory=Clock)
    timings: Timings = field(default_factory=Timings)
    token_ids: list[int] = field(default_factory=list)
    units: list[int] = field(default_factory=list)
    cut: bool = False


Parts = Generator[Text | Audio, None, None]


def answered(parts: Callable[[Making], Parts], sample_rate: int) -> Iterator[Event]:
    """The events that `parts` makes, then Done with all of them together; while the caller has one, the clock stands.

    Whoever closes this closes `parts`. Sound comes out as float32 [n] on the CPU; pieces of no samples are left out.
    """
    making = Making()
    timings, text, sound = making.timings, "", list[Tensor]()
    with closing(parts(making)) as events:
        for event in events:
            if isinstance(event, Text):
                timings.first_token = timings.first_token or making.clock.now()
                text += event.delta
            elif len(event.samples):
                timings.first_audio = timings.first_audio or making.clock.now()
                event = Audio(event.samples.detach().float().cpu())
                sound.append(event.samples)
            else:
                continue
            with making.clock.paused():
                yield event
    audio = torch.cat([torch.empty(0), *sound])
    timings.total = making.clock.now()
    timings.audio_seconds = len(audio) / sample_rate
    timings.real_time_factor = timings.total / timings.audio_seconds if sound else 0.0
    yield Done(Reply(text, making.token_ids, making.units, audio, sample_rate, timings, cut=making.cut))
