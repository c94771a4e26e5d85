"""A client in the same event loop as its session. The detector hears speech wherever the sound is loud; all else is
real."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from torch import Tensor

from omnivox.runtime.engine import Engine
from omnivox.runtime.history import Item
from omnivox.serve.metrics import Metrics
from omnivox.serve.session import Session
from omnivox.serve.settings import ServeSettings

RATE = 24_000
WAIT = 60.0
Events = list[dict[str, Any]]


class Loud:
    """Speech is what is loud."""

    def __call__(self, block: Tensor) -> float:
        return float(block.abs().max() > 0.05)

    def reset(self) -> None:
        pass


class Client:
    """Talks to a session in the same event loop."""

    def __init__(self, engine: Engine, pool: ThreadPoolExecutor, **settings: Any) -> None:
        self.events: Events = []
        self.remembered: list[Item] = []  # what the model knew when the session ended
        self.session = Session(engine, ServeSettings(**settings), Metrics(), self.events.append, pool, Loud)
        self.session.begin()

    async def send(self, kind: str, **fields: Any) -> None:
        await self.session.handle(json.dumps({"type": kind, **fields}))

    async def sound(self, seconds: float, loud: bool = True) -> None:
        rng = np.random.default_rng(0)
        wave = rng.uniform(-0.3, 0.3, int(seconds * RATE)) if loud else np.zeros(int(seconds * RATE))
        pcm = (wave * 32767).astype("<i2").tobytes()
        for start in range(0, len(pcm), 1920):  # 40 ms
            await self.send("input_audio_buffer.append", audio=base64.b64encode(pcm[start:start + 1920]).decode())

    async def ask(self, seconds: float = 0.8, silence: float = 0.7) -> None:
        await self.sound(seconds)
        await self.sound(silence, loud=False)

    async def until(self, kind: str, count: int = 1) -> dict[str, Any]:
        """The count-th event of a kind."""
        async with asyncio.timeout(WAIT):
            while len(found := [event for event in self.events if event["type"] == kind]) < count:
                await asyncio.sleep(0.001)
        return found[count - 1]

    def kinds(self) -> list[str]:
        """Types as they came; deltas, of text and of sound, once for each run of them."""
        found: list[str] = []
        for event in self.events:
            kind = "deltas" if event["type"].endswith("delta") else event["type"]
            if kind != "deltas" or found[-1] != kind:
                found.append(kind)
        return found

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [event["error"] for event in self.events if event["type"] == "error"]


Talk = Callable[..., Client]
"""Runs a script with a client, and gives the client afterwards."""


def talks(engine: Engine, pool: ThreadPoolExecutor) -> Talk:
    """Conversations with one engine."""
    def run(script: Callable[[Client], Awaitable[None]], **settings: Any) -> Client:
        async def main() -> Client:
            client = Client(engine, pool, **settings)
            await script(client)
            client.remembered = list(client.session._history.items)
            client.session.end()
            return client

        return asyncio.run(main())

    return run
