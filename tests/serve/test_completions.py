"""/v1/chat/completions and /v1/models, asked by OpenAI's own client over a real connection."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
from openai import OpenAI

import omnivox
from omnivox.runtime.engine import Engine, EngineSettings
from omnivox.runtime.respond import Omni
from omnivox.serve.clips import read_clip, write_clip
from tests import tiny
from tests.serve.asking import TOKENS, WORDS, Running, running, spoken

# -- answers ----------------------------------------------------------------------------------------------------------

def test_models_are_listed_and_shown(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "omnivox"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("some/other")
    assert caught.value.code == "model_not_found"


def test_a_written_question_gets_the_models_answer(client: OpenAI, omni: Omni) -> None:
    *_, done = omni.respond_text("word1 word2", max_new_tokens=TOKENS, speak=False)
    found = client.chat.completions.create(model="tiny", messages=WORDS)
    [choice] = found.choices
    assert choice.message.content == done.reply.text
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "length"
    assert found.id.startswith("chatcmpl-")
    assert found.usage.prompt_tokens == 4  # with the prompt's beginning and end
    assert found.usage.completion_tokens == found.usage.completion_tokens_details.text_tokens == TOKENS


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_a_spoken_question_gets_the_models_answer_in_text_and_sound(client: OpenAI, omni: Omni, kind: str) -> None:
    heard = read_clip(write_clip(tiny.question(), 16_000, kind), kind, "", 10)
    *_, done = omni.respond(heard, max_new_tokens=TOKENS)
    found = client.chat.completions.create(model="tiny", messages=spoken(kind=kind), modalities=["text", "audio"],
                                           audio={"voice": "alloy", "format": kind})
    message = found.choices[0].message
    assert message.content is None
    assert message.audio.transcript == done.reply.text
    sound = read_clip(base64.b64decode(message.audio.data), kind, "", 60)
    torch.testing.assert_close(sound, done.reply.audio.clamp(-1, 1), atol=1e-3, rtol=0)
    assert found.usage.prompt_tokens_details.audio_tokens > 0
    assert found.usage.completion_tokens_details.audio_tokens == len(done.reply.units)


def test_a_short_answer_ends_by_itself(omni: Omni) -> None:
    *_, done = omni.respond_text("word1 word2", max_new_tokens=TOKENS, speak=False)
    ends = tiny.omni(end_ids=(done.reply.token_ids[5],))
    with Engine(ends, EngineSettings(context=256)) as engine, running(engine) as server, server.client() as client:
        found = client.chat.completions.create(model="tiny", messages=WORDS)
    assert found.choices[0].finish_reason == "stop"
    assert server.value("omnivox_responses_total", status="completed") == 1


def test_sampling_is_by_seed(client: OpenAI) -> None:
    def answer(**settings: Any) -> str:
        return client.chat.completions.create(model="tiny", messages=WORDS, **settings).choices[0].message.content

    assert answer(temperature=1.5, seed=1) == answer(temperature=1.5, seed=1)
    assert answer(temperature=1.5, seed=1) != answer(temperature=1.5, seed=2)
    found = client.chat.completions.create(model="tiny", messages=WORDS, max_completion_tokens=3)
    assert found.usage.completion_tokens == 3


def test_text_streams(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="tiny", messages=WORDS).choices[0].message.content
    chunks = list(client.chat.completions.create(model="tiny", messages=WORDS, stream=True,
                                                 stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    deltas = [chunk.choices[0].delta.content or "" for chunk in chunks[:-1]]
    assert "".join(deltas) == whole
    assert sum(bool(delta) for delta in deltas) > 5
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == TOKENS
    assert len({chunk.id for chunk in chunks}) == 1


def test_sound_streams_beside_its_text(client: OpenAI, omni: Omni) -> None:
    *_, done = omni.respond(tiny.question(), max_new_tokens=TOKENS)
    chunks = list(client.chat.completions.create(
        model="tiny", messages=spoken(kind="flac"), modalities=["text", "audio"], stream=True,
        audio={"voice": "alloy", "format": "pcm16"}))
    audio = [delta["audio"] for chunk in chunks for delta in [chunk.choices[0].delta.model_dump()] if delta["audio"]]
    assert "".join(part.get("transcript") or "" for part in audio) == done.reply.text
    pcm = np.frombuffer(b"".join(base64.b64decode(part.get("data") or "") for part in audio), "<i2")
    assert len(pcm) == -(-len(done.reply.audio) * 3 // 2)
    kinds = ["".join(sorted(name[0] for name in part if part[name] is not None and name != "id")) for part in audio]
    assert kinds.index("d") < len(kinds) - 1 - kinds[::-1].index("t")  # sound comes before the text has ended
    assert kinds[-1] == "e"  # and the expiry alone at the end
    assert len({part["id"] for part in audio[:-1]}) == 1
    assert chunks[-1].choices[0].finish_reason == "length"
    assert all(chunk.choices[0].delta.content is None for chunk in chunks)


def test_many_ask_at_once_and_each_gets_its_own_answer(server: Running, omni: Omni) -> None:
    questions = [f"word{i} word{2 * i}" for i in range(8)]
    expected = []
    for question in questions:
        *_, done = omni.respond_text(question, max_new_tokens=TOKENS, speak=False)
        expected.append(done.reply.text)

    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"http://{server.address}/v1", api_key="none", max_retries=0) as client:
            return [found.choices[0].message.content for found in await asyncio.gather(*(
                client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": question}])
                for question in questions))]

    assert asyncio.run(ask()) == expected


def test_nano_answers(nano_weights: Path, question: Path) -> None:
    data = base64.b64encode(question.read_bytes()).decode()
    message = {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}]}
    with Engine(omnivox.load("nano"), EngineSettings(slots=1)) as engine, \
            running(engine, model_name="nano") as server, server.client() as client:
        found = client.chat.completions.create(model="nano", messages=[message], modalities=["text", "audio"],
                                               audio={"voice": "default", "format": "mp3"})
    assert "Paris" in found.choices[0].message.audio.transcript
    assert len(read_clip(base64.b64decode(found.choices[0].message.audio.data), "mp3", "", 60)) > 8000


def test_the_wire_form_of_a_stream_is_pinned(server: Running) -> None:
    body = {"model": "tiny", "messages": WORDS, "stream": True, "max_tokens": 1}
    found = httpx.post(f"http://{server.address}/v1/chat/completions", json=body)
    assert found.headers["content-type"].startswith("text/event-stream")
    *events, done, nothing = found.text.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    for chunk in chunks:
        assert chunk.pop("id").startswith("chatcmpl-")
        assert isinstance(chunk.pop("created"), int)
    common = {"object": "chat.completion.chunk", "model": "tiny", "system_fingerprint": None}
    word = chunks[1]["choices"][0]["delta"]["content"]

    def choice(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return common | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]}

    assert chunks == [choice({"role": "assistant", "content": "", "refusal": None}), choice({"content": word}),
                      choice({}, "length")]
