"""What a session heard, in writing."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from omnivox.errors import OmnivoxError
from omnivox.rates import SAMPLE_RATE
from omnivox.runtime.engine import Engine
from omnivox.runtime.events import Done, Failed
from omnivox.runtime.history import Segment, Speech
from omnivox.runtime.job import Event, Job
from omnivox.runtime.respond import ReplySettings
from omnivox.serve.items import Entry
from omnivox.serve.listening import cross
from omnivox.serve.protocol import Json

BACKLOG = 4  # questions that may wait to be written down


class Transcripts:
    """What one session heard in writing, by the model itself: one question after the other, so that others are not kept
    waiting by them. All of it runs in the event loop, but `_cross`."""

    def __init__(self, engine: Engine, send: Callable[[Json], None]) -> None:
        self._engine, self._send, self._loop = engine, send, asyncio.get_running_loop()
        self._waiting: deque[tuple[Entry, tuple[Segment, ...]]] = deque()
        self._job: Job | None = None

    def add(self, entry: Entry, prompt: tuple[Segment, ...] | None) -> None:
        """Write an item down. prompt: that asks the model for it; None: it cannot."""
        if prompt is None:
            return
        if len(self._waiting) >= BACKLOG:
            self._failed(entry, f"{BACKLOG} others wait to be written down.")
            return
        self._waiting.append((entry, prompt))
        self._loop.call_soon(self._next)  # behind the answer in the engine's queue

    def end(self) -> None:
        """The client is gone."""
        self._waiting.clear()
        if self._job is not None:
            self._job.cancel()
        self._job, self._send = None, lambda _: None

    def _next(self) -> None:
        while self._waiting and self._job is None:
            entry, prompt = self._waiting.popleft()
            try:
                self._job = self._engine.reply(prompt, partial(self._cross, entry, prompt), ReplySettings(speak=False))
            except OmnivoxError as error:
                self._failed(entry, str(error))

    def _cross(self, entry: Entry, prompt: Sequence[Segment], event: Event) -> None:
        """From the engine's thread into the event loop."""
        if isinstance(event, Done | Failed):
            cross(self._loop, self._tell, entry, prompt, event)

    def _tell(self, entry: Entry, prompt: Sequence[Segment], event: Done | Failed) -> None:
        self._job = None
        if isinstance(event, Failed) or event.reply.cancelled:
            self._failed(entry, "The model failed to write down what it heard.")
        else:
            self._written(entry, prompt, event.reply.text)
        self._next()

    def _written(self, entry: Entry, prompt: Sequence[Segment], text: str) -> None:
        entry.json["content"][0]["transcript"] = text
        samples = sum(len(part.samples) for part in prompt if isinstance(part, Speech))
        self._say(entry, "delta", delta=text)
        self._say(entry, "completed", transcript=text,
                  usage={"type": "duration", "seconds": round(samples / SAMPLE_RATE, 3)})

    def _failed(self, entry: Entry, message: str) -> None:
        self._say(entry, "failed",
                  error={"type": "server_error", "code": "transcription_failed", "message": message})

    def _say(self, entry: Entry, kind: str, **fields: object) -> None:
        self._send({"type": f"conversation.item.input_audio_transcription.{kind}", "item_id": entry.json["id"],
                    "content_index": 0, **fields})
