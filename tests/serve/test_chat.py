"""What a chat request may ask, and how it is told what it may not."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnivox.runtime.respond import Omni
from omnivox.runtime.sampling import SamplingSettings
from omnivox.serve.chat import Clip, read_request
from omnivox.serve.clips import write_clip
from omnivox.serve.refusal import RefusedError
from tests import tiny

OMNI = tiny.omni()
QUESTION = {"role": "user", "content": "word1 word2"}
SOUND = base64.b64encode(write_clip(tiny.question(), 16_000, "wav")).decode()


def spoken(**changes: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "input_audio",
                                         "input_audio": {"data": SOUND, "format": "wav"} | changes}]}


def read(omni: Omni = OMNI, **fields: Any) -> Any:
    return read_request(json.dumps({"model": "tiny", "messages": [QUESTION]} | fields).encode(), "tiny", omni, 256, 256)


def refused(omni: Omni = OMNI, **fields: Any) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        read(omni, **fields)
    return caught.value


def test_a_plain_question() -> None:
    asked = read()
    assert [message.parts for message in asked.messages] == [("word1 word2",)]
    assert (asked.sound, asked.stream, asked.usage, asked.instructions) == (None, False, False, None)
    assert not asked.settings.speak
    assert (asked.settings.max_new_tokens, asked.settings.sampling) == (256, SamplingSettings())


def test_everything_at_once() -> None:
    asked = read(messages=[{"role": "system", "content": "Be brief."}, {"role": "developer", "content": "In French."},
                           QUESTION, {"role": "assistant", "content": [{"type": "text", "text": "word3"}]},
                           {"role": "user", "content": [{"type": "text", "text": "word4"}, *spoken()["content"]]}],
                 modalities=["text", "audio"], audio={"voice": "alloy", "format": "mp3"}, temperature=0.7, top_p=0.9,
                 seed=3, max_completion_tokens=12, stream=False, n=1, user="me", metadata={"a": "b"}, tools=[],
                 stop=None, store=True)
    assert asked.instructions == "Be brief.\n\nIn French."
    assert [message.role for message in asked.messages] == ["user", "assistant", "user"]
    words, clip = asked.messages[2].parts
    assert words == "word4"
    assert isinstance(clip, Clip)
    assert clip.data.startswith(b"RIFF")
    assert asked.sound == "mp3"
    assert asked.settings.speak
    assert asked.settings.sampling == SamplingSettings(0.7, 0.9, seed=3)
    assert asked.settings.max_new_tokens == 12


def test_an_answer_is_no_longer_than_the_engine_makes_them() -> None:
    assert read(max_tokens=100_000).settings.max_new_tokens == 256
    assert read(max_tokens=7).settings.max_new_tokens == 7
    assert read(max_tokens=7, max_completion_tokens=5).settings.max_new_tokens == 5


@pytest.mark.parametrize(("fields", "param", "message"), [
    ({"messages": []}, "messages", "expected a list of messages"),
    ({"messages": None}, "messages", "found None"),
    ({"messages": ["hi"]}, "messages[0]", "expected an object"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "found 'tool'"),
    ({"messages": [QUESTION, {"role": "user"}]}, "messages[1].content", "found None"),
    ({"messages": [{"role": "user", "content": "  "}]}, "messages[0].content", "expected some words"),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content", "half a character"),
    ({"messages": [{"role": "system", "content": "x"}]}, "messages", "none is the user's"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type", "image_url"),
    ({"messages": [{**spoken(), "role": "assistant"}]}, "messages[0].content[0].type", "expected text"),
    ({"messages": [QUESTION, {"role": "assistant", "audio": {"id": "a"}}]}, "messages[1].audio", "not kept"),
    ({"messages": [spoken(format="aac")]}, "messages[0].content[0].input_audio.format", "found 'aac'; expected wav,"),
    ({"messages": [spoken(data="data:;base64,AA")]}, "messages[0].content[0].input_audio.data", "data: prefix"),
    ({"messages": [spoken(data=5)]}, "messages[0].content[0].input_audio.data", "found 'int'"),
    ({"messages": [spoken(data="é")]}, "messages[0].content[0].input_audio.data", "not base64"),
    ({"modalities": ["image"]}, "modalities", "found ['image']"),
    ({"modalities": ["text", "audio"]}, "audio", "found None; expected an object"),
    ({"modalities": ["audio"], "audio": {"format": "aac"}}, "audio.format", "found 'aac'"),
    ({"modalities": ["audio"], "audio": {}}, "audio.format", "found None"),
    ({"modalities": ["audio"], "audio": {"format": "wav", "voice": "bob"}}, "audio.voice", "one voice"),
    ({"modalities": ["audio"], "audio": {"format": "wav"}, "stream": True}, "audio.format", "pcm16 where stream"),
    ({"stream": "yes"}, "stream", "expected true or false"),
    ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage", "expected true or false"),
    ({"temperature": 3}, "temperature", "found 3"),
    ({"temperature": True}, "temperature", "expected a number"),
    ({"top_p": 0}, "top_p", "more than 0"),
    ({"seed": 2**63}, "seed", "64-bit"),
    ({"seed": 1.5}, "seed", "a whole number"),
    ({"max_tokens": 0}, "max_tokens", "1 or more"),
    ({"n": 2}, "n", "this model cannot do that"),
    ({"tools": [{"type": "function"}]}, "tools", "leave it out"),
    ({"response_format": {"type": "json_object"}}, "response_format", "leave it out"),
    ({"messages": [QUESTION, {"role": "user", "content": "x" * 5000}]}, "messages[1].content",
     "found 5000 characters; expected at most 4096"),
    ({"messages": [QUESTION, {"role": "user", "content": [{"type": "text", "text": "x" * 2050}] * 2}]},
     "messages[1].content", "found 4100 characters"),
    ({"messages": [QUESTION, *[{"role": "system", "content": "x" * 4000}] * 2]}, "messages", "found 8000 characters"),
    ({"temprature": 1}, "temprature", "no such parameter"),
])
def test_what_cannot_be_obeyed_is_refused_by_field(fields: dict[str, Any], param: str, message: str) -> None:
    error = refused(**fields)
    assert (error.status, error.type, error.param) == (400, "invalid_request_error", param)
    assert message in str(error)


def test_of_a_long_conversation_the_end_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = read(messages=[*spoken_and_answered(20), {"role": "user", "content": "word1"}])
    heard: list[str] = []
    monkeypatch.setattr("omnivox.serve.chat.read_clip",
                        lambda data, kind, field, longest: (heard.append(field), tiny.question(2.0))[1])
    history = asked.history(OMNI, 100, 60.0)
    assert [item.role for item in history.items[-3:]] == ["user", "assistant", "user"]
    assert 1 < len(heard) < 10  # what could not be remembered was not even decoded
    assert heard[0] == "messages[38].content[0].input_audio.data"
    assert history.prompt()[1:-1] == (history.items[-1].content,)


def spoken_and_answered(turns: int) -> list[dict[str, Any]]:
    return [spoken(), {"role": "assistant", "content": "word2"}] * turns


def test_another_model_is_not_found() -> None:
    error = refused(model="gpt-4o")
    assert (error.status, error.code) == (404, "model_not_found")
    assert "this server has 'tiny'" in str(error)


def test_a_model_without_a_voice_is_asked_for_text_alone() -> None:
    mute = Omni(OMNI.model, None, OMNI.tokenizer, OMNI.prompt)
    assert "has no voice" in str(refused(mute, modalities=["text", "audio"], audio={"format": "wav"}))


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b"[]", b'"text"', b"NaN",
                                  b'{"model": "tiny", "metadata": {"a": NaN}}', b'{"seed": 1e999}'])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(RefusedError, match="body: "):
        read_request(body, "tiny", OMNI, 256, 256)


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
                           lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                               st.sampled_from(["role", "content", "type", "text", "input_audio", "data", "format"]),
                               inner, max_size=3), max_leaves=8)


@settings(max_examples=300, deadline=None)
@given(fields=st.dictionaries(st.sampled_from(["messages", "modalities", "audio", "stream", "stream_options", "top_p",
                                               "temperature", "seed", "max_tokens", "n", "stop", "model", "logprobs"]),
                              json_values, max_size=4),
       content=json_values, role=st.sampled_from(["user", "assistant", "system"]) | st.text(max_size=3))
def test_nonsense_is_read_or_refused_and_nothing_else(fields: dict[str, Any], content: Any, role: str) -> None:
    asked = {"model": "tiny", "messages": [QUESTION, {"role": role, "content": content}]} | fields
    with suppress(RefusedError):
        assert read_request(json.dumps(asked).encode(), "tiny", OMNI, 256, 256).messages
