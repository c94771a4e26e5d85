"""Requests to /v1/chat/completions that are turned down, fail, or are left by whoever asked."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest
import torch
from fastapi import FastAPI
from openai import OpenAI

from omnivox.errors import ConfigError
from omnivox.runtime.engine import Engine, EngineSettings
from omnivox.runtime.events import Done, Failed, Reply, Text
from omnivox.runtime.respond import Omni
from omnivox.serve.completions import _Stream, router
from omnivox.serve.listening import Listening
from omnivox.serve.metrics import Metrics
from omnivox.serve.settings import ServeSettings
from tests.engines import stalled, until
from tests.serve.asking import WORDS, Running, running, spoken
from tests.serve.running import WAIT, serving

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


def unfinished(address: str, begin: bytes) -> socket.socket:
    """A request whose body is longer than what is sent of it."""
    host, port = address.split(":")
    found = socket.create_connection((host, int(port)), timeout=WAIT)
    found.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                  b"Content-Length: 1000\r\n\r\n" + begin)
    return found


def test_a_body_that_does_not_come_keeps_nobody_waiting(server: Running) -> None:
    with running(server.engine, max_sessions=1, send_seconds=0.2) as small, small.client() as client, \
            unfinished(small.address, b"{") as stuck:
        answer = b""
        while piece := stuck.recv(4096):  # until it is hung up on
            answer += piece
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"request_timeout" in answer
        assert client.chat.completions.create(model="tiny", messages=WORDS, max_tokens=1).choices


def test_a_body_that_comes_steadily_has_more_time(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnivox.serve.completions.SLOWEST", 0.01)  # bytes a second
    with running(server.engine, send_seconds=0.2) as small, unfinished(small.address, b"{") as slow:
        for _ in range(3):
            threading.Event().wait(0.15)
            slow.sendall(b" ")
        slow.sendall(b" " * 996)
        assert slow.recv(4096).startswith(b"HTTP/1.1 400")  # all of it was read


def test_a_client_that_leaves_while_it_sends_is_no_fault_of_the_server(server: Running) -> None:
    with running(server.engine) as other:
        unfinished(other.address, b"{").close()
        until(lambda: other.value("omnivox_errors_total", code="client_disconnected") == 1)
        assert other.value("omnivox_errors_total", code="model_error") == 0


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


def test_what_an_engine_says_after_the_loop_has_closed_is_lost_and_no_error() -> None:
    async def listen() -> Listening:
        return Listening(most=3)

    listening = asyncio.run(listen())
    listening.emit(Text("late"))
