"""A reply's events, from the engine's thread to a coroutine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from omnivox.runtime import job
from omnivox.runtime.events import Audio, Done, Failed, Ready, Text

Event = Text | Audio | Done | Failed


def cross(loop: asyncio.AbstractEventLoop, tell: Callable[..., object], *args: Any) -> None:
    """Call `tell` in `loop`, from the engine's thread; not at all where it has closed: nobody listens any more."""
    with suppress(RuntimeError):  # all that it raises, and only for that
        loop.call_soon_threadsafe(tell, *args)


class Listening:
    """Give `emit` to the engine, then iterate. Made in the event loop whose coroutine listens.

    most: events that may wait; where a slow reader leaves more, the reply is cancelled and `overflowed` is true.
    """

    def __init__(self, most: int) -> None:
        self.job: job.Job | None = None
        self.overflowed = False
        self._most, self._loop = most, asyncio.get_running_loop()
        self._queue: asyncio.Queue[Event] = asyncio.Queue()  # bounded below, where the last event still finds room

    def emit(self, event: job.Event) -> None:
        """For the engine's thread."""
        if not isinstance(event, Ready):  # said only of replies that are held back
            cross(self._loop, self._put, event)

    def cancel(self) -> None:
        """Stop the reply, if it has not ended."""
        if self.job is not None:
            self.job.cancel()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            event = await self._queue.get()
            yield event
            if isinstance(event, Done | Failed):
                return

    def _put(self, event: Event) -> None:
        if not isinstance(event, Done | Failed):
            if self.overflowed:  # a reply with a gap is worse than a short one
                return
            if self._queue.qsize() >= self._most:
                self.overflowed = True
                self.cancel()
                return
        self._queue.put_nowait(event)
