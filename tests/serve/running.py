"""An app on a free port of this machine, in a thread, for tests that come as real clients do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp

WAIT = 60  # seconds until a test gives up


class _Server(uvicorn.Server):
    """Tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@contextmanager
def serving(app: ASGIApp, **config: Any) -> Iterator[str]:
    """The app's address, such as 127.0.0.1:54321, while it runs."""
    server = _Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=5,
                                    **config))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert server.ready.wait(WAIT)
        host, port = server.servers[0].sockets[0].getsockname()
        yield f"{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(WAIT)
