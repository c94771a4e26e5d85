"""One session, and what is wrong with a message."""

from __future__ import annotations

import json
from typing import Any

import pytest

from omnivox.runtime.respond import Omni
from tests.serve.talking import Client, Talk

LONG = "word1 " * 700  # 4200 characters; these models read 256 positions
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
    ({"type": "session.update", "session": {"instructions": LONG}}, "session.instructions"),
    ({"type": "session.update", "session": {"audio": {"input": {"turn_detection": {
        "type": "semantic_vad", "eagerness": [1]}}}}}, "session.audio.input.turn_detection.eagerness"),
    ({"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": [
        {"type": "input_text", "text": LONG}]}}, "item.content"),
    ({"type": "conversation.item.create", "item": {"type": "message", "role": "system", "content": [
        {"type": "input_text", "text": LONG[:3000]}, {"type": "input_text", "text": LONG[:3000]}]}}, "item.content"),
    ({"type": "response.create", "response": {"instructions": LONG}}, "session.instructions"),
    ({"type": "response.create", "response": {"conversation": "none", "input": [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": LONG[:3000]}]}] * 2}},
     "response.input"),
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


def test_a_text_that_is_too_long_is_told_its_limit_and_never_tokenized(
        talk: Talk, omni: Omni, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(omni, "tokenizer", None)

    async def script(client: Client) -> None:
        await client.send("conversation.item.create", item={
            "type": "message", "role": "user", "content": [{"type": "input_text", "text": LONG}]})

    error, = talk(script).errors
    assert (error["code"], error["param"]) == ("string_above_max_length", "item.content")
    assert "found 4200 characters; expected at most 4096" in error["message"]


def test_system_messages_are_limited_together(talk: Talk) -> None:
    async def script(client: Client) -> None:
        for _ in range(5):
            await client.send("conversation.item.create", item={
                "type": "message", "role": "system", "content": [{"type": "input_text", "text": "x" * 1000}]})

    error, = talk(script).errors
    assert "found 5000 characters; expected at most 4096" in error["message"]


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_a_number_that_json_does_not_have_is_refused(talk: Talk, number: str) -> None:
    async def script(client: Client) -> None:
        message = {"type": "response.create", "response": {"metadata": {"a": "number"}}}
        await client.session.handle(json.dumps(message).replace('"number"', number))

    client = talk(script)
    assert [error["code"] for error in client.errors] == ["invalid_json"]
    assert f"found {number}; expected a finite number" in client.errors[0]["message"]
    assert client.kinds() == ["session.created", "error"]


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
