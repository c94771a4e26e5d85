"""The answers of one session: one at a time, made at once, or prepared while the speaker pauses.

All of it runs in the event loop; what the engine's thread tells crosses over by `crossing`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from omnivox.errors import AudioError, OmnivoxError
from omnivox.runtime.engine import BusyError, DrainingError, Engine
from omnivox.runtime.events import Done, Failed, Ready
from omnivox.runtime.history import History, Item
from omnivox.runtime.job import Event, Job
from omnivox.runtime.respond import ReplySettings
from omnivox.runtime.sampling import SamplingSettings
from omnivox.serve.answer import Answer
from omnivox.serve.items import Entry, Items, letters
from omnivox.serve.listening import cross
from omnivox.serve.logs import event as log_event
from omnivox.serve.metrics import Metrics
from omnivox.serve.protocol import Json, ProtocolError, SessionConfig, Voicing, max_tokens

Send = Callable[[Json], None]
SETTLES_WITHIN = 5.0  # seconds that a stopped answer has to end; it takes a tick


@dataclass
class Prepared:
    """An answer to a question that may not have ended: the question as the model knows it, and the job."""

    item: Item
    job: Job
    listener: Callable[[Event], None] | None = None


class Responses:
    """config: gives the session's present one. expect: told how certain the model is of a prepared answer."""

    def __init__(self, engine: Engine, items: Items, metrics: Metrics, send: Send, *, session_id: str,
                 conversation_id: str, config: Callable[[], SessionConfig], expect: Callable[[float], None]) -> None:
        self._engine, self._items, self._metrics, self._send = engine, items, metrics, send
        self._session_id, self._conversation_id = session_id, conversation_id
        self._config, self._expect = config, expect
        self._loop, self._memory = asyncio.get_running_loop(), engine.conversation()
        self.answer: Answer | None = None  # the one being made
        self.sounding: Answer | None = None  # the last one that was heard, or is
        self._prepared: Prepared | None = None

    async def settled(self) -> None:
        """Until an answer that was stopped has ended, which takes a tick."""
        end = time.monotonic() + SETTLES_WITHIN
        while self.answer is not None and self.answer.reason is not None and time.monotonic() < end:
            await asyncio.sleep(0.001)

    def end(self) -> None:
        """The client is gone."""
        self.discard()
        if self.answer is not None:
            self.stop(self.answer, "client_cancelled")
        self._engine.end(self._memory)
        self._items.history.items.clear()

    def take_prepared(self) -> Prepared | None:
        """The question is over: the answer that was prepared for it, if one was and can still be heard."""
        prepared, self._prepared = self._prepared, None
        return None if prepared is None or prepared.job.forgotten else prepared

    def making(self, item_id: object) -> Answer | None:
        """The answer being made, if it will be this item of the conversation."""
        answer = self.answer
        return answer if answer is not None and answer.remembered and answer.item_id == item_id else None

    @property
    def audible(self) -> bool:
        """Whether an answer is being made, or heard by somebody who plays it as it comes."""
        return self.answer is not None or (self.sounding is not None
                                            and self.sounding.sounds_until > time.monotonic())

    def respond(self, options: Json, prepared: Prepared | None, spoke_until: float | None) -> None:
        """Begin an answer, or let the prepared one be heard. options: of `response.create`. spoke_until: when the
        question ended, if it was spoken."""
        config = overridden(self._config(), options)
        outside = options.get("conversation") == "none"
        answer = self._new_answer(config, options, spoke_until, outside)
        asked = self._outside(options, config) if outside or options.get("input") is not None else self._items
        items = asked if outside else self._items  # that the answer joins
        if not asked.questioned:
            answer.fail("There is nothing to answer yet.", "conversation_empty")
            self._metrics.replied("failed")
            return
        answer.ended_waiting = time.monotonic() if spoke_until is not None else None

        def tell(event: Event) -> None:
            self._tell(answer, event, items)

        if prepared is not None:
            answer.job, prepared.listener = prepared.job, tell
        else:
            try:
                answer.job = self._submit(asked, config, self.crossing(tell), held=False, kept=asked is self._items)
            except (BusyError, DrainingError) as error:
                answer.fail(str(error), "server_busy")
                self._metrics.replied("failed")
                return
        self.answer = answer
        answer.begin(items.last_id)
        if prepared is not None:
            prepared.job.release()

    def _new_answer(self, config: SessionConfig, options: Json, spoke_until: float | None, outside: bool) -> Answer:
        metadata = options.get("metadata")
        if metadata is not None and not isinstance(metadata, dict):
            raise ProtocolError("Invalid value for 'response.metadata': expected an object.", "invalid_value",
                                "response.metadata")
        return Answer(self._send, modalities=config.output_modalities, wire=config.output_format,
                      rate=self._engine.omni.sample_rate, voice=config.voice, max_tokens=config.max_output_tokens,
                      metadata=metadata, conversation_id=None if outside else self._conversation_id,
                      timings=bool(config.omnivox and config.omnivox.timings), spoke_until=spoke_until)

    def _outside(self, options: Json, config: SessionConfig) -> Items:
        """A conversation of its own for one response: the items of `input`, by themselves or by reference."""
        history = History(self._engine.omni, context=self._engine.context)
        items = Items(history)
        given = options.get("input")
        if given is None:
            history.items = list(self._items.history.items)
            return items
        if not isinstance(given, list):
            raise ProtocolError("Invalid value for 'response.input': expected a list of items.", "invalid_value",
                                "response.input")
        items.check_length("response.input", sum(map(letters, given)))
        for value in given:
            if isinstance(value, dict) and value.get("type") == "item_reference":
                entry = self._items[str(value.get("id"))]
                items.append(Entry(entry.json, entry.items))
            else:
                items.append(items.created(value, config.input_format))
        return items

    def _submit(self, items: Items, config: SessionConfig, emit: Callable[[Event], None], *, held: bool,
                kept: bool) -> Job:
        history, voicing = items.history, config.omnivox or Voicing()
        history.instructions = items.instructions(config.instructions)
        most = self._engine.settings.reply_tokens
        limit = most if config.max_output_tokens == "inf" else min(most, int(config.max_output_tokens))
        prompt = history.prompt(room=min(limit, history.context // 2))
        items.forget()
        settings = ReplySettings(voicing.chunk_units, voicing.lookahead, limit, config.output_modalities == ("audio",),
                                 SamplingSettings(voicing.temperature, voicing.top_p, seed=voicing.seed))
        return self._engine.reply(prompt, emit, settings, conversation=self._memory if kept else None, held=held)

    def crossing(self, tell: Callable[[Event], None]) -> Callable[[Event], None]:
        """From the engine's thread into the event loop."""
        return partial(cross, self._loop, tell)

    def prepare(self, samples: Tensor) -> None:
        """Answer what has been said so far, and hold the answer back. Where everybody is busy, nothing is prepared."""
        self.discard()
        try:
            item = self._items.history.speech(samples)
        except AudioError:
            return
        self._items.history.add(item)
        prepared: list[Prepared] = []

        def tell(event: Event) -> None:
            if isinstance(event, Ready):
                if prepared and self._prepared is prepared[0]:
                    self._expect(event.certainty)
            elif prepared and prepared[0].listener is not None:
                prepared[0].listener(event)

        try:
            job = self._submit(self._items, self._config(), self.crossing(tell), held=True, kept=True)
        except OmnivoxError:
            return
        finally:
            self._items.history.remove(item)
        prepared.append(Prepared(item, job))
        self._prepared = prepared[0]

    def discard(self) -> None:
        """Nobody will hear what was prepared."""
        if (prepared := self.take_prepared()) is not None:
            prepared.job.cancel()

    def _tell(self, answer: Answer, event: Event, items: Items) -> None:
        if answer.done:
            return
        if isinstance(event, Done | Failed):
            self._end(answer, event, items)
        elif answer.reason is None:
            answer.tell(event)
            if answer.sound:
                self.sounding = answer

    def _end(self, answer: Answer, event: Done | Failed, items: Items) -> None:
        previous = items.last_id
        entry = None
        if isinstance(event, Done):
            entry = items.answered({}, event.reply)
            if answer.truncate_at is None and event.reply.cancelled and answer.audio:
                answer.truncate_at = answer.heard_samples()
        shown = None
        if entry is not None and entry.items and answer.truncate_at is not None and answer.audio:
            shown = items.history.truncate(entry.items[0], answer.truncate_at)
        item, status = answer.end(event, shown)
        if answer.remembered:
            if entry is not None:
                entry.json, entry.sound = item, answer.sound if answer.audio else None
                items.append(entry)
            self._send({"type": "conversation.item.done", "previous_item_id": previous, "item": item})
        answer.close()
        if self.answer is answer:
            self.answer = None
        timings = event.reply.timings if isinstance(event, Done) else None
        spoke, first = answer.spoke_until, answer.first_sound
        self._metrics.replied(status, timings, first - spoke if spoke is not None and first is not None else None)
        log_event("response done", session=self._session_id, status=status, content={"text": answer.text})

    def interrupt(self) -> None:
        """Somebody speaks over the answer. What a listener cannot have heard yet is forgotten; the client may say
        better what was heard."""
        if self.answer is not None:
            self.stop(self.answer, "turn_detected")
        elif self.sounding is not None and self.audible:
            heard, self.sounding.sounds_until = self.sounding.heard_samples(), 0.0
            try:
                self._items.truncate(self.sounding.item_id, heard)
            except ProtocolError:  # the client deleted it
                self.sounding = None

    def stop(self, answer: Answer, reason: str) -> None:
        answer.reason = answer.reason or reason
        if answer.truncate_at is None and answer.audio:
            answer.truncate_at = answer.heard_samples()
        answer.sounds_until = min(answer.sounds_until, time.monotonic())
        if answer.job is not None:
            answer.job.cancel()


def overridden(config: SessionConfig, options: Json) -> SessionConfig:
    """The session's configuration with what one response has of its own."""
    changes: Json = {name: options[name] for name in ("output_modalities", "instructions", "omnivox", "tools")
                     if options.get(name) is not None}
    if isinstance(audio := options.get("audio"), dict):
        changes["audio"] = {"output": audio.get("output") or {}}
    if (most := options.get("max_output_tokens")) is not None:
        changes["max_output_tokens"] = max_tokens(most, "response.max_output_tokens")
    if (conversation := options.get("conversation")) not in (None, "auto", "none"):
        raise ProtocolError(f"Invalid value for 'response.conversation': found {conversation!r}; expected 'auto' or "
                            "'none'.", "invalid_value", "response.conversation")
    return config.updated(changes)
