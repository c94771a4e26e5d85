"""One client's Realtime session: its messages in, the protocol's messages out. All of it runs in the event loop.

    append ─► Hearing ─► Began ─► speech_started, an answer that sounds is interrupted
                         Paused ─► an answer is prepared, and held back
                         Resumed ─► and thrown away
                         Ended ─► speech_stopped, committed ─► the prepared answer is released
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from omnivox.errors import AudioError, OmnivoxError
from omnivox.rates import SAMPLE_RATE
from omnivox.runtime.engine import Busy, Draining, Engine
from omnivox.runtime.events import Done, Failed, Ready
from omnivox.runtime.history import History, Item
from omnivox.runtime.job import Event, Job
from omnivox.runtime.respond import ReplySettings
from omnivox.runtime.sampling import SamplingSettings
from omnivox.runtime.turns import Began, Ended, Paused, Resumed, Turn
from omnivox.serve.answer import Answer
from omnivox.serve.audio import milliseconds
from omnivox.serve.hearing import Hearing
from omnivox.serve.items import ROOT, Entry, Items, decode_base64
from omnivox.serve.logs import event as log_event
from omnivox.serve.metrics import Metrics
from omnivox.serve.protocol import Json, ProtocolError, SessionConfig, Voicing, error_event, max_tokens, new_id
from omnivox.serve.settings import ServeSettings

Send = Callable[[Json], None]


@dataclass
class Prepared:
    """An answer to a question that may not have ended: the question as the model knows it, and the job."""

    item: Item
    job: Job
    listener: Callable[[Event], None] | None = None


class Session:
    """Give it every message of a client, in order; it answers through `send`."""

    def __init__(self, engine: Engine, settings: ServeSettings, metrics: Metrics, send: Send,
                 pool: ThreadPoolExecutor) -> None:
        self.id, self.conversation_id = new_id("sess"), new_id("conv")
        self._engine, self._metrics, self._loop = engine, metrics, asyncio.get_running_loop()
        self._out = send
        self.config = SessionConfig(settings.model_name)
        self._history = History(engine.omni, context=engine.context)
        self._items = Items(self._history)
        self._memory = engine.conversation()
        self._longest = engine.omni.model.max_samples / SAMPLE_RATE
        self._hearing = Hearing(pool, settings.max_buffered_seconds)
        self._configure()
        self._answer: Answer | None = None  # the one being made
        self._sounding: Answer | None = None  # the last one that was heard, or is
        self._prepared: Prepared | None = None
        self._turn_id: str | None = None  # the item that what is being said will be

    # -- messages -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Say hello."""
        self._send({"type": "session.created", "session": self._session_json()})

    async def handle(self, raw: str | bytes) -> None:
        """One message of the client; what is wrong with it is answered, and nothing else happens."""
        event_id = None
        try:
            message = _parse(raw)
            event_id = message.get("event_id")
            if event_id is not None and not isinstance(event_id, str):
                raise ProtocolError("Invalid value for 'event_id': expected a string.", "invalid_value", "event_id")
            await self._dispatch(message)
        except ProtocolError as error:
            self._error(error, event_id)
        except (Busy, Draining) as error:
            self._error(ProtocolError(str(error), "server_busy", kind="server_error"), event_id)
        except OmnivoxError as error:
            self._error(ProtocolError(str(error), "invalid_value"), event_id)
        except Exception as error:
            log_event("message failed", session=self.id, exc_info=error)
            self._error(ProtocolError("The server had an error while it processed your message.", "internal_error",
                                      kind="server_error"), event_id)

    @property
    def busy(self) -> bool:
        """Whether an answer is being made."""
        return self._answer is not None

    def end(self) -> None:
        """The client is gone."""
        self._discard()
        if self._answer is not None and self._answer.job is not None:
            self._answer.job.cancel()
        self._out = lambda _: None

    async def _dispatch(self, message: Json) -> None:
        kind = message.get("type")
        if kind == "input_audio_buffer.append":
            await self._append(message)
            return
        handlers: Mapping[Any, Callable[[Json], None]] = {
            "session.update": self._update, "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": self._clear, "conversation.item.create": self._create_item,
            "conversation.item.delete": self._delete_item, "conversation.item.retrieve": self._retrieve_item,
            "conversation.item.truncate": self._truncate_item, "response.create": self._create_response,
            "response.cancel": self._cancel_response}
        handler = handlers.get(kind) if isinstance(kind, str) else None
        if handler is None:
            raise ProtocolError(f"Invalid value for 'type': found {str(kind)[:80]!r}; expected one of "
                                f"input_audio_buffer.append, {', '.join(handlers)}.", "invalid_value", "type")
        handler(message)

    def _send(self, message: Json) -> None:
        self._out({"type": message["type"], "event_id": new_id("event")} | message)

    def _error(self, error: ProtocolError, event_id: str | None) -> None:
        self._metrics.failed(error.code or error.kind)
        self._send(error_event(error, event_id))

    # -- the session --------------------------------------------------------------------------------------------------

    def _session_json(self) -> Json:
        return {"id": self.id, **self.config.to_json()}

    def _update(self, message: Json) -> None:
        values = message.get("session")
        if not isinstance(values, dict):
            raise ProtocolError("Missing required parameter: 'session'.", "missing_required_parameter", "session")
        self.config = self.config.updated(values)
        self._discard()
        self._configure()
        self._send({"type": "session.updated", "session": self._session_json()})

    def _configure(self) -> None:
        self._hearing.configure(self.config.input_format, self.config.turn_detection, self._longest)

    # -- what is heard ------------------------------------------------------------------------------------------------

    async def _append(self, message: Json) -> None:
        data = decode_base64(message.get("audio"), "audio")
        for turn in await self._hearing.append(data, self._audible):
            self._hear(turn)

    def _hear(self, turn: Turn) -> None:
        detection = self.config.turn_detection or {}
        if isinstance(turn, Began):
            self._turn_id = new_id("item")
            self._send({"type": "input_audio_buffer.speech_started", "item_id": self._turn_id,
                        "audio_start_ms": milliseconds(max(0, turn.at), SAMPLE_RATE)})
            if detection.get("interrupt_response"):
                self._interrupt()
        elif isinstance(turn, Paused):
            if detection.get("create_response") and self._answer is None:
                self._prepare(turn.samples)
        elif isinstance(turn, Resumed):
            self._discard()
        elif isinstance(turn, Ended):
            self._turn_over(turn, detection)

    def _turn_over(self, turn: Ended, detection: Json) -> None:
        turn_id, self._turn_id = self._turn_id or new_id("item"), None
        self._send({"type": "input_audio_buffer.speech_stopped", "item_id": turn_id,
                    "audio_end_ms": milliseconds(turn.at - turn.silence, SAMPLE_RATE)})
        prepared, self._prepared = self._prepared, None
        item = prepared.item if prepared else self._history.speech(turn.samples)
        self._committed(self._items.heard(item, turn_id))
        if not detection.get("create_response") or self._answer is not None:
            if prepared:
                prepared.job.cancel()
            return
        spoke_until = time.monotonic() - turn.silence / SAMPLE_RATE
        self._respond({}, prepared, spoke_until)

    def _commit(self, message: Json) -> None:
        entry = self._items.spoken(self._hearing.take(), self._turn_id)
        self._turn_id = None
        self._discard()
        self._committed(entry)

    def _clear(self, message: Json) -> None:
        self._hearing.clear()
        self._discard()
        self._turn_id = None
        self._send({"type": "input_audio_buffer.cleared"})

    def _committed(self, entry: Entry) -> None:
        self._send({"type": "input_audio_buffer.committed", "item_id": entry.json["id"],
                    "previous_item_id": self._items.last_id})
        self._show(entry, self._items.append(entry))
        if self.config.transcription is not None:
            self._transcribe(entry)

    def _show(self, entry: Entry, previous: str | None) -> None:
        for kind in ("added", "done"):
            self._send({"type": f"conversation.item.{kind}", "previous_item_id": previous, "item": entry.json})

    def _transcribe(self, entry: Entry) -> None:
        """Behind the answer in the engine's queue, where the model can write down what it heard."""
        prompt = self._history.transcription(entry.items[0])
        if prompt is None:
            return
        place = {"item_id": entry.json["id"], "content_index": 0}

        def tell(event: Event) -> None:
            if isinstance(event, Done):
                entry.json["content"][0]["transcript"] = event.reply.text
                kind = "conversation.item.input_audio_transcription"
                self._send({"type": f"{kind}.delta", **place, "delta": event.reply.text})
                speech = entry.items[0].content
                seconds = len(speech.samples) / SAMPLE_RATE if not isinstance(speech, tuple) else 0.0
                self._send({"type": f"{kind}.completed", **place, "transcript": event.reply.text,
                            "usage": {"type": "duration", "seconds": round(seconds, 3)}})
            elif isinstance(event, Failed):
                self._transcription_failed(place, "The model failed to write down what it heard.")

        self._loop.call_soon(self._submit_transcription, prompt, tell, place)

    def _submit_transcription(self, prompt: Any, tell: Callable[[Event], None], place: Json) -> None:
        try:
            self._engine.reply(prompt, self._crossing(tell), ReplySettings(speak=False))
        except OmnivoxError as error:
            self._transcription_failed(place, str(error))

    def _transcription_failed(self, place: Json, message: str) -> None:
        self._send({"type": "conversation.item.input_audio_transcription.failed", **place,
                    "error": {"type": "server_error", "code": "transcription_failed", "message": message}})

    # -- items --------------------------------------------------------------------------------------------------------

    def _create_item(self, message: Json) -> None:
        self._discard()
        entry = self._items.created(message.get("item"), self.config.input_format)
        previous = message.get("previous_item_id", self._items.last_id)
        if previous is None:
            previous = self._items.last_id
        self._show(entry, self._items.insert(entry, None if previous == ROOT else previous))

    def _delete_item(self, message: Json) -> None:
        self._discard()
        item_id = message.get("item_id")
        if self._answer is not None and self._answer.remembered and self._answer.item_id == item_id:
            self._answer.deleted = True
            self._stop(self._answer, "client_cancelled")
        else:
            self._items.delete(str(item_id))
        self._send({"type": "conversation.item.deleted", "item_id": item_id})

    def _retrieve_item(self, message: Json) -> None:
        item_id = str(message.get("item_id"))
        if self._answer is not None and self._answer.remembered and self._answer.item_id == item_id:
            self._send({"type": "conversation.item.retrieved", "item": self._answer.item()})
            return
        try:
            entry = self._items[item_id]
        except ProtocolError as error:
            raise ProtocolError(error.message, "item_retrieve_invalid_item_id", "item_id") from error
        self._send({"type": "conversation.item.retrieved", "item": entry.json})

    def _truncate_item(self, message: Json) -> None:
        item_id, end, index = message.get("item_id"), message.get("audio_end_ms"), message.get("content_index", 0)
        if isinstance(end, bool) or not isinstance(end, int) or end < 0:
            raise ProtocolError(f"Invalid value for 'audio_end_ms': found {end!r}; expected milliseconds, 0 or more.",
                                "invalid_value", "audio_end_ms")
        if index != 0 or isinstance(index, bool):
            raise ProtocolError(f"Invalid value for 'content_index': found {index!r}; expected 0.", "invalid_value",
                                "content_index")
        answer = next((a for a in (self._answer, self._sounding) if a is not None and a.item_id == item_id), None)
        rate = self._engine.omni.sample_rate
        samples = end * rate // 1000
        if answer is not None and samples > answer.sound + rate // 100:
            raise ProtocolError(f"Audio content of {milliseconds(answer.sound, rate)}ms is already shorter than {end}ms",
                                "invalid_value", "audio_end_ms")
        if answer is not None and not answer.done:
            answer.truncate_at = samples
            self._stop(answer, "client_cancelled")
        else:
            self._items.truncate(str(item_id), samples)
            if answer is not None:
                answer.sounds_until = 0.0
        self._send({"type": "conversation.item.truncated", "item_id": item_id, "content_index": 0,
                    "audio_end_ms": end})

    # -- responses ----------------------------------------------------------------------------------------------------

    @property
    def _audible(self) -> bool:
        """Whether an answer is being made, or heard by somebody who plays it as it comes."""
        return self._answer is not None or (self._sounding is not None
                                            and self._sounding.sounds_until > time.monotonic())

    def _create_response(self, message: Json) -> None:
        options = message.get("response") or {}
        if not isinstance(options, dict):
            raise ProtocolError("Invalid value for 'response': expected an object.", "invalid_value", "response")
        if self._answer is not None:
            raise ProtocolError("Conversation already has an active response in progress: "
                                f"{self._answer.id}. Wait until the response is finished before creating a new one.",
                                "conversation_already_has_active_response")
        self._discard()
        self._respond(options, None, None)

    def _respond(self, options: Json, prepared: Prepared | None, spoke_until: float | None) -> None:
        config = _overridden(self.config, options)
        outside = options.get("conversation") == "none"
        answer = self._new_answer(config, options, spoke_until, outside)
        items = self._outside(options, config) if outside or options.get("input") is not None else self._items
        if not items.questioned:
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
                answer.job = self._submit(items, config, self._crossing(tell), held=False, kept=items is self._items)
            except (Busy, Draining) as error:
                answer.fail(str(error), "server_busy")
                self._metrics.replied("failed")
                return
        self._answer = answer
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
                      metadata=metadata, conversation_id=None if outside else self.conversation_id,
                      timings=bool(config.omnivox and config.omnivox.timings), spoke_until=spoke_until)

    def _outside(self, options: Json, config: SessionConfig) -> Items:
        """A conversation of its own for one response: the items of `input`, by themselves or by reference."""
        history = History(self._engine.omni, context=self._engine.context)
        items = Items(history)
        given = options.get("input")
        if given is None:
            history.items = list(self._history.items)
            return items
        if not isinstance(given, list):
            raise ProtocolError("Invalid value for 'response.input': expected a list of items.", "invalid_value",
                                "response.input")
        for value in given:
            if isinstance(value, dict) and value.get("type") == "item_reference":
                items.append(self._items[str(value.get("id"))])
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
        settings = ReplySettings(voicing.chunk_units, voicing.lookahead, limit, config.output_modalities == ("audio",),
                                 SamplingSettings(voicing.temperature, voicing.top_p, seed=voicing.seed))
        return self._engine.reply(prompt, emit, settings, conversation=self._memory if kept else None, held=held)

    def _crossing(self, tell: Callable[[Event], None]) -> Callable[[Event], None]:
        """From the engine's thread into the event loop."""
        def emit(event: Event) -> None:
            self._loop.call_soon_threadsafe(tell, event)

        return emit

    def _prepare(self, samples: Tensor) -> None:
        """Answer what has been said so far, and hold the answer back. Where everybody is busy, nothing is prepared."""
        self._discard()
        try:
            item = self._history.speech(samples)
        except AudioError:
            return
        self._history.add(item)
        prepared: list[Prepared] = []

        def tell(event: Event) -> None:
            if isinstance(event, Ready):
                if prepared and self._prepared is prepared[0]:
                    self._hearing.expect(event.certainty)
            elif prepared and prepared[0].listener is not None:
                prepared[0].listener(event)

        try:
            job = self._submit(self._items, self.config, self._crossing(tell), held=True, kept=True)
        except OmnivoxError:
            return
        finally:
            self._history.remove(item)
        prepared.append(Prepared(item, job))
        self._prepared = prepared[0]

    def _discard(self) -> None:
        """Nobody will hear what was prepared."""
        if self._prepared is not None:
            self._prepared.job.cancel()
            self._prepared = None

    def _tell(self, answer: Answer, event: Event, items: Items) -> None:
        if answer.done:
            return
        if isinstance(event, Done | Failed):
            self._end(answer, event, items)
        elif answer.reason is None:
            answer.tell(event)
            if answer.sound:
                self._sounding = answer

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
                entry.json = item
                items.append(entry)
                items.forget()
            self._send({"type": "conversation.item.done", "previous_item_id": previous, "item": item})
        answer.close()
        if self._answer is answer:
            self._answer = None
        timings = event.reply.timings if isinstance(event, Done) else None
        spoke, first = answer.spoke_until, answer.first_sound
        self._metrics.replied(status, timings, first - spoke if spoke is not None and first is not None else None)
        log_event("response done", session=self.id, status=status, content={"text": answer.text})

    def _cancel_response(self, message: Json) -> None:
        wanted = message.get("response_id")
        if self._answer is None or (wanted is not None and wanted != self._answer.id):
            raise ProtocolError("Cancellation failed: no active response found", "response_cancel_not_active")
        self._stop(self._answer, "client_cancelled")

    def _interrupt(self) -> None:
        """Somebody speaks over the answer. What a listener cannot have heard yet is forgotten; the client may say
        better what was heard."""
        if self._answer is not None:
            self._stop(self._answer, "turn_detected")
        elif self._sounding is not None and self._audible:
            heard, self._sounding.sounds_until = self._sounding.heard_samples(), 0.0
            try:
                self._items.truncate(self._sounding.item_id, heard)
            except ProtocolError:  # the client deleted it
                self._sounding = None

    def _stop(self, answer: Answer, reason: str) -> None:
        answer.reason = answer.reason or reason
        answer.truncate_at = answer.heard_samples() if answer.truncate_at is None and answer.audio else answer.truncate_at
        answer.sounds_until = min(answer.sounds_until, time.monotonic())
        if answer.job is not None:
            answer.job.cancel()


def _parse(raw: str | bytes) -> Json:
    if isinstance(raw, bytes):
        raise ProtocolError("Binary messages are not part of the protocol; expected JSON text.", "invalid_json")
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"The message is no JSON: {error}.", "invalid_json") from error
    if not isinstance(message, dict):
        raise ProtocolError(f"Found a {type(message).__name__}; expected a JSON object.", "invalid_json")
    return message


def _overridden(config: SessionConfig, options: Json) -> SessionConfig:
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
