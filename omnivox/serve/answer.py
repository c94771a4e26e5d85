"""One response of a session, from `response.created` to `response.done`, whatever happens in between."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any

from omnivox.runtime.events import Audio, Done, Failed, Reply, Text, Timings
from omnivox.runtime.job import Event, Job
from omnivox.runtime.wire import AudioFormat, WireEncoder
from omnivox.serve.items import answer_json
from omnivox.serve.protocol import Json, new_id

_HIGH_WATER = 48_000  # bytes of sound in one message, at most


class Answer:
    """Turns the events of a job into messages. All of it happens in the event loop.

    spoke_until: when the speaker's last sample came (loop time), for the timings; None if nobody spoke.
    """

    def __init__(self, send: Callable[[Json], None], *, modalities: tuple[str, ...], wire: AudioFormat, rate: int,
                 voice: str, max_tokens: int | str, metadata: Json | None, conversation_id: str | None,
                 timings: bool, spoke_until: float | None = None) -> None:
        self.id, self.item_id = new_id("resp"), new_id("item")
        self._send, self._modalities, self._wire, self._rate = send, modalities, wire, rate
        self._voice, self._max_tokens, self._metadata = voice, max_tokens, metadata
        self._conversation_id = conversation_id
        self._timings, self.spoke_until = timings, spoke_until
        self._encoder = WireEncoder(wire, rate)
        self.job: Job | None = None
        self.reason: str | None = None  # why it was cancelled
        self.text = ""
        self.sound = 0  # samples of the model that were sent
        self.sounds_until = 0.0  # when a listener who plays it as it comes has heard all of it
        self.first_sound: float | None = None
        self.truncate_at: int | None = None  # samples, asked for before it ended
        self.ended_waiting: float | None = None  # when the turn was over
        self.deleted = False  # its item was, before it ended
        self.done = False

    @property
    def audio(self) -> bool:
        return "audio" in self._modalities

    # -- messages -----------------------------------------------------------------------------------------------------

    def begin(self, previous_item_id: str | None) -> None:
        """Announce it, and the item that it will be."""
        self._send({"type": "response.created", "response": self._json("in_progress")})
        item = answer_json(self.item_id, "in_progress", [])
        self._send({"type": "response.output_item.added", "response_id": self.id, "output_index": 0, "item": item})
        if self._conversation_id is not None:
            self._send({"type": "conversation.item.added", "previous_item_id": previous_item_id, "item": item})
        self._send({"type": "response.content_part.added", **self._place(), "part": self._part("")})

    def tell(self, event: Event) -> None:
        """Text or sound."""
        if isinstance(event, Text):
            self.text += event.delta
            kind = "response.output_audio_transcript.delta" if self.audio else "response.output_text.delta"
            self._send({"type": kind, **self._place(), "delta": event.delta})
        elif isinstance(event, Audio):
            now = time.monotonic()
            self.first_sound = self.first_sound or now
            self.sound += len(event.samples)
            self.sounds_until = max(self.sounds_until, now) + len(event.samples) / self._rate
            self._sound(self._encoder.push(event.samples.numpy()))

    def heard_samples(self) -> int:
        """How much of it a listener who plays it as it comes has heard by now."""
        return max(0, self.sound - round(max(0.0, self.sounds_until - time.monotonic()) * self._rate))

    def end(self, event: Done | Failed, shown: str | None = None) -> tuple[Json, str]:
        """The last messages; gives the item as it stays, and the response's status. shown: what was heard of the
        text."""
        status, details = self._status(event)
        if isinstance(event, Done) and self.audio:
            self._sound(self._encoder.flush())
        text = self.text if shown is None else shown
        part, place = self._part(self.text), self._place()
        if self.audio:
            self._send({"type": "response.output_audio.done", **place})
            self._send({"type": "response.output_audio_transcript.done", **place, "transcript": self.text})
        else:
            self._send({"type": "response.output_text.done", **place, "text": self.text})
        self._send({"type": "response.content_part.done", **place, "part": part})
        item = self.item("completed" if status == "completed" else "incomplete", text)
        self._send({"type": "response.output_item.done", "response_id": self.id, "output_index": 0, "item": item})
        return item, self._finish(event, item, status, details)

    def _finish(self, event: Done | Failed, item: Json, status: str, details: Json | None) -> str:
        self.done = True
        reply = event.reply if isinstance(event, Done) else None
        response = self._json(status, details, [item], self._usage(reply))
        if self._timings:
            response["omnivox"] = self._milestones(reply.timings if reply else Timings())
        self._closing = {"type": "response.done", "response": response}
        return status

    def item(self, status: str = "in_progress", text: str | None = None) -> Json:
        """Its item, as far as it has come."""
        text = self.text if text is None else text
        content = {"type": "output_audio", "transcript": text} if self.audio else {"type": "output_text", "text": text}
        return answer_json(self.item_id, status, [content])

    @property
    def remembered(self) -> bool:
        """Whether its item is one of the conversation's."""
        return self._conversation_id is not None and not self.deleted

    def close(self) -> None:
        """`response.done`, after the item's own last message."""
        self._send(self._closing)

    def fail(self, message: str, code: str | None) -> None:
        """It could not even begin."""
        self._send({"type": "response.created", "response": self._json("in_progress")})
        details = {"type": "failed", "error": {"type": "server_error", "code": code, "message": message}}
        self._send({"type": "response.done", "response": self._json("failed", details)})
        self.done = True

    def _sound(self, data: bytes) -> None:
        for start in range(0, len(data), _HIGH_WATER):
            delta = base64.b64encode(data[start:start + _HIGH_WATER]).decode()
            self._send({"type": "response.output_audio.delta", **self._place(), "delta": delta})

    # -- parts of messages --------------------------------------------------------------------------------------------

    def _place(self) -> Json:
        return {"response_id": self.id, "item_id": self.item_id, "output_index": 0, "content_index": 0}

    def _part(self, text: str) -> Json:
        return {"type": "audio", "transcript": text} if self.audio else {"type": "text", "text": text}

    def _json(self, status: str, details: Json | None = None, output: list[Json] | None = None,
              usage: Json | None = None) -> Json:
        return {"id": self.id, "object": "realtime.response", "status": status, "status_details": details,
                "output": output or [], "conversation_id": self._conversation_id,
                "output_modalities": list(self._modalities), "max_output_tokens": self._max_tokens,
                "audio": {"output": {"format": self._wire.to_json(), "voice": self._voice}},
                "usage": usage, "metadata": self._metadata}

    def _status(self, event: Done | Failed) -> tuple[str, Json | None]:
        if isinstance(event, Failed):
            error = {"type": "server_error", "code": "model_error", "message": "The model failed to answer."}
            return "failed", {"type": "failed", "error": error}
        if event.reply.cancelled:
            return "cancelled", {"type": "cancelled", "reason": self.reason or "client_cancelled"}
        if event.reply.cut:
            return "incomplete", {"type": "incomplete", "reason": "max_output_tokens"}
        return "completed", None

    def _usage(self, reply: Reply | None) -> Json:
        asked, said = (0, 0) if self.job is None or reply is None else (self.job.start, len(reply.token_ids))
        text = 0 if self.audio else said
        return {"total_tokens": asked + said, "input_tokens": asked, "output_tokens": said,
                "input_token_details": {"text_tokens": 0, "audio_tokens": asked, "image_tokens": 0, "cached_tokens": 0,
                                        "cached_tokens_details": {"text_tokens": 0, "audio_tokens": 0,
                                                                  "image_tokens": 0}},
                "output_token_details": {"text_tokens": text, "audio_tokens": said - text}}

    def _milestones(self, timings: Timings) -> dict[str, Any]:
        """Milliseconds since the speaker's last sample (since the request, where nobody spoke)."""
        job, names = self.job, ("pause_ms", "encode_ms", "prefill_ms", "first_token_ms", "first_audio_ms")
        if job is None:
            return dict.fromkeys(names)
        asked = job.began_at if self.spoke_until is None else self.spoke_until
        began = 1000 * (job.began_at - asked)
        encoded = began + 1000 * (timings.mel + timings.encode)
        pause = None if self.ended_waiting is None else 1000 * (self.ended_waiting - asked)
        first = None if self.first_sound is None else 1000 * (self.first_sound - asked)
        token = began + 1000 * timings.first_token if timings.first_token else None
        values = (pause, encoded, encoded + 1000 * timings.prefill, token, first)
        return {name: None if value is None else round(value, 1) for name, value in zip(names, values, strict=True)}


