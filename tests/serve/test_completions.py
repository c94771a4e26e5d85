"""/v1/chat/completions and /v1/models, asked by OpenAI's own client over a real connection."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
from fastapi import FastAPI
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families

import omnivox
from omnivox.errors import ConfigError
from omnivox.runtime.engine import Engine, EngineSettings
from omnivox.runtime.events import Done, Failed, Reply, Text
from omnivox.runtime.respond import Omni
from omnivox.serve.app import create_app
from omnivox.serve.clips import read_clip, write_clip
from omnivox.serve.completions import _Stream, router
from omnivox.serve.listening import Listening
from omnivox.serve.metrics import Metrics
from omnivox.serve.settings import ServeSettings
from tests import tiny
from tests.serve.running import WAIT, serving

WORDS = [{"role": "user", "content": "word1 word2"}]
TOKENS = 40


class Running:
    """A server, with what a test wants to see of it."""

    def __init__(self, engine: Any, address: str, metrics: Metrics) -> None:
        self.engine, self.omni, self.address, self.metrics = engine, engine.omni, address, metrics

    def client(self, key: str = "none") -> OpenAI:
        return OpenAI(base_url=f"http://{self.address}/v1", api_key=key, max_retries=0, timeout=WAIT)

    def value(self, name: str, **labels: str) -> float:
        text = self.metrics.render()[0].decode()
        return sum(sample.value for family in text_string_to_metric_families(text) for sample in family.samples
                   if sample.name == name and labels.items() <= sample.labels.items())


@contextmanager
def running(engine: Any, **settings: Any) -> Iterator[Running]:
    app = create_app(engine, ServeSettings(**{"model_name": "tiny"} | settings))
    with serving(app) as address:
        yield Running(engine, address, app.state.metrics)


@pytest.fixture(scope="module")
def omni() -> Omni:
    return tiny.omni(end_ids=())  # its answers end at their longest


@pytest.fixture(scope="module")
def server(omni: Omni) -> Iterator[Running]:
    with Engine(omni, EngineSettings(slots=4, context=256, reply_tokens=TOKENS)) as engine, running(engine) as found:
        yield found


@pytest.fixture
def client(server: Running) -> Iterator[OpenAI]:
    with server.client() as found:
        yield found


def spoken(seconds: float = 1.0, seed: int = 0, kind: str = "wav") -> list[dict[str, Any]]:
    data = base64.b64encode(write_clip(tiny.question(seconds, seed), 16_000, kind)).decode()
    return [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": data, "format": kind}}]}]


def until(true: Callable[[], bool]) -> None:
    """Wait for something that another thread will do."""
    pause = threading.Event()
    for _ in range(100 * WAIT):
        if true():
            return
        pause.wait(0.01)
    pytest.fail("it never came true")


@contextmanager
def stalled(engine: Engine) -> Iterator[None]:
    """The engine stands still inside the block."""
    go = threading.Event()
    engine.order(lambda: go.wait(WAIT) and None)
    try:
        yield
    finally:
        go.set()


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


# -- refusals ---------------------------------------------------------------------------------------------------------

def test_what_cannot_be_obeyed_is_a_bad_request(client: OpenAI, server: Running) -> None:
    before = server.value("omnivox_errors_total", code="unsupported_parameter")
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=WORDS, n=2)
    assert caught.value.body == {"message": "n: found 2; this model cannot do that, leave it out", "param": "n",
                                 "type": "invalid_request_error", "code": "unsupported_parameter"}
    assert server.value("omnivox_errors_total", code="unsupported_parameter") == before + 1


@pytest.mark.parametrize(("messages", "message"), [
    (spoken(30), "at most"), ([{"role": "user", "content": "word1 " * 400}], "this conversation has 256"),
    ([{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]}],
     "input_audio.data: does not begin as wav"),
])
def test_what_cannot_be_heard_is_a_bad_request(client: OpenAI, messages: Any, message: str) -> None:
    with pytest.raises(openai.BadRequestError, match=message):
        client.chat.completions.create(model="tiny", messages=messages)


def test_keys_and_sites_are_checked(server: Running) -> None:
    with running(server.engine, api_keys=("right-key",)) as guarded:
        with guarded.client("right-key") as client:
            assert client.chat.completions.create(model="tiny", messages=WORDS, max_tokens=1).choices
        with guarded.client("wrong") as client, pytest.raises(openai.AuthenticationError) as caught:
            client.models.list()
        assert caught.value.code == "invalid_api_key"
        assert caught.value.response.headers["www-authenticate"] == "Bearer"
    found = httpx.post(f"http://{server.address}/v1/chat/completions", json={}, headers={"Origin": "http://evil.example"})
    assert found.status_code == 403


def test_asking_too_often_is_told_when_to_come_back(server: Running) -> None:
    with running(server.engine, requests_per_minute=1) as slow, slow.client() as client:
        client.models.list()
        with pytest.raises(openai.RateLimitError) as caught:
            client.models.list()
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60


@pytest.mark.parametrize("stated", [True, False])
def test_a_body_that_is_too_large_is_not_read(server: Running, stated: bool) -> None:
    with running(server.engine, max_message_bytes=1000) as small:
        body = b"x" * 5000
        found = httpx.post(f"http://{small.address}/v1/chat/completions", content=body if stated else iter([body]))
    assert found.status_code == 413
    assert found.json()["error"]["code"] == "request_too_large"


def test_a_full_engine_is_busy_and_a_closing_one_drains(omni: Omni) -> None:
    with Engine(omni, EngineSettings(slots=1, queue=0, context=256, reply_tokens=5)) as engine, \
            running(engine) as server, server.client() as client:
        with stalled(engine):
            stream = client.chat.completions.create(model="tiny", messages=WORDS, stream=True)
            with pytest.raises(openai.RateLimitError) as caught:
                client.chat.completions.create(model="tiny", messages=WORDS)
            assert caught.value.code == "engine_busy"
        assert len(list(stream)) > 3
        engine.close()
        with pytest.raises(openai.InternalServerError) as drained:
            client.chat.completions.create(model="tiny", messages=WORDS)
        assert (drained.value.status_code, drained.value.code) == (503, "server_draining")


def test_more_requests_than_may_be_open_are_turned_down(omni: Omni) -> None:
    with Engine(omni, EngineSettings(context=256, reply_tokens=5)) as engine, \
            running(engine, max_sessions=1) as server, server.client() as client:
        with stalled(engine):
            stream = client.chat.completions.create(model="tiny", messages=WORDS, stream=True)
            with pytest.raises(openai.RateLimitError, match="as many as it may"):
                client.chat.completions.create(model="tiny", messages=WORDS)
        assert list(stream)
        assert client.chat.completions.create(model="tiny", messages=WORDS).choices


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_stops_in_mid_answer_says_so(omni: Omni, stream: bool) -> None:
    with Engine(omni, EngineSettings(context=256, reply_tokens=5)) as engine, running(engine) as server, \
            server.client() as client:
        found: list[openai.APIError] = []

        def ask() -> None:
            try:
                answer = client.chat.completions.create(model="tiny", messages=WORDS, stream=stream)
                list(answer)
            except openai.APIError as error:
                found.append(error)

        asking = threading.Thread(target=ask)
        with stalled(engine):
            asking.start()
            until(lambda: engine.stats().queued == 1)
            closing = threading.Thread(target=engine.close)
            closing.start()
            until(lambda: engine._stopping)
        asking.join(WAIT)
        closing.join(WAIT)
    assert [error.code for error in found] == ["answer_interrupted"]


def test_a_server_that_is_about_to_end_takes_no_new_questions(server: Running) -> None:
    app, settings, ending = FastAPI(), ServeSettings(model_name="tiny"), []
    app.include_router(router(server.engine, settings, Metrics(), draining=lambda: bool(ending)))
    with serving(app) as address:
        url, body = f"http://{address}/v1/chat/completions", {"model": "tiny", "messages": WORDS}
        assert httpx.post(url, json=body).status_code == 200
        ending.append(True)
        refused = httpx.post(url, json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_draining")
    assert refused.headers["retry-after"]


class Failing:
    """An engine whose model breaks after a word."""

    def __init__(self, omni: Omni, error: Exception) -> None:
        self.omni, self.context, self.settings, self.error = omni, 256, EngineSettings(), error

    def reply(self, prompt: Any, emit: Callable[[Any], None], settings: Any) -> Any:
        emit(Text("word"))
        emit(Failed(self.error))
        return SimpleNamespace(cancel=lambda: None)


def test_an_error_of_the_model_ends_its_request_and_tells_nothing(omni: Omni) -> None:
    with running(Failing(omni, RuntimeError("private words"))) as server, server.client() as client:
        for _ in range(2):  # and the server lives
            with pytest.raises(openai.InternalServerError) as caught:
                client.chat.completions.create(model="tiny", messages=WORDS)
            assert caught.value.code == "model_error"
            assert "private" not in str(caught.value)
        with pytest.raises(openai.APIError, match="The model failed"):
            list(client.chat.completions.create(model="tiny", messages=WORDS, stream=True))
        assert server.value("omnivox_responses_total", status="failed") == 3


def test_an_error_of_the_user_that_the_engine_finds_is_told(omni: Omni) -> None:
    with running(Failing(omni, ConfigError("prompt: takes 300 positions; this engine has 256"))) as server, \
            server.client() as client, pytest.raises(openai.BadRequestError, match="takes 300 positions"):
        client.chat.completions.create(model="tiny", messages=WORDS)


# -- clients that leave -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_its_reply(omni: Omni, stream: bool) -> None:
    with Engine(omni, EngineSettings(slots=1, queue=0, context=256, reply_tokens=200)) as engine, \
            running(engine, max_sessions=1) as server:
        body = {"model": "tiny", "messages": WORDS, "stream": stream}
        with stalled(engine):
            leaving = threading.Event()

            async def ask() -> None:
                async with httpx.AsyncClient() as client:
                    asking = asyncio.create_task(
                        client.post(f"http://{server.address}/v1/chat/completions", json=body))
                    while not leaving.is_set():
                        await asyncio.sleep(0.01)
                    asking.cancel()

            thread = threading.Thread(target=lambda: asyncio.run(ask()))
            thread.start()
            until(lambda: engine.stats().queued == 1)
            leaving.set()
            thread.join(WAIT)
            until(lambda: len(engine._orders) >= 1)  # its cancellation waits for the engine
        until(lambda: engine.stats().busy == engine.stats().queued == 0)
        until(lambda: server.value("omnivox_responses_total", status="cancelled") == 1)
        assert server.engine.stats().ticks == 0
        with server.client() as client:  # the place is free again
            assert client.chat.completions.create(model="tiny", messages=WORDS).choices


def test_a_reader_that_stops_reading_is_let_go() -> None:
    ended: list[bool] = []

    async def lines() -> Any:
        yield "data: x\n\n"

    async def never(message: Any) -> None:
        await asyncio.Event().wait()

    async def silent() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    stream = _Stream(lines(), 0.01, lambda: ended.append(True))
    asyncio.run(stream({"type": "http", "asgi": {"spec_version": "2.3"}}, silent, never))
    assert ended == [True]


def test_a_reply_that_nobody_fetches_is_cancelled_and_its_end_still_told() -> None:
    cancelled: list[bool] = []

    async def listen() -> list[Any]:
        listening = Listening(most=3)
        listening.job = SimpleNamespace(cancel=lambda: cancelled.append(True))  # type: ignore[assignment]
        for i in range(5):
            listening.emit(Text(str(i)))
        listening.emit(Done(Reply("", [], [], torch.empty(0), 16_000, cancelled=True)))
        await asyncio.sleep(0)
        return [event async for event in listening]

    *words, last = asyncio.run(listen())
    assert words == [Text("0"), Text("1"), Text("2")]
    assert isinstance(last, Done)
    assert cancelled == [True]


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
