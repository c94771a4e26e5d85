"""Talking with a Realtime server through a microphone and a speaker that a test holds in its hands."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("websockets")

from omnivox.errors import OmnivoxError
from omnivox.rates import SAMPLE_RATE
from omnivox.runtime.client import Client
from omnivox.runtime.events import Audio, Done, Text
from omnivox.runtime.remote import Interrupted, Said, converse
from tests.realtime import Peer, server

BLOCK = 512
SPEECH, QUIET = torch.full((BLOCK,), 0.5), torch.zeros(BLOCK)
SECOND = np.full(24_000, 0.25)


class Desk:
    """A device whose microphone says what the server's script tells it to, and whose speaker plays on command."""

    def __init__(self) -> None:
        self.microphone: queue.Queue[Tensor | None] = queue.Queue()
        self.queued = self.played = 0  # samples
        self.deeds: list[str] = []
        self.drained = threading.Event()

    def record(self) -> Tensor | None:
        return self.microphone.get(timeout=30)

    def play(self, samples: Tensor, rate: int) -> None:
        assert rate == SAMPLE_RATE
        self.queued += len(samples)

    def drain(self) -> None:
        self.drained.wait(30)
        self.played, self.queued = self.played + self.queued, 0
        self.deeds.append("drained")

    def stop(self) -> float:
        dropped, self.queued = self.queued, 0
        self.deeds.append("stopped")
        return dropped / SAMPLE_RATE


def talk(desk: Desk, script: Callable[[Peer], None], headphones: bool = False) -> tuple[list[object], Peer]:
    """The events of a conversation that goes as `script`, and the server's end of it."""
    with server(script) as (url, peers), Client(url, voice_activity="server_vad") as client:
        return list(converse(client, desk, headphones=headphones)), peers[0]


def kinds(events: list[object]) -> list[type]:
    """Their types, sound left out."""
    return [type(event) for event in events if not isinstance(event, Audio)]


def hear(peer: Peer, samples: int) -> None:
    """Wait until the client has sent so much sound."""
    while len(peer.sound) < samples:
        peer.receive()


def ends(peer: Peer) -> None:
    """What a server does when the microphone has ended."""
    peer.until("input_audio_buffer.clear")
    peer.send("input_audio_buffer.cleared")


def test_a_question_and_its_answer() -> None:
    desk = Desk()
    desk.drained.set()

    def script(peer: Peer) -> None:
        peer.greet()
        desk.microphone.put(SPEECH)
        hear(peer, 500)
        peer.send("input_audio_buffer.speech_started", item_id="item_1", audio_start_ms=0)
        peer.send("input_audio_buffer.committed", item_id="item_1", previous_item_id=None)
        peer.send("conversation.item.input_audio_transcription.completed", item_id="item_1", content_index=0,
                  transcript="What is it?")
        peer.answer(None, "It is Paris.", SECOND)
        desk.microphone.put(None)
        ends(peer)

    events, peer = talk(desk, script)
    assert kinds(events) == [Said, Text, Text, Text, Done]
    assert events[0] == Said("What is it?")
    assert desk.played == SAMPLE_RATE
    assert desk.deeds == ["stopped", "drained"]
    assert np.abs(peer.sound[50:500] / 32768 - 0.5).max() < 0.05
    assert not any(event["type"] == "conversation.item.truncate" for event in peer.heard)


def test_on_loudspeakers_the_server_hears_silence_while_an_answer_plays() -> None:
    desk = Desk()

    def script(peer: Peer) -> None:
        peer.greet()
        peer.answer(None, "It", SECOND)
        while desk.queued < SAMPLE_RATE:  # until it plays
            desk.microphone.put(QUIET)
            hear(peer, len(peer.sound) + 1)
        for _ in range(10):
            desk.microphone.put(SPEECH)  # the answer itself
        hear(peer, len(peer.sound) + 9 * BLOCK * 3 // 2)
        assert np.abs(peer.sound[-8 * BLOCK:]).max() == 0
        desk.drained.set()
        while np.abs(peer.sound[-300:]).max() < 10_000:  # until it listens again
            desk.microphone.put(SPEECH)
            hear(peer, len(peer.sound) + 1)
        desk.microphone.put(None)
        ends(peer)

    events, _ = talk(desk, script)
    assert kinds(events) == [Text, Done]
    assert desk.played == SAMPLE_RATE


def test_with_headphones_speaking_over_the_answer_stops_it_and_says_what_was_heard() -> None:
    desk = Desk()

    def script(peer: Peer) -> None:
        peer.greet()
        peer.answer(None, "It is a long", SECOND, done=False)
        while desk.queued < SAMPLE_RATE - 200 or not len(peer.sound):
            desk.microphone.put(SPEECH)
            hear(peer, len(peer.sound) + 1)
        assert np.abs(peer.sound).max() > 10_000  # it listens all the time
        desk.queued -= 4_000  # a quarter of a second has been heard
        peer.send("input_audio_buffer.speech_started", item_id="item_2", audio_start_ms=0)
        peer.answer(None, "answer", SECOND, done=False)  # on its way when the client interrupted
        peer.finish(status="cancelled", details={"type": "cancelled", "reason": "turn_detected"})
        truncated = peer.until("conversation.item.truncate")
        assert truncated["item_id"] == "item_of_resp_1"
        assert 250 <= truncated["audio_end_ms"] <= 265
        refused = {"type": "invalid_request_error", "message": "gone", "event_id": truncated["event_id"]}
        peer.send("error", error=refused)
        desk.microphone.put(None)
        ends(peer)

    events, _ = talk(desk, script, headphones=True)
    assert kinds(events) == [Text] * 4 + [Interrupted]
    assert desk.queued == 0
    assert "drained" not in desk.deeds


def test_an_answer_that_was_heard_to_its_end_is_not_truncated() -> None:
    desk = Desk()

    def script(peer: Peer) -> None:
        peer.greet()
        peer.answer(None, "It", SECOND)
        while desk.queued < SAMPLE_RATE:
            desk.microphone.put(SPEECH)
            hear(peer, len(peer.sound) + 1)
        desk.queued = 0  # all of it has been heard
        peer.send("input_audio_buffer.speech_started", item_id="item_2", audio_start_ms=0)
        desk.microphone.put(None)
        ends(peer)

    events, peer = talk(desk, script, headphones=True)
    assert kinds(events) == [Text, Done]
    assert not any(event["type"] == "conversation.item.truncate" for event in peer.heard)


def test_the_last_question_is_answered_although_the_microphone_has_ended() -> None:
    desk = Desk()
    desk.drained.set()

    def script(peer: Peer) -> None:
        peer.greet()
        for block in (SPEECH, SPEECH, None):
            desk.microphone.put(block)
        peer.until("input_audio_buffer.clear")
        assert np.abs(peer.sound[-24_000:]).max() == 0  # it was followed by silence
        peer.send("input_audio_buffer.committed", item_id="item_1", previous_item_id=None)
        peer.send("input_audio_buffer.cleared")
        peer.answer(None, "It", SECOND)

    events, _ = talk(desk, script)
    assert kinds(events) == [Text, Done]


def test_a_servers_error_ends_the_conversation() -> None:
    desk = Desk()

    def script(peer: Peer) -> None:
        peer.greet()
        peer.send("error", error={"type": "server_error", "message": "the model fell over", "code": None})
        desk.microphone.put(None)

    with pytest.raises(OmnivoxError, match="the model fell over"):
        talk(desk, script)
