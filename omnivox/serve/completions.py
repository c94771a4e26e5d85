"""POST /v1/chat/completions with sound in and out, and /v1/models: for clients that are not real-time.

Nothing here blocks the event loop: bodies are read and sounds decoded in threads, and the engine's events cross over
one by one. A client that leaves, or reads too slowly, ends its reply.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from omnivox.runtime.engine import DrainingError, Engine
from omnivox.runtime.events import Audio, Done, Reply, Text
from omnivox.runtime.history import Segment, Speech
from omnivox.runtime.wire import WireEncoder
from omnivox.serve import logs
from omnivox.serve.chat import ChatRequest, read_request
from omnivox.serve.clips import PCM, write_clip
from omnivox.serve.guard import Caller, Guard
from omnivox.serve.listening import Listening
from omnivox.serve.metrics import Metrics
from omnivox.serve.refusal import RefusedError, refusal
from omnivox.serve.settings import ServeSettings

SLOWEST = 32_768  # bytes a second of a body, once its first seconds are over


def router(engine: Engine, settings: ServeSettings, metrics: Metrics, guard: Guard | None = None,
           draining: Callable[[], bool] = lambda: False) -> APIRouter:
    """The routes.

    guard: the app's, so that its rates hold for all routes together; without it one of their own. draining: whether the
    server is about to end, and takes no new questions.
    """
    service = Completions(engine, settings, metrics)
    guard = guard or Guard(settings)
    routes = APIRouter()

    def guarded(answer: Callable[[Request, Caller], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                return await answer(request, guard.admit(request))
            except Exception as error:  # each ends its own request; `refusal` tells strangers no more than they need
                return service.turn_down(error)
        return endpoint

    routes.add_api_route("/v1/models", guarded(service.models), methods=["GET"])
    routes.add_api_route("/v1/models/{name:path}", guarded(service.model), methods=["GET"])
    async def complete(request: Request, caller: Caller) -> Response:
        if draining():
            raise DrainingError("The server is shutting down; ask another.")
        return await service.complete(request, caller)

    routes.add_api_route("/v1/chat/completions", guarded(complete), methods=["POST"])
    return routes


@dataclass
class Asking:
    """One request being answered."""

    request: ChatRequest
    listening: Listening
    caller: Caller
    spoken: int  # positions of the prompt that are speech
    written: int  # and those that are text
    ended: bool = False  # the last event has come
    closed: bool = False  # and it counts no more
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def usage(self, reply: Reply) -> dict[str, Any]:
        """Tokens are the LLM's positions, and units where they are sound."""
        text, units = len(reply.token_ids), len(reply.units)
        return {
            "prompt_tokens": self.spoken + self.written, "completion_tokens": text + units,
            "total_tokens": self.spoken + self.written + text + units,
            "prompt_tokens_details": {"audio_tokens": self.spoken, "text_tokens": self.written, "cached_tokens": 0},
            "completion_tokens_details": {"audio_tokens": units, "text_tokens": text, "reasoning_tokens": 0},
        }


class Completions:
    """What the routes do."""

    def __init__(self, engine: Engine, settings: ServeSettings, metrics: Metrics) -> None:
        self.engine, self.settings, self.metrics = engine, settings, metrics
        self.omni = engine.omni
        self._model = {"id": settings.model_name, "object": "model", "created": int(time.time()), "owned_by": "omnivox"}
        self._open = 0  # requests whose body is being read or which are being answered

    async def models(self, request: Request, caller: Caller) -> Response:
        return JSONResponse({"object": "list", "data": [self._model]})

    async def model(self, request: Request, caller: Caller) -> Response:
        if (name := request.path_params["name"]) != self.settings.model_name:
            raise RefusedError(f"model: found {name!r}; this server has {self.settings.model_name!r}", status=404,
                               code="model_not_found", param="model")
        return JSONResponse(self._model)

    async def complete(self, request: Request, caller: Caller) -> Response:
        """A whole answer, or a stream of it."""
        if self._open >= self.settings.max_sessions:
            raise RefusedError(f"The server is already at work on {self._open} requests, as many as it may; try later.",
                               status=429, type="rate_limit_error", code="session_limit_exceeded", retry_after=1.0)
        self._open += 1
        try:
            asking = await self._begin(await self._body(request), caller)
        except BaseException:
            self._open -= 1
            raise
        if asking.request.stream:
            return _Stream(self._stream(asking), self.settings.send_seconds, lambda: self._end(asking))
        try:
            return await self._whole(asking, request)
        finally:
            self._end(asking)

    def turn_down(self, error: Exception) -> Response:
        """The answer to a request that cannot be obeyed."""
        refused = refusal(error)
        self.metrics.failed(refused.code)
        logs.event("request refused", code=refused.code, status=refused.status, param=refused.param,
                   exc_info=error if refused.status == 500 else None)
        return JSONResponse(refused.to_json(), refused.status, refused.headers())

    def _end(self, asking: Asking) -> None:
        if asking.closed:
            return
        asking.closed = True
        self._open -= 1
        if not asking.ended:
            asking.listening.cancel()
            self.metrics.replied("cancelled")

    async def _body(self, request: Request) -> bytes:
        """Raises RefusedError: before more is in memory than is allowed (413), where it comes too slowly (408)."""
        most, stated = self.settings.max_message_bytes, request.headers.get("content-length", "0")
        if not stated.isdecimal() or int(stated) <= most:
            try:
                if (body := await self._received(request, most)) is not None:
                    return body
            except TimeoutError as error:
                raise RefusedError(f"body: comes too slowly; expected all of it within {self.settings.send_seconds:g} "
                                   f"s, and a second more for each {SLOWEST} bytes", status=408,
                                   code="request_timeout") from error
        raise RefusedError(f"body: holds more than {most} bytes, the most that is read", status=413,
                           code="request_too_large")

    async def _received(self, request: Request, most: int) -> bytes | None:
        """The body; None where it is longer than `most`. Raises TimeoutError."""
        body, began = bytearray(), asyncio.get_running_loop().time()
        async with asyncio.timeout(self.settings.send_seconds) as limit:
            async for piece in request.stream():
                body += piece
                if len(body) > most:
                    return None
                limit.reschedule(began + self.settings.send_seconds + len(body) / SLOWEST)
        return bytes(body)

    async def _begin(self, body: bytes, caller: Caller) -> Asking:
        asked, prompt = await asyncio.to_thread(self._read, body)
        spoken = sum(self.omni.model.speech_positions(len(part.samples)) for part in prompt if isinstance(part, Speech))
        written = sum(len(part) for part in prompt if not isinstance(part, Speech))
        listening = Listening(self.settings.send_queue)
        listening.job = self.engine.reply(prompt, listening.emit, asked.settings)
        return Asking(asked, listening, caller, spoken, written)

    def _read(self, body: bytes) -> tuple[ChatRequest, tuple[Segment, ...]]:
        """The request, and what the LLM is to read."""
        asked = read_request(body, self.settings.model_name, self.omni, self.engine.settings.reply_tokens,
                             self.engine.context)
        history = asked.history(self.omni, self.engine.context, self.settings.max_buffered_seconds)
        return asked, history.prompt(room=min(asked.settings.max_new_tokens, self.engine.context // 2))

    # -- whole --------------------------------------------------------------------------------------------------------

    async def _whole(self, asking: Asking, request: Request) -> Response:
        leaving = asyncio.create_task(_gone(request))
        answering = asyncio.create_task(self._reply(asking))
        try:
            await asyncio.wait({leaving, answering}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                asking.listening.cancel()
            reply = await answering
        finally:
            leaving.cancel()
            answering.cancel()
        if reply.cancelled:  # nobody reads this where the client has left
            raise _interrupted()
        message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None, "annotations": []}
        if kind := asking.request.sound:
            sound = await asyncio.to_thread(write_clip, reply.audio, reply.sample_rate, kind)
            message |= {"content": None, "audio": {
                "id": f"audio_{secrets.token_hex(12)}", "data": base64.b64encode(sound).decode(),
                "expires_at": asking.created, "transcript": reply.text}}  # nothing is kept: it has expired
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._reason(reply)}
        return JSONResponse({
            "id": asking.id, "object": "chat.completion", "created": asking.created, "model": self.settings.model_name,
            "choices": [choice], "usage": asking.usage(reply), "system_fingerprint": None})

    async def _reply(self, asking: Asking) -> Reply:
        async for event in asking.listening:
            if not isinstance(event, Text | Audio):
                return self._ended(asking, event)
        raise AssertionError("a reply ends in Done or Failed")

    def _ended(self, asking: Asking, event: Any) -> Reply:
        """The reply of a last event. Raises what made it fail."""
        asking.ended = True
        if not isinstance(event, Done):
            self.metrics.replied("failed")
            raise event.error
        reply = event.reply
        status = "cancelled" if reply.cancelled else {"stop": "completed"}.get(self._reason(reply), "incomplete")
        self.metrics.replied(status, reply.timings)
        logs.event("completion", id=asking.id, caller=asking.caller.name, status=status, tokens=len(reply.token_ids),
                   first_audio=round(reply.timings.first_audio, 4), total=round(reply.timings.total, 4),
                   content={"reply": reply.text})
        return reply

    @staticmethod
    def _reason(reply: Reply) -> str:
        return "length" if reply.cut else "stop"

    # -- streamed -----------------------------------------------------------------------------------------------------

    async def _stream(self, asking: Asking) -> AsyncIterator[str]:
        """Server-sent events, in the order that OpenAI's have."""
        speak = asking.request.sound is not None
        wire = WireEncoder(PCM, self.omni.sample_rate)
        audio_id = {"id": f"audio_{secrets.token_hex(12)}"}
        yield self._chunk(asking, {"role": "assistant", "content": None if speak else "", "refusal": None})
        try:
            async for event in asking.listening:
                if isinstance(event, Text):
                    said = {"audio": audio_id | {"transcript": event.delta}} if speak else {"content": event.delta}
                    yield self._chunk(asking, said)
                elif isinstance(event, Audio):
                    yield self._sound(asking, audio_id, wire.push(event.samples.numpy()))
                else:
                    reply = self._ended(asking, event)
                    if reply.cancelled:
                        raise _interrupted()
                    if speak:
                        yield self._sound(asking, audio_id, wire.flush())
                        yield self._chunk(asking, {"audio": {"expires_at": asking.created}})
                    yield self._chunk(asking, {}, self._reason(reply))
                    if asking.request.usage:
                        yield self._line(asking, {"choices": [], "usage": asking.usage(reply)})
                    self._end(asking)  # before the client knows, for it may ask again at once
                    yield "data: [DONE]\n\n"
        except Exception as error:
            refused = refusal(error)
            self.metrics.failed(refused.code)
            yield f"data: {json.dumps(refused.to_json())}\n\n"

    def _sound(self, asking: Asking, audio_id: dict[str, str], data: bytes) -> str:
        return self._chunk(asking, {"audio": audio_id | {"data": base64.b64encode(data).decode()}})

    def _chunk(self, asking: Asking, delta: dict[str, Any], reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._line(asking, {"choices": [choice]} | ({"usage": None} if asking.request.usage else {}))

    def _line(self, asking: Asking, fields: dict[str, Any]) -> str:
        chunk = {"id": asking.id, "object": "chat.completion.chunk", "created": asking.created,
                 "model": self.settings.model_name, "system_fingerprint": None}
        return f"data: {json.dumps(chunk | fields)}\n\n"


class _Stream(StreamingResponse):
    """Server-sent events to a client that may leave or stop reading. `ended` is called once, however it ends."""

    def __init__(self, lines: AsyncIterator[str], seconds: float, ended: Callable[[], None]) -> None:
        super().__init__(lines, media_type="text/event-stream",
                         headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._seconds, self._ended = seconds, ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except TimeoutError:
            logs.event("slow reader", seconds=self._seconds)
        finally:
            self._ended()

    async def stream_response(self, send: Send) -> None:
        async def in_time(message: Any) -> None:
            async with asyncio.timeout(self._seconds):
                await send(message)

        await super().stream_response(in_time)


async def _gone(request: Request) -> None:
    """Returns when the client has left. The body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _interrupted() -> RefusedError:
    return RefusedError("The answer was interrupted before its end.", status=503, type="server_error",
                        code="answer_interrupted", retry_after=5.0)
