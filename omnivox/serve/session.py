"""One client's Realtime session: its messages in, the protocol's messages out. All of it runs in the event loop.

    append ─► Hearing ─► Began ─► speech_started, an answer that sounds is interrupted
                         Paused ─► an answer is prepared, and held back
                         Resumed ─► and thrown away
                         Ended ─► speech_stopped, committed ─► the prepared answer is released
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from omnivox.errors import OmnivoxError
from omnivox.rates import SAMPLE_RATE
from omnivox.runtime.engine import BusyError, DrainingError, Engine
from omnivox.runtime.history import LETTERS, History
from omnivox.runtime.turns import Began, Detector, Ended, Paused, Resumed, Silero, Turn
from omnivox.runtime.wire import milliseconds
from omnivox.serve.hearing import Hearing
from omnivox.serve.items import ROOT, Entry, Items, decode_base64
from omnivox.serve.logs import event as log_event
from omnivox.serve.metrics import Metrics
from omnivox.serve.protocol import Json, ProtocolError, SessionConfig, error_event, new_id, read_json
from omnivox.serve.responses import Responses, Send
from omnivox.serve.settings import ServeSettings
from omnivox.serve.transcripts import Transcripts


class Session:
    """Give it every message of a client, in order; it answers through `send`."""

    def __init__(self, engine: Engine, settings: ServeSettings, metrics: Metrics, send: Send,
                 pool: ThreadPoolExecutor, detector: Callable[[], Detector] = Silero) -> None:
        self.id, self.conversation_id = new_id("sess"), new_id("conv")
        self._engine, self._metrics, self._loop = engine, metrics, asyncio.get_running_loop()
        self._out = send
        self.config = SessionConfig(settings.model_name, letters=LETTERS * engine.context)
        self._history = History(engine.omni, context=engine.context)
        self._items = Items(self._history)
        self._longest = engine.omni.model.max_samples / SAMPLE_RATE
        self._hearing = Hearing(pool, settings.max_buffered_seconds, detector)
        self._configure()
        self._responses = Responses(engine, self._items, metrics, self._send, session_id=self.id,
                                    conversation_id=self.conversation_id, config=lambda: self.config,
                                    expect=self._hearing.expect)
        self._transcripts = Transcripts(engine, self._send)
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
        except (BusyError, DrainingError) as error:
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
        return self._responses.answer is not None

    def end(self) -> None:
        """The client is gone."""
        self._transcripts.end()
        self._responses.end()
        del self._responses  # or the two would keep each other, and all that was heard, until Python looks for cycles
        self._out = lambda _: None

    async def _dispatch(self, message: Json) -> None:
        kind = message.get("type")
        if kind == "input_audio_buffer.append":
            await self._append(message)
            return
        if kind == "response.create":  # perhaps at once behind a response.cancel
            await self._responses.settled()
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
        self._responses.discard()
        self._configure()
        self._send({"type": "session.updated", "session": self._session_json()})

    def _configure(self) -> None:
        self._hearing.configure(self.config.input_format, self.config.turn_detection, self._longest)

    # -- what is heard ------------------------------------------------------------------------------------------------

    async def _append(self, message: Json) -> None:
        data = decode_base64(message.get("audio"), "audio")
        for turn in await self._hearing.append(data, self._responses.audible):
            if isinstance(turn, Ended):
                await self._responses.settled()
                self._turn_over(turn, self.config.turn_detection or {})
            else:
                self._hear(turn, self.config.turn_detection or {})

    def _hear(self, turn: Turn, detection: Json) -> None:
        if isinstance(turn, Began):
            self._turn_id = new_id("item")
            self._send({"type": "input_audio_buffer.speech_started", "item_id": self._turn_id,
                        "audio_start_ms": milliseconds(max(0, turn.at), SAMPLE_RATE)})
            if detection.get("interrupt_response"):
                self._responses.interrupt()
        elif isinstance(turn, Paused):
            if detection.get("create_response") and self._responses.answer is None:
                self._responses.prepare(turn.samples)
        elif isinstance(turn, Resumed):
            self._responses.discard()

    def _turn_over(self, turn: Ended, detection: Json) -> None:
        turn_id, self._turn_id = self._turn_id or new_id("item"), None
        self._send({"type": "input_audio_buffer.speech_stopped", "item_id": turn_id,
                    "audio_end_ms": milliseconds(turn.at - turn.silence, SAMPLE_RATE)})
        prepared = self._responses.take_prepared()
        item = prepared.item if prepared else self._history.speech(turn.samples)
        self._committed(self._items.heard(item, turn_id))
        if not detection.get("create_response") or self._responses.answer is not None:
            if prepared:
                prepared.job.cancel()
            return
        spoke_until = time.monotonic() - turn.silence / SAMPLE_RATE
        self._responses.respond({}, prepared, spoke_until)

    def _commit(self, message: Json) -> None:
        entry = self._items.spoken(self._hearing.take(), self._turn_id)
        self._turn_id = None
        self._responses.discard()
        self._committed(entry)

    def _clear(self, message: Json) -> None:
        self._hearing.clear()
        self._responses.discard()
        self._turn_id = None
        self._send({"type": "input_audio_buffer.cleared"})

    def _committed(self, entry: Entry) -> None:
        self._send({"type": "input_audio_buffer.committed", "item_id": entry.json["id"],
                    "previous_item_id": self._items.last_id})
        self._show(entry, self._items.append(entry))
        if self.config.transcription is not None:
            self._transcripts.add(entry, self._history.transcription(entry.items[0]))

    def _show(self, entry: Entry, previous: str | None) -> None:
        for kind in ("added", "done"):
            self._send({"type": f"conversation.item.{kind}", "previous_item_id": previous, "item": entry.json})

    # -- items --------------------------------------------------------------------------------------------------------

    def _create_item(self, message: Json) -> None:
        self._responses.discard()
        entry = self._items.created(message.get("item"), self.config.input_format)
        previous = message.get("previous_item_id", self._items.last_id)
        if previous is None:
            previous = self._items.last_id
        self._show(entry, self._items.insert(entry, None if previous == ROOT else previous))

    def _delete_item(self, message: Json) -> None:
        self._responses.discard()
        item_id = message.get("item_id")
        if (answer := self._responses.making(item_id)) is not None:
            answer.deleted = True
            self._responses.stop(answer, "client_cancelled")
        else:
            self._items.delete(str(item_id))
        self._send({"type": "conversation.item.deleted", "item_id": item_id})

    def _retrieve_item(self, message: Json) -> None:
        item_id = str(message.get("item_id"))
        if (answer := self._responses.making(item_id)) is not None:
            self._send({"type": "conversation.item.retrieved", "item": answer.item()})
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
        known = (self._responses.answer, self._responses.sounding)
        answer = next((one for one in known if one is not None and one.item_id == item_id), None)
        samples = end * self._engine.omni.sample_rate // 1000
        if answer is not None and not answer.done:
            self._items.check_cut(answer.sound if answer.audio else None, samples)
            answer.truncate_at = samples
            self._responses.stop(answer, "client_cancelled")
        else:
            self._items.truncate(str(item_id), samples)
            if answer is not None:
                answer.sounds_until = 0.0
        self._send({"type": "conversation.item.truncated", "item_id": item_id, "content_index": 0,
                    "audio_end_ms": end})

    # -- responses ----------------------------------------------------------------------------------------------------

    def _create_response(self, message: Json) -> None:
        options = message.get("response") or {}
        if not isinstance(options, dict):
            raise ProtocolError("Invalid value for 'response': expected an object.", "invalid_value", "response")
        if (answer := self._responses.answer) is not None:
            raise ProtocolError(f"Conversation already has an active response in progress: {answer.id}. Wait until the "
                                "response is finished before creating a new one.",
                                "conversation_already_has_active_response")
        self._responses.discard()
        self._responses.respond(options, None, None)

    def _cancel_response(self, message: Json) -> None:
        wanted = message.get("response_id")
        if self._responses.answer is None or (wanted is not None and wanted != self._responses.answer.id):
            raise ProtocolError("Cancellation failed: no active response found", "response_cancel_not_active")
        self._responses.stop(self._responses.answer, "client_cancelled")


def _parse(raw: str | bytes) -> Json:
    if isinstance(raw, bytes):
        raise ProtocolError("Binary messages are not part of the protocol; expected JSON text.", "invalid_json")
    try:
        message = read_json(raw)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"The message is no JSON: {error}.", "invalid_json") from error
    if not isinstance(message, dict):
        raise ProtocolError(f"Found a {type(message).__name__}; expected a JSON object.", "invalid_json")
    return message
