"""One reply in the making, as its caller and the engine see it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from torch import Tensor

from omnivox.runtime.conversation import Conversation
from omnivox.runtime.detokenise import Detokeniser
from omnivox.runtime.events import Audio, Done, Failed, Ready, Reply, Text, Timings
from omnivox.runtime.history import Segment, Speech
from omnivox.runtime.respond import Omni, ReplySettings
from omnivox.runtime.speaking import Mouth

SPARE = 0.25  # seconds of sound that a listener should have ahead

log = logging.getLogger(__name__)
Event = Text | Audio | Ready | Done | Failed
Emit = Callable[[Event], None]


class Maker(Protocol):
    """What a job needs of the engine."""

    omni: Omni

    def order(self, action: Callable[[], None]) -> None: ...
    def cancel(self, job: Job) -> None: ...
    def release(self, job: Job) -> None: ...


class Job:
    """Callers use `cancel` and `release`; the rest belongs to the engine's thread."""

    def __init__(self, engine: Maker, prompt: tuple[Segment, ...], emit: Emit, settings: ReplySettings,
                 conversation: Conversation, held: bool, own: bool = True) -> None:
        self.engine, self.prompt, self.settings, self.conversation = engine, prompt, settings, conversation
        self.held, self.ended = held, False
        self.own = own  # the conversation is for this reply alone
        self.began, self.began_at = time.perf_counter(), time.monotonic()
        self._emit = emit
        self.restart()

    def restart(self) -> None:
        """As it was before anything was made of it."""
        self.live = True
        self.unread: Tensor | None = None  # embeddings [T, D] of the prompt; None while speech in it is to be encoded
        self.start = 0  # positions of the prompt
        self.limit = 1  # tokens
        self.mouth: Mouth | None = None
        self.token_ids: list[int] = []
        self.complete = self._cut = False  # nothing more will come; because it is as long as it may be
        self._heard_until = 0.0  # when all that was said will have been heard, by the clock of `began`
        self._log_chance = 0.0
        self.timings = Timings()
        self._kept = list[Event]()
        self._writer, self._text, self._sound = Detokeniser(self.engine.omni.tokenizer), "", list[Tensor]()

    # -- for callers, from any thread ---------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Stop within a tick; the last event, a Done, tells how far it came."""
        self.engine.order(lambda: self.engine.cancel(self))

    def release(self) -> None:
        """Let a held reply be heard."""
        self.engine.order(lambda: self.engine.release(self))

    # -- for the engine -----------------------------------------------------------------------------------------------

    @property
    def unheard(self) -> Speech | None:
        """Speech in the prompt that is still to be encoded."""
        return next((part for part in self.prompt if isinstance(part, Speech) and part.positions is None), None)

    def encode(self, speech: Speech) -> None:
        """Have the model hear speech of the prompt."""
        model, began = self.engine.omni.model, time.perf_counter()
        mel = model.log_mel(speech.samples[None])
        encoding = time.perf_counter()
        self.timings.mel += encoding - began
        speech.positions = model.encode(mel).row(0).clone()
        self.timings.encode += time.perf_counter() - encoding

    def take(self, positions: int) -> Tensor:
        """The next embeddings [T, D] of the prompt, at most so many."""
        assert self.unread is not None
        taken, self.unread = self.unread[:positions], self.unread[positions:]
        return taken

    @property
    def ready(self) -> bool:
        """Whether there is something to be heard: a sound, or a word of a reply without sound."""
        return bool(self._sound) if self.mouth is not None else bool(self.token_ids)

    @property
    def hungry(self) -> bool:
        """Whether its listener is about to run out of sound."""
        return self.live and self._heard_until > 0 and self._heard_until - time.perf_counter() < SPARE

    def hear(self, token: int, chance: float, units: list[int]) -> None:
        """One more token, which had that probability."""
        self._log_chance += math.log(max(chance, 1e-9))
        ended = token in self.engine.omni.end_ids
        if ended and not self.token_ids:
            self.mouth = None  # nothing was said, so nothing is spoken
        self.timings.first_token = self.timings.first_token or self.elapsed
        self.token_ids.append(token)
        self._cut = not ended and len(self.token_ids) >= self.limit
        self.complete = ended or self._cut
        if not ended and (delta := self._writer.push(token)):
            self._write(delta)
        if self.complete and (delta := self._writer.finish()):
            self._write(delta)
        if self.mouth is not None:
            self.mouth.hear(units)
            if self.mouth.due or (self.complete and self.mouth.units):
                self.timings.first_units = self.timings.first_units or self.elapsed

    def say(self, event: Audio) -> None:
        """More sound."""
        self.timings.first_audio = self.timings.first_audio or self.elapsed
        self._sound.append(event.samples)
        seconds = len(event.samples) / self.engine.omni.sample_rate
        self._heard_until = max(self._heard_until, time.perf_counter()) + seconds
        self._give(event)

    def announce(self) -> None:
        """The first sound of a held reply is there."""
        self._tell(Ready(math.exp(self._log_chance / max(1, len(self.token_ids)))))

    def let_go(self) -> None:
        """What was kept back is given."""
        self.held = False
        kept, self._kept = self._kept, []
        for event in kept:
            self._give(event)
        if self.ended:
            self.forget()

    def finish(self, token_ends: tuple[int, ...], cancelled: bool, error: Exception | None) -> None:
        """The last event. A reply that was never heard of ends in silence."""
        self.ended, self.complete = True, True
        self._give(Failed(error) if error is not None else Done(self._reply(token_ends, cancelled)))
        if cancelled or not self.held:
            self.forget()

    def forget(self) -> None:
        """Nobody will hear more of it. Whoever listens often knows the job, and such a cycle would keep all that was
        said until Python looks for one."""
        self._emit, self._kept, self._sound = _nobody, [], []

    @property
    def forgotten(self) -> bool:
        """Whether nobody will hear more of it."""
        return self._emit is _nobody

    def _reply(self, token_ends: tuple[int, ...], cancelled: bool) -> Reply:
        rate = self.engine.omni.sample_rate
        audio = self.timings.end(self.elapsed, self._sound, rate)
        units = [] if self.mouth is None else self.mouth.units
        return Reply(self._text, self.token_ids, units, audio, rate, self.timings, token_ends, cancelled, self._cut)

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.began

    def _write(self, delta: str) -> None:
        self._text += delta
        self._give(Text(delta))

    def _give(self, event: Event) -> None:
        if self.held:
            self._kept.append(event)
        else:
            self._tell(event)

    def _tell(self, event: Event) -> None:
        try:
            self._emit(event)
        except Exception:  # the caller's fault must not end other replies
            log.exception("engine: a listener failed")
            self._emit = _nobody
            self.cancel()


def standing(making: Iterable[Job]) -> Job | None:
    """The oldest reply that is held back with its first sound."""
    return min((job for job in making if job.held and not job.live), key=lambda job: job.began, default=None)


def startable(waiting: Iterable[Job], making: Sequence[Job], slots: int) -> Job | None:
    """The first of those waiting whose conversation is not busy, if there is a slot for it: one that is free, or one
    that a standing reply gives up. Those held back come last, and nobody gives up a slot for them."""
    busy = {id(job.conversation) for job in making}
    job = min((job for job in waiting if id(job.conversation) not in busy), key=lambda job: job.held, default=None)
    if len(making) < slots or (job is not None and not job.held and standing(making) is not None):
        return job
    return None


def _nobody(_: Event) -> None:
    """Listens no more."""
