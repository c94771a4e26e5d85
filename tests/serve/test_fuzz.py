"""Whatever a client sends, the session answers or closes cleanly, the server lives, and others notice nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi")
pytest.importorskip("websockets")

from websockets.exceptions import ConnectionClosed

from omnivox.runtime.engine import EngineSettings
from tests import tiny
from tests.serve.live import Event, Wire, pcm, served

Neighbour = tuple[Wire, list[Any]]
LIMIT = 20_000  # bytes of a message
FUZZ = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

TYPES = ["session.update", "input_audio_buffer.append", "input_audio_buffer.commit", "input_audio_buffer.clear",
         "conversation.item.create", "conversation.item.delete", "conversation.item.retrieve",
         "conversation.item.truncate", "response.create", "response.cancel"]
FIELDS = ["session", "audio", "item", "item_id", "previous_item_id", "content_index", "audio_end_ms", "response",
          "response_id", "event_id"]
INNER = ["type", "role", "content", "text", "transcript", "audio", "id", "model", "instructions", "output_modalities",
         "max_output_tokens", "input", "output", "format", "rate", "turn_detection", "threshold", "prefix_padding_ms",
         "silence_duration_ms", "idle_timeout_ms", "create_response", "interrupt_response", "eagerness",
         "transcription", "noise_reduction", "voice", "speed", "tools", "tool_choice", "tracing", "truncation",
         "metadata", "omnivox", "chunk_units", "lookahead", "timings", "temperature", "conversation", "include",
         "prompt"]
WORDS = ["realtime", "message", "user", "assistant", "system", "function_call", "input_text", "input_audio",
         "output_text", "output_audio", "item_reference", "audio/pcm", "audio/pcmu", "server_vad", "semantic_vad",
         "none", "auto", "inf", "root", "text", "word1 word2", "", "item_1", "\0", "\ud800", "AAAA", "é" * 99]
NUMBERS = [0, 1, -1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf")]
SCALARS = st.one_of(st.none(), st.booleans(), st.sampled_from(NUMBERS), st.integers(-5, 5000), st.sampled_from(WORDS),
                    st.text(max_size=8))
VALUES = st.recursive(SCALARS, lambda inner: st.one_of(
    st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(INNER), inner, max_size=5)), max_leaves=12)
QUIET = base64.b64encode(bytes(9600)).decode()  # 0.2 s
ITEM: Event = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "word1"}]}

EVENTS = st.builds(lambda kind, fields: {"type": kind} | fields, st.sampled_from(TYPES),
                   st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4))
"""Known types with any fields."""
SESSIONS = st.builds(lambda side, name, value: {"type": "session.update", "session": {
    "type": "realtime", "audio": {side: {name: value}}, "omnivox": value}}, st.sampled_from(["input", "output"]),
    st.sampled_from(INNER), VALUES)
PLAUSIBLE = st.sampled_from([
    {"type": "input_audio_buffer.append", "audio": QUIET}, {"type": "input_audio_buffer.append", "audio": "AAA="},
    {"type": "input_audio_buffer.commit"}, {"type": "input_audio_buffer.clear"}, {"type": "response.create"},
    {"type": "response.cancel"}, {"type": "conversation.item.create", "item": ITEM},
    {"type": "conversation.item.create", "item": {**ITEM, "id": "item_1"}},
    {"type": "conversation.item.truncate", "item_id": "item_1", "content_index": 0, "audio_end_ms": 0},
    {"type": "conversation.item.delete", "item_id": "item_1"},
    {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"turn_detection": None}}}},
    {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcmu"}}}}},
])
"""Well formed, in any order."""
STRANGE = st.one_of(st.text(max_size=40), st.binary(max_size=40), VALUES.map(json.dumps),
                    st.sampled_from(["{", "[" * 9000, '{"type": "response.create"', '{"type": {}}', "null", "NaN",
                                     '{"type":"response.create","type":"sing"}', '{"a":' * 3000 + "1" + "}" * 3000]))
"""No events at all."""
MESSAGES = st.lists(st.one_of(EVENTS.map(json.dumps), SESSIONS.map(json.dumps), PLAUSIBLE.map(json.dumps), STRANGE),
                    max_size=12)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    engine = EngineSettings(slots=4, queue=32, context=256, reply_tokens=6)
    with served(tiny.omni(), engine, max_message_bytes=LIMIT) as found:
        yield found


@contextmanager
def manual(address: str) -> Iterator[Wire]:
    """A session that behaves well."""
    with Wire(address) as wire:
        wire.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
        wire.until("session.updated")
        yield wire


def asks(wire: Wire) -> list[Any]:
    """What a well-behaved session hears in answer to a question: its text and how much sound."""
    wire.append(pcm(tiny.question(0.5).numpy()), packet=9600)
    wire.send("input_audio_buffer.commit")
    item = wire.until("conversation.item.done")["item"]["id"]
    wire.send("response.create")
    seen = len(wire.seen)
    done = wire.until("response.done")["response"]
    sound = sum(len(event["delta"]) for event in wire.seen[seen:] if event["type"] == "response.output_audio.delta")
    for each in (done["output"][0]["id"], item):  # so that the next question is the first again
        wire.send("conversation.item.delete", item_id=each)
        wire.until("conversation.item.deleted")
    return [done["status"], done["output"][0]["content"], sound]


@pytest.fixture(scope="module")
def neighbour(address: str) -> Iterator[Neighbour]:
    """A session that behaves well, and what it hears when it is alone."""
    with manual(address) as wire:
        yield wire, asks(wire)


def lives(wire: Wire) -> None:
    """Asserts that the session still answers, and that every event of it has what all events have."""
    wire.send("conversation.item.retrieve", event_id="still there?", item_id="no such item")
    while True:
        event = wire.receive()
        assert isinstance(event["event_id"], str)
        if event["type"] == "error":
            assert isinstance(event["error"]["message"], str)
            assert event["error"]["code"] != "internal_error", (event, wire.seen)
            if event["error"]["event_id"] == "still there?":
                return


def told(event: Event) -> bool:
    return event["type"] == "error"


@FUZZ
@given(messages=MESSAGES)
@example(messages=[json.dumps({"type": "session.update", "session": {"audio": {"input": {"turn_detection": {
    "type": "server_vad", "threshold": float("nan")}}}}})])
@example(messages=[json.dumps({"type": "conversation.item.create", "previous_item_id": 5, "item": ITEM})])
@example(messages=[json.dumps({"type": "conversation.item.truncate", "item_id": [1], "audio_end_ms": 10**400})])
@example(messages=[b"\xff\xfe", b'{"type": "response.cancel"}'])
def test_a_session_survives_whatever_comes(address: str, neighbour: Neighbour, messages: list[Any]) -> None:
    well, expected = neighbour
    with Wire(address) as wire:
        for message in messages:
            wire.socket.send(message.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
                             if isinstance(message, str) else message)
        assert asks(well) == expected
        lives(wire)


@FUZZ
@given(messages=st.lists(PLAUSIBLE, max_size=25))
def test_in_any_order_the_books_are_kept(address: str, messages: list[Event]) -> None:
    """What is begun is ended, once; nothing comes of what has ended."""
    with Wire(address) as wire:
        for message in messages:
            wire.send(**{"kind" if name == "type" else name: value for name, value in message.items()})
        wire.send("response.cancel")
        lives(wire)
        while open_responses(wire.seen):
            wire.receive()
        lives(wire)
    assert not open_responses(wire.seen)
    added, done = ([event["item"]["id"] for event in wire.seen if event["type"] == f"conversation.item.{kind}"]
                   for kind in ("added", "done"))
    assert sorted(added) == sorted(done)
    assert len({event["event_id"] for event in wire.seen}) == len(wire.seen)


def open_responses(events: list[Event]) -> set[str]:
    """Responses that have begun and not ended. Asserts that nothing belongs to another."""
    running: set[str] = set()
    for event in events:
        if event["type"] == "response.created":
            assert not running, "a response within a response"
            running.add(event["response"]["id"])
        elif event["type"] == "response.done":
            running.remove(event["response"]["id"])
        elif "response_id" in event:
            assert event["response_id"] in running, event
    return running


@FUZZ
@given(data=st.binary(min_size=1, max_size=200))
def test_bytes_that_are_no_event_are_told_so(address: str, data: bytes) -> None:
    with Wire(address) as wire:
        wire.socket.send(data)
        wire.receive()  # session.created
        try:
            json.loads(data)
        except (ValueError, RecursionError):
            assert told(wire.receive())
        lives(wire)


@pytest.mark.parametrize("message", [
    "nonsense", "{}", "[]", "1", '"response.create"', '{"type": "sing"}', '{"type": null}',
    '{"type": "session.update"}', '{"type": "session.update", "session": 1}',
    '{"type": "input_audio_buffer.append"}', '{"type": "input_audio_buffer.append", "audio": "not base64!"}',
    '{"type": "input_audio_buffer.commit"}', '{"type": "conversation.item.create"}',
    '{"type": "conversation.item.delete"}',
    '{"type": "conversation.item.truncate", "item_id": "x", "content_index": 0, "audio_end_ms": 1}',
    '{"type": "response.create", "event_id": 5}', '{"type": "response.create", "response": 5}',
    '{"type": "response.cancel"}',
])
def test_every_mistake_is_answered_with_one_error_and_changes_nothing(address: str, message: str) -> None:
    with manual(address) as wire:
        expected = asks(wire)
        wire.socket.send(message)
        error = wire.receive()
        assert told(error)
        assert error["error"]["type"] == "invalid_request_error"
        assert error["error"]["message"]
        assert asks(wire) == expected


def test_a_message_that_is_too_long_closes_its_session_alone(address: str, neighbour: Neighbour) -> None:
    well, expected = neighbour
    with Wire(address) as wire:
        wire.receive()
        wire.send("input_audio_buffer.append", audio="A" * (LIMIT + 4))
        with pytest.raises(ConnectionClosed) as closed:
            wire.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
    assert asks(well) == expected


def test_leaving_in_the_middle_of_anything_leaves_nothing_behind(address: str, neighbour: Neighbour) -> None:
    well, expected = neighbour
    for kind in ("response.created", "response.output_audio.delta", "response.content_part.done"):
        for _ in range(4):  # as many as there are slots
            wire = Wire(address)
            with wire:
                wire.send("conversation.item.create", item=ITEM)
                wire.send("response.create")
                wire.until(kind)
                wire.socket.socket.close()  # as when the power goes
        assert asks(well) == expected
