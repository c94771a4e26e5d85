"""What every system obeys, as one function that any test can call."""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn

from omnivox.runtime.events import Audio, Done, Reply, Text
from omnivox.systems.system import System


def reply(system: System, question: Tensor) -> Reply:
    *_, done = system.respond(question)
    assert isinstance(done, Done)
    return done.reply


def steps_until_left(system: System, model: nn.Module, question: Tensor) -> int:
    """How often the model ran until the first event; that it did not run again when the reply was left then."""
    steps: list[None] = []
    model.register_forward_hook(lambda *_: steps.append(None))
    events = system.respond(question)
    next(events)
    before = len(steps)
    events.close()  # type: ignore[attr-defined]
    assert len(steps) == before
    return before


def lawful(system: System, question: Tensor, repeats: bool = True) -> Reply:
    """The reply, once it is seen that text and sound add up, Done is last and comes once, settings are JSON, timings
    are in order, a reply that is left early leaves nothing behind, and (if `repeats`) that it repeats."""
    *made, done = system.respond(question)
    assert isinstance(done, Done)
    assert all(isinstance(event, Text | Audio) for event in made)
    given = done.reply
    assert "".join(event.delta for event in made if isinstance(event, Text)) == given.text
    pieces = [event.samples for event in made if isinstance(event, Audio)]
    assert all(len(piece) and piece.dtype == torch.float32 and not piece.is_inference() for piece in pieces)
    assert torch.equal(torch.cat([torch.empty(0), *pieces]), given.audio)
    assert given.sample_rate == system.sample_rate > 0
    assert system.name.isidentifier()
    assert json.loads(json.dumps(system.settings())) == system.settings()
    _in_order(given, bool(pieces), any(isinstance(event, Text) for event in made))

    for count in {1, max(1, len(made) // 2)}:
        events = system.respond(question)
        for _ in range(count):
            next(events)
        events.close()  # type: ignore[attr-defined]
        assert next(events, None) is None
        assert not torch.is_inference_mode_enabled()
    if repeats:
        again = reply(system, question)
        assert again.text == given.text
        assert torch.equal(again.audio, given.audio)
    return given


def _in_order(given: Reply, spoke: bool, wrote: bool) -> None:
    t = given.timings
    assert 0 <= t.mel + t.encode + t.prefill <= t.total
    assert (t.first_token > 0) >= wrote
    assert (t.first_audio > 0) == spoke
    assert t.first_token <= t.total
    assert t.first_audio <= t.total
    assert t.audio_seconds == len(given.audio) / given.sample_rate
    assert t.real_time_factor == (t.total / t.audio_seconds if spoke else 0)
