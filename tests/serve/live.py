"""nano, or a tiny random model, served on a free port; and what is needed to talk to it as strangers do."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import websockets.sync.client as websockets

from omnivox.runtime.engine import Engine, EngineSettings
from omnivox.runtime.respond import Omni
from omnivox.serve.app import create_app
from omnivox.serve.settings import ServeSettings
from tests.serve.running import WAIT, serving

Event = dict[str, Any]
WIDE = {"sessions_per_minute": 100_000, "requests_per_minute": 100_000}  # tests come in crowds


@contextmanager
def served(omni: Omni, engine: EngineSettings | None = None, **settings: Any) -> Iterator[str]:
    """The address, such as 127.0.0.1:54321, of a server with that model."""
    running = Engine(omni, engine or EngineSettings())
    running.start()
    try:
        with serving(create_app(running, ServeSettings(**(WIDE | settings)))) as address:
            yield address
    finally:
        running.close(drain=0.0)


class Wire:
    """A connection of bare JSON; `seen` holds every event that the server sent."""

    def __init__(self, address: str, **options: Any) -> None:
        self.socket = websockets.connect(f"ws://{address}/v1/realtime?model=nano", compression=None, max_size=None,
                                         max_queue=None, proxy=None, **options)
        self.seen: list[Event] = []

    def __enter__(self) -> Wire:
        self.socket = self.socket.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.socket.close()

    def send(self, kind: str, **fields: Any) -> None:
        self.socket.send(json.dumps({"type": kind, **fields}))

    def receive(self) -> Event:
        event = json.loads(self.socket.recv(timeout=WAIT))
        self.seen.append(event)
        return event

    def until(self, kind: str) -> Event:
        """The next event of that type."""
        while (event := self.receive())["type"] != kind:
            assert event["type"] != "error", event
        return event

    def append(self, pcm: bytes, packet: int = 48_000) -> None:
        """Sound, a second at a time."""
        for start in range(0, len(pcm), packet):
            self.send("input_audio_buffer.append", audio=base64.b64encode(pcm[start:start + packet]).decode())


def pcm(samples: np.ndarray) -> bytes:
    """Samples [n] in -1..1 as the protocol's bytes."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()
