"""A server process: uvicorn around the app, and an end in peace."""

from __future__ import annotations

import asyncio
import gc
from types import FrameType
from typing import Any

import uvicorn

from omnivox.runtime.engine import Engine
from omnivox.serve.app import create_app
from omnivox.serve.connection import Connections
from omnivox.serve.guard import check_bind
from omnivox.serve.logs import configure
from omnivox.serve.settings import ServeSettings


class Server(uvicorn.Server):
    """The first SIGTERM or Ctrl-C drains: no new sessions, answers under way end within a limit. The second ends it."""

    def __init__(self, config: uvicorn.Config, connections: Connections, drain_seconds: float) -> None:
        super().__init__(config)
        self._connections, self._drain_seconds = connections, drain_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Task[None] | None = None

    async def serve(self, sockets: Any = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is None or self._connections.draining:
            super().handle_exit(sig, frame)
            return
        self._connections.draining = True
        self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        async def drain() -> None:
            await self._connections.drain(self._drain_seconds)
            self.should_exit = True

        self._ending = asyncio.create_task(drain())


def serve(engine: Engine, settings: ServeSettings) -> None:
    """Serve until told to end. Raises ConfigError where others could come in without a key."""
    check_bind(settings.host, settings)
    configure(settings)
    app = create_app(engine, settings)
    config = uvicorn.Config(app, host=settings.host, port=settings.port, log_config=None, access_log=False,
                            ws_max_size=settings.max_message_bytes, ws_max_queue=32, server_header=False,
                            timeout_graceful_shutdown=2 + int(settings.drain_seconds))
    # What is loaded stays; without it among what Python looks through, sessions that have ended are found soon.
    gc.collect()
    gc.freeze()
    with engine:
        Server(config, app.state.connections, settings.drain_seconds).run()
