"""One session, and what is wrong with a message."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.serve.talking import Client, Talk

WRONG = [
    ({"type": "session.update"}, "session"),
    ({"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/mp3"}}}}},
     "session.audio.input.format"),
    ({"type": "session.update", "session": {"audio": {"output": {"voice": "nobody"}}}}, "session.audio.output.voice"),
    ({"type": "session.update", "session": {"audio": {"output": {"speed": 1.5}}}}, "session.audio.output.speed"),
    ({"type": "session.update", "session": {"tools": [{"type": "function"}]}}, "session.tools"),
    ({"type": "session.update", "session": {"colour": "red"}}, "session.colour"),
    ({"type": "session.update", "session": {"omnivox": {"chunk_units": 0}}}, "session.omnivox.chunk_units"),
    ({"type": "session.update", "session": {"audio": {"input": {"turn_detection": {
        "type": "server_vad", "threshold": 7}}}}}, "session.audio.input.turn_detection.threshold"),
    ({"type": "input_audio_buffer.append", "audio": "%"}, "audio"),
    ({"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": []}}, "item.content"),
    ({"type": "conversation.item.create", "item": {"type": "function_call_output"}}, "item.type"),
    ({"type": "conversation.item.truncate", "item_id": "x", "audio_end_ms": -1}, "audio_end_ms"),
    ({"type": "conversation.item.delete", "item_id": "x"}, "item_id"),
    ({"type": "response.create", "response": {"max_output_tokens": 0}}, "response.max_output_tokens"),
    ({"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": [
        {"type": "input_text", "text": "\ud800"}]}}, "item.content[0].text"),
    ({"type": "nonsense"}, "type"),
]


@pytest.mark.parametrize(("message", "param"), WRONG, ids=[param for _, param in WRONG])
def test_a_wrong_message_is_answered_and_changes_nothing(talk: Talk, message: dict[str, Any], param: str) -> None:
    async def script(client: Client) -> None:
        before = client.session.config
        await client.session.handle(json.dumps(message | {"event_id": "mine"}))
        assert client.session.config == before

    client = talk(script)
    assert len(client.errors) == 1
    error = client.errors[0]
    assert (error["type"], error["param"], error["event_id"]) == ("invalid_request_error", param, "mine")


def test_an_empty_commit_and_a_full_buffer(talk: Talk) -> None:
    async def script(client: Client) -> None:
        await client.send("session.update", session={"audio": {"input": {"turn_detection": None}}})
        await client.send("input_audio_buffer.commit")
        await client.sound(1.5)
        await client.send("input_audio_buffer.clear")
        await client.send("input_audio_buffer.commit")
        await client.sound(2.5)

    client = talk(script, max_buffered_seconds=2.0)
    assert [error["code"] for error in client.errors][:3] == [
        "input_audio_buffer_commit_empty", "input_audio_buffer_commit_empty", "input_audio_buffer_full"]


def test_nothing_to_answer_is_a_failed_response_and_no_error(talk: Talk) -> None:
    async def script(client: Client) -> None:
        await client.send("response.create")

    client = talk(script)
    assert not client.errors
    assert client.events[-1]["response"]["status"] == "failed"
