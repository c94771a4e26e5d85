"""Many conversations on one model: replies share every step, each as if it were alone.

A thread of its own turns round and round: orders (cancellations, releases), then a little of the prompts that wait to
be read, all newcomers' at once, then one tick of all replies that are being made. So newcomers, however many, delay the
others by a piece of a prompt at most.

    reply() ─► queue ─► a slot: encode, then the prompt piece by piece ─► a token a tick ─► Done
               bounded: BusyError                `Slots`                  `Slots`, `Speaking`
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from omnivox.errors import ConfigError, OmnivoxError
from omnivox.runtime.conversation import Conversation
from omnivox.runtime.events import Audio
from omnivox.runtime.history import Segment
from omnivox.runtime.job import Emit, Job, standing, startable
from omnivox.runtime.respond import Omni, ReplySettings
from omnivox.runtime.slots import Slots
from omnivox.runtime.speaking import Speaking

log = logging.getLogger(__name__)
RECENT_TICKS = 1000
PATIENCE = 4  # ticks


class BusyError(OmnivoxError):
    """Every slot is taken and the queue is full."""


class DrainingError(OmnivoxError):
    """The engine is shutting down and takes no more replies."""


@dataclass(frozen=True)
class EngineSettings:
    """slots: replies that are made at once; queue: replies that may wait for one; context: positions of the LLM that a
    prompt and its reply may take; reply_tokens: of the longest reply; piece: positions of prompts that are read between
    two ticks; of speech, which costs more, half as many are encoded."""

    slots: int = 8
    queue: int = 32
    context: int = 2048
    reply_tokens: int = 256
    piece: int = 64

    def __post_init__(self) -> None:
        for name, least in (("slots", 1), ("queue", 0), ("context", 16), ("reply_tokens", 1), ("piece", 1)):
            if (value := getattr(self, name)) < least:
                raise ConfigError(f"{name}: found {value}; expected {least} or more")


@dataclass(frozen=True)
class EngineStats:
    """Slots, those taken, replies that wait for one, ticks so far, and seconds of each tick since the last call."""

    slots: int
    busy: int
    queued: int
    ticks: int
    tick_seconds: list[float]


class Engine:
    """Makes replies for many callers at once. Start it, or use it as a context manager."""

    def __init__(self, omni: Omni, settings: EngineSettings | None = None) -> None:
        self.omni, settings = omni, settings or EngineSettings()
        self.context = min(settings.context, omni.llm.max_positions or settings.context)
        self.settings = settings
        with torch.inference_mode():
            self._slots = Slots(omni, settings.slots, self.context, min(settings.reply_tokens, self.context))
        self._speaking = Speaking(omni.vocoder) if omni.can_speak else None
        self._lock = threading.Condition()
        self._orders: deque[Callable[[], None]] = deque()
        self._queue: deque[Job] = deque()
        self._rows: list[Job] = []  # the first `_replying` are being answered, the others' prompts are being read
        self._replying = 0
        self._waited = 0  # ticks since newcomers were read
        self._ticks, self._tick_seconds = 0, deque[float](maxlen=RECENT_TICKS)
        self._draining = self._stopping = False
        self._thread = threading.Thread(target=self._run, name="omnivox-engine", daemon=True)

    # -- for callers, from any thread ---------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the engine's thread."""
        self._thread.start()
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether replies are being made."""
        return self._thread.is_alive() and not self._draining

    def conversation(self) -> Conversation:
        """A new conversation's memory; it is freed when nobody holds it."""
        return Conversation(self.omni)

    def reply(self, prompt: Sequence[Segment], emit: Emit, settings: ReplySettings | None = None, *,
              conversation: Conversation | None = None, held: bool = False) -> Job:
        """Begin a reply. `emit` is called in the engine's thread with Text and Audio, then with one Done or Failed.

        held: make it as far as its first sound and say nothing of it until `release`: for an answer to a question that
        may not have ended. It is in nobody's way: while others wait for a slot it gives up its own, and is made anew
        later, when it is released at the latest. Raises BusyError, DrainingError.
        """
        own = conversation is None
        job = Job(self, tuple(prompt), emit, settings or ReplySettings(), conversation or self.conversation(), held,
                  own)
        with self._lock:
            if self._draining:
                raise DrainingError("engine: is shutting down; try another server")
            before = sum(held or not other.held for other in (*self._rows, *self._queue))
            if before >= self.settings.queue + self.settings.slots:
                raise BusyError(f"engine: all {self.settings.slots} slots are taken and {len(self._queue)} replies "
                                "wait; try again in a moment")
            self._queue.append(job)
            self._lock.notify()
        return job

    def end(self, conversation: Conversation) -> None:
        """Nobody will go on with this conversation: its memory is given back."""
        self.order(conversation.forget)

    def order(self, action: Callable[[], None]) -> None:
        """Have something done in the engine's thread, before the next tick."""
        with self._lock:
            self._orders.append(action)
            self._lock.notify()

    def stats(self) -> EngineStats:
        """What the engine is doing."""
        with self._lock:
            seconds = [self._tick_seconds.popleft() for _ in range(len(self._tick_seconds))]
            return EngineStats(self.settings.slots, len(self._rows), len(self._queue), self._ticks, seconds)

    def close(self, drain: float = 0.0) -> None:
        """Take no more replies, give those in the making `drain` seconds to end, then stop."""
        with self._lock:
            self._draining = True
            self._lock.notify()
        end = time.monotonic() + drain
        while self._thread.is_alive() and time.monotonic() < end and self._busy():
            time.sleep(0.01)
        with self._lock:
            self._stopping = True
            self._lock.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _busy(self) -> bool:
        with self._lock:
            return bool(self._queue or self._rows)

    # -- the engine's thread ------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _run(self) -> None:
        while self._wait():
            while self._orders:
                self._guarded(self._orders.popleft(), [])
            self._next()
            if not self._pressed():
                self._hear_on()
                self._read_on()
            if self._ticking:
                self._guarded(self._tick, self._rows[: self._replying])
        for job in [*self._rows, *self._queue]:
            self._end(job, cancelled=True)

    def _wait(self) -> bool:
        """Until there is something to do; False when it is time to stop."""
        with self._lock:
            while not (self._stopping or self._orders or self._startable() or len(self._rows) > self._replying
                       or self._ticking):
                self._lock.wait()
            return not self._stopping

    def _pressed(self) -> bool:
        """Whether newcomers wait, PATIENCE ticks at most, because a listener is about to run out of sound."""
        hungry = self._waited < PATIENCE and any(job.hungry for job in self._rows[: self._replying])
        self._waited = self._waited + 1 if hungry else 0
        return hungry

    @property
    def _ticking(self) -> bool:
        """Whether a reply goes on."""
        return any(job.live for job in self._rows[: self._replying])

    def _startable(self) -> Job | None:
        return startable(self._queue, self._rows, self.settings.slots)

    def _next(self) -> None:
        with self._lock:
            while job := self._startable():
                if len(self._rows) == self.settings.slots and (other := standing(self._rows)):
                    self._guarded(partial(self._give_way, other), [other])
                self._queue.remove(job)
                self._rows.append(job)

    def _give_way(self, job: Job) -> None:
        """A held reply leaves its slot, and waits behind all others to be made anew."""
        self._leave(job, keep=True)
        job.restart()
        self._queue.append(job)

    def _guarded(self, action: Callable[[], None], jobs: Sequence[Job]) -> None:
        """An error of the model ends the replies that it struck, and nothing else."""
        try:
            action()
        except Exception as error:
            log.exception("engine: a reply failed")
            for job in jobs:
                if not job.ended:
                    self._end(job, error=error)

    def _hear_on(self) -> None:
        """Encode some of what newcomers said; a prompt that is known as a whole goes to its row."""
        heard = 0
        for job in self._rows[self._replying:]:
            while not job.ended and 2 * heard < self.settings.piece and (speech := job.unheard) is not None:
                self._guarded(partial(job.encode, speech), [job])
                heard += 0 if speech.positions is None else len(speech.positions)
            if not job.ended and job.unread is None and job.unheard is None:
                self._guarded(partial(self._open, job), [job])

    def _open(self, job: Job) -> None:
        conversation = job.conversation
        unread = conversation.rewind(job.prompt)
        job.start = conversation.positions + len(unread)
        if (room := self.context - job.start) < 1:
            raise ConfigError(f"prompt: takes {job.start} positions; this engine has {self.context}")
        job.limit = min(job.settings.max_new_tokens, self._slots.tokens, room)
        self._slots.place(self._rows.index(job), conversation.state, conversation.positions)
        job.unread = unread

    def _read_on(self) -> None:
        """A piece of the newcomers' prompts, as much of each: those behind one that is still being heard wait."""
        readers = list(takewhile(lambda job: job.unread is not None, self._rows[self._replying:]))
        if readers:
            self._guarded(partial(self._read, readers), readers)

    def _read(self, readers: Sequence[Job]) -> None:
        began, width = time.perf_counter(), max(1, self.settings.piece // len(readers))
        hidden = self._slots.read(self._replying, [job.take(width) for job in readers])
        seconds = time.perf_counter() - began
        for job, last in zip(readers, hidden, strict=True):
            job.timings.prefill += seconds
            if job.unread is not None and not len(job.unread):
                self._begin(job, last)

    def _begin(self, job: Job, hidden: Tensor) -> None:
        settings = job.settings
        if settings.speak and self._speaking is not None:
            job.mouth = self._speaking.mouth(settings.chunk_units, settings.lookahead)
        self._swap(self._rows.index(job), self._replying)
        self._slots.begin(self._replying, hidden, settings.sampling, job.mouth is not None)
        self._replying += 1

    def _swap(self, one: int, other: int) -> None:
        if one != other:
            self._slots.swap(one, other)
            self._rows[one], self._rows[other] = self._rows[other], self._rows[one]

    def _tick(self) -> None:
        began = time.perf_counter()
        replies = self._rows[: self._replying]
        greedy = all(job.settings.sampling.temperature == 0 for job in replies)
        ticked = self._slots.tick(len(replies), greedy)
        jobs = [(row, job) for row, job in enumerate(replies) if job.live]
        for row, job in jobs:
            job.hear(ticked.tokens[row], ticked.chances[row], ticked.units[row])
        due = [job for _, job in jobs if job.mouth is not None and (job.complete or job.mouth.due)]
        if due and self._speaking is not None:
            spoken = self._speaking.speak([(job.mouth, job.complete) for job in due if job.mouth is not None])
            for job, samples in zip(due, spoken, strict=True):
                if len(samples):
                    job.say(Audio(samples.clone()))
        for row, job in jobs:
            if job.held and (job.complete or job.ready):
                self._stand(row, job)
        for _, job in jobs:
            if job.complete:
                self._end(job)
        self._ticks += 1
        with self._lock:
            self._tick_seconds.append(time.perf_counter() - began)

    def _stand(self, row: int, job: Job) -> None:
        """A held reply whose first sound is ready waits."""
        job.announce()
        job.live = False
        self._slots.set_live(row, live=False)

    def release(self, job: Job) -> None:
        """In the engine's thread: a held reply may be heard, and goes on."""
        if not job.held:
            return
        job.let_go()
        if job in self._rows and not job.live:
            job.live = True
            self._slots.set_live(self._rows.index(job), live=True)

    def cancel(self, job: Job) -> None:
        """In the engine's thread: a reply stops where it is."""
        if not job.ended:
            self._end(job, cancelled=True)
        job.forget()  # it may have been held

    def _end(self, job: Job, cancelled: bool = False, error: Exception | None = None) -> None:
        """A reply leaves its slot, or the queue; its last event follows."""
        with self._lock:
            if job in self._queue:
                self._queue.remove(job)
        if job in self._rows:
            self._leave(job, keep=error is None)
        job.unread = None
        if job.own:
            job.conversation.forget()
        ends = () if job.mouth is None or self._speaking is None else self._speaking.token_ends(job.mouth)
        job.finish(ends, cancelled, error)

    def _leave(self, job: Job, keep: bool) -> None:
        """The last of the replies, and then the last of all, move up."""
        row = self._rows.index(job)
        if keep and job.unread is not None and not job.own:
            job.conversation.keep(self._slots.state.llm, row, job.token_ids)
        if row < self._replying:
            self._replying -= 1
            self._swap(row, self._replying)
            row = self._replying
        self._swap(row, len(self._rows) - 1)
        with self._lock:
            self._rows.pop()
