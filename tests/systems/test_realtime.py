"""A server under test: ours on loopback, and one that says what it is told to."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("websockets")
pytest.importorskip("fastapi")

from omnivox.errors import AudioError, ConfigError, OmnivoxError
from omnivox.runtime.engine import EngineSettings
from omnivox.runtime.events import Audio
from omnivox.systems.find import find_system
from omnivox.systems.realtime import Realtime
from tests import tiny
from tests.realtime import Peer, server
from tests.serve.live import served
from tests.systems.laws import lawful, reply

TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(24_000) / 24_000)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served(tiny.omni(end_ids=()), EngineSettings(slots=2, reply_tokens=30)) as found:
        yield f"ws://{found}/v1/realtime"


@pytest.fixture
def noise() -> Tensor:
    return tiny.question()


def test_our_own_server_is_a_system(address: str, noise: Tensor) -> None:
    one = find_system(f"realtime:{address}")
    given = lawful(one, noise)
    assert len(given.text.split()) > 5
    assert len(given.audio)
    assert one.settings() == {"url": address, "model": "nano", "instructions": None, "voice": None,
                              "network_in_timings": True}


def test_a_question_knows_nothing_of_the_one_before(noise: Tensor) -> None:
    def answers(peer: Peer) -> None:
        peer.greet()
        peer.answer(peer.until("response.create")["response"]["metadata"], "Yes.", TONE)

    with server(answers) as (url, peers):
        one = Realtime.load(url, model="m", voice="verse", instructions="Be brief.", api_key="secret")
        assert len(peers) == 1  # it was tried
        for _ in range(2):
            given = reply(one, noise)
            assert given.text == "Yes. "
            assert given.sample_rate == one.sample_rate == 24_000
            assert len(given.audio) == 24_000
    first, *asked = peers
    assert [event["type"] for event in first.heard] == ["session.update"]
    assert len(asked) == 2
    for peer in asked:
        assert [event["type"] for event in peer.heard] == ["session.update", "input_audio_buffer.commit",
                                                           "response.create"]
        session = peer.heard[0]["session"]
        assert session["audio"]["input"]["turn_detection"] is None
        assert session["audio"]["output"]["voice"] == "verse"
        assert session["instructions"] == "Be brief."
        assert abs(len(peer.sound) - 24_000) <= 1
        assert peer.path.endswith("model=m")
        assert peer.headers["Authorization"] == "Bearer secret"
    assert "secret" not in str(one.settings()) + repr(one)


def test_stopping_early_cancels(noise: Tensor) -> None:
    def talk(peer: Peer) -> None:
        peer.greet()
        metadata = peer.until("response.create")["response"]["metadata"]
        peer.answer(metadata, "Well", TONE, done=False)
        peer.until("response.cancel")
        peer.finish(metadata, status="cancelled")

    with server(talk) as (url, peers):
        events = Realtime(url).respond(noise)
        while not isinstance(next(events), Audio):
            pass
        events.close()  # type: ignore[attr-defined]
    assert "response.cancel" in [event["type"] for event in peers[0].heard]


def test_what_goes_wrong_is_said(noise: Tensor) -> None:
    with pytest.raises(OmnivoxError, match="cannot connect"):
        find_system("realtime:ws://127.0.0.1:9")
    with pytest.raises(ConfigError, match="url: found 'here'"):
        find_system("realtime:here")
    with pytest.raises(ConfigError, match="timeout: found nan; expected seconds"):
        find_system("realtime:ws://127.0.0.1:9?timeout=nan")
    with pytest.raises(ConfigError, match="realtime: names no url; expected realtime:URL"):
        find_system("realtime")
    with server(lambda peer: None, refuse=401) as (url, _), pytest.raises(ConfigError, match="an API key is needed"):
        find_system(f"realtime:{url}")
    with pytest.raises(AudioError, match="holds no samples"):
        Realtime("ws://127.0.0.1:9").respond(torch.empty(0))
