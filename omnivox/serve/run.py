"""A server process: uvicorn around the app, and an end in peace."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from omnivox.errors import ConfigError
from omnivox.runtime.engine import Engine
from omnivox.serve.app import create_app
from omnivox.serve.connection import Connections
from omnivox.serve.guard import check_bind
from omnivox.serve.logs import configure
from omnivox.serve.settings import ServeSettings


class Server(uvicorn.Server):
    """The first SIGTERM or Ctrl-C drains: no new sessions, answers under way end within a limit. The second ends it."""

    def __init__(self, config: uvicorn.Config, connections: Connections, drain_seconds: float,
                 listening: Callable[[], object]) -> None:
        super().__init__(config)
        self._connections, self._drain_seconds, self._listening = connections, drain_seconds, listening
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Task[None] | None = None

    async def serve(self, sockets: Any = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._listening()

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


def bind(settings: ServeSettings) -> list[socket.socket]:
    """Sockets at the address of the settings, that do not listen yet. Raises ConfigError where that cannot be, or where
    others could come in without a key."""
    check_bind(settings.host, settings)
    host, port, sockets = settings.host.strip("[]"), settings.port, list[socket.socket]()
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM,
                                                                     flags=socket.AI_PASSIVE):
            sockets.append(one := socket.socket(family, kind, protocol))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:  # the other family has a socket of its own
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            port = port or sockets[0].getsockname()[1]  # one port for all, whichever is free
            one.bind((address[0], port, *address[2:]))
    except OSError as error:
        for one in sockets:
            one.close()
        raise ConfigError(f"port: found {port} at {settings.host}, where this server cannot listen "
                          f"({error.strerror or error}); choose another with --port") from error
    return sockets


def address(sockets: list[socket.socket]) -> str:
    """Host and port as they stand in a URL."""
    host, port = sockets[0].getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def serve(engine: Engine, settings: ServeSettings, sockets: list[socket.socket],
          listening: Callable[[], object] = lambda: None) -> None:
    """Serve until told to end. sockets: of `bind`. listening: called once clients can come."""
    configure(settings)
    app = create_app(engine, settings)
    config = uvicorn.Config(app, host=settings.host, port=settings.port, log_config=None, access_log=False,
                            ws_max_size=settings.max_message_bytes, ws_max_queue=32, server_header=False,
                            timeout_graceful_shutdown=2 + int(settings.drain_seconds))
    # What is loaded stays; without it among what Python looks through, sessions that have ended are found soon.
    gc.collect()
    gc.freeze()
    with engine:
        Server(config, app.state.connections, settings.drain_seconds, listening).run(sockets)
