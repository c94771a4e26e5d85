"""WebSockets: who is let in, how long they may stay, and how fast they must read."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from fastapi.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from omnivox.runtime.engine import Engine
from omnivox.serve import logs
from omnivox.serve.guard import Guard, subprotocol
from omnivox.serve.metrics import Metrics
from omnivox.serve.protocol import Json
from omnivox.serve.refusal import RefusedError, refusal
from omnivox.serve.session import Session
from omnivox.serve.settings import ServeSettings

NORMAL, GOING_AWAY, POLICY, TOO_BIG, RESTART = 1000, 1001, 1008, 1009, 1012  # close codes (RFC 6455)

FLUSH_SECONDS = 0.5  # that a reader who keeps up has for what is queued, even when the time to drain is over


class Connection:
    """One WebSocket: a reader that feeds the session, and a writer behind a bounded queue."""

    def __init__(self, socket: WebSocket, settings: ServeSettings) -> None:
        self.socket, self.settings = socket, settings
        self.session: Session | None = None
        self._queue: asyncio.Queue[Json] = asyncio.Queue(settings.send_queue)
        self.closing: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    def send(self, message: Json) -> None:
        """Queue a message; a reader so slow that the queue is full is hung up on."""
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            self.close(POLICY, "You read too slowly.")

    def close(self, code: int, reason: str) -> None:
        """Hang up, after what is being sent."""
        if not self.closing.done():
            self.closing.set_result((code, reason))

    async def run(self) -> tuple[int, str]:
        """Until either side hangs up; gives the close code and why."""
        tasks = [asyncio.create_task(part) for part in (self._read(), self._write(), self._last())]
        try:
            return await self.closing
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def flush(self) -> None:
        """Until everything queued has been sent."""
        while not self._queue.empty() and not self.closing.done():
            await asyncio.sleep(0.01)

    async def _read(self) -> None:
        assert self.session is not None
        while True:
            try:
                async with asyncio.timeout(self.settings.idle_seconds):
                    message = await self.socket.receive()
            except TimeoutError:
                self.close(POLICY, f"Nothing came for {self.settings.idle_seconds:.0f} s.")
                return
            if message["type"] == "websocket.disconnect":
                self.close(message.get("code") or NORMAL, "")
                return
            raw = message.get("text")
            raw = message.get("bytes") or b"" if raw is None else raw
            if len(raw) > self.settings.max_message_bytes:
                self.close(TOO_BIG, f"A message may have {self.settings.max_message_bytes} bytes.")
                return
            await self.session.handle(raw)

    async def _write(self) -> None:
        while True:
            message = await self._queue.get()
            try:
                async with asyncio.timeout(self.settings.send_seconds):
                    await self.socket.send_text(json.dumps(message))
            except TimeoutError:
                self.close(POLICY, "You read too slowly.")
                return
            except (WebSocketDisconnect, RuntimeError, OSError):
                self.close(NORMAL, "")
                return

    async def _last(self) -> None:
        await asyncio.sleep(self.settings.total_seconds)
        self.close(POLICY, f"A session lasts {self.settings.total_seconds:.0f} s at most.")


class Connections:
    """All of a server's WebSockets."""

    def __init__(self, engine: Engine, settings: ServeSettings, metrics: Metrics, guard: Guard,
                 pool: ThreadPoolExecutor) -> None:
        self._engine, self._settings, self._metrics, self._guard = engine, settings, metrics, guard
        self._pool = pool
        self._open: set[Connection] = set()
        self.draining = False

    async def serve(self, socket: WebSocket) -> None:
        """One client, from its request to the end."""
        try:
            caller = self._guard.admit(socket)
            if self.draining:
                raise RefusedError("The server is shutting down; connect to another.", status=503,
                                   type="server_error", code="server_draining", retry_after=5.0)
            with self._guard.session(caller), self._metrics.session():
                await self._converse(socket, caller.name)
        except RefusedError as error:
            await self._turn_away(socket, error)

    async def _converse(self, socket: WebSocket, caller: str) -> None:
        await socket.accept(subprotocol(socket))
        connection = Connection(socket, self._settings)
        session = Session(self._engine, self._settings, self._metrics, connection.send, self._pool)
        connection.session = session
        self._open.add(connection)
        logs.event("session began", session=session.id, caller=caller)
        session.begin()
        try:
            code, reason = await connection.run()
        finally:
            self._open.discard(connection)
            connection.session = None
            session.end()
        logs.event("session ended", session=session.id, code=code)
        if socket.application_state is not WebSocketState.DISCONNECTED \
                and socket.client_state is not WebSocketState.DISCONNECTED:
            with suppress(WebSocketDisconnect, RuntimeError, OSError):
                await socket.close(code if code in (NORMAL, GOING_AWAY, POLICY, TOO_BIG, RESTART) else NORMAL, reason)

    async def _turn_away(self, socket: WebSocket, error: RefusedError) -> None:
        refused = refusal(error)
        self._metrics.failed(refused.code)
        logs.event("session refused", code=refused.code, status=refused.status)
        if socket.application_state is WebSocketState.CONNECTING:
            with suppress(RuntimeError):  # a server without that extension answers 403
                await socket.send_denial_response(JSONResponse(refused.to_json(), refused.status, refused.headers()))

    async def drain(self, seconds: float) -> None:
        """No new sessions; answers that are being made end, within a limit; then everybody is sent away."""
        self.draining = True
        end = time.monotonic() + seconds

        async def leave(connection: Connection) -> None:
            while (session := connection.session) is not None and session.busy and time.monotonic() < end:
                await asyncio.sleep(0.02)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(FLUSH_SECONDS, end - time.monotonic())):
                    await connection.flush()
            connection.close(RESTART, "The server is shutting down.")

        await asyncio.gather(*(leave(connection) for connection in list(self._open)))
        while self._open and time.monotonic() < end + 1:
            await asyncio.sleep(0.01)
