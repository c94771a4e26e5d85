"""What the engine gives at the end of a reply belongs to the caller."""

from __future__ import annotations

from omnivox.runtime.engine import Engine, EngineSettings
from tests import tiny
from tests.runtime.test_engine import ask


def test_the_audio_of_a_reply_is_an_ordinary_tensor() -> None:
    with Engine(tiny.omni(end_ids=()), EngineSettings(slots=1)) as engine:
        reply = ask(engine, max_new_tokens=8).reply()
    assert len(reply.audio)
    assert not reply.audio.is_inference()
    reply.audio.mul_(0.5)
    assert reply.cut
