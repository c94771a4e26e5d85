"""Talking through a microphone and a speaker with a Realtime server, which decides about turns.

The microphone is streamed from one thread while this one plays what comes. On open loudspeakers the server is sent
silence while an answer plays, or the model would answer itself. With headphones it hears everything: speaking over
the answer stops it at once, and the server is told how much of it was heard.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from omnivox.errors import OmnivoxError
from omnivox.runtime.answer import Answer
from omnivox.runtime.chat import AudioDevice
from omnivox.runtime.client import Client, raise_error, response_of
from omnivox.runtime.events import Audio, Done, Text

_PATIENCE = 30.0  # seconds that the server may be silent, once the microphone has ended


class Device(AudioDevice, Protocol):
    """A microphone, and a speaker that can be silenced."""

    def stop(self) -> float:
        """Drop what is queued for the speaker; returns how many seconds of it nobody will hear."""


@dataclass(frozen=True)
class Said:
    """What the server understood of a question, where it tells."""

    text: str


@dataclass(frozen=True)
class Interrupted:
    """Somebody spoke over the answer, of which this much was heard."""

    milliseconds: int


def talk(url: str, device: Device, *, api_key: str | None = None, model: str = "nano", silence_ms: float = 500.0,
         max_new_tokens: int | None = None, headphones: bool = False, **ours: Any
         ) -> Iterator[Said | Text | Audio | Done | Interrupted]:
    """`converse` with the server at `url`; a pause of `silence_ms` ends a turn.

    ours: settings that only an omnivox server has, chunk_units, lookahead, temperature, top_p and seed; none is sent
    unless it is given. Raises ConfigError, OmnivoxError.
    """
    session: dict[str, Any] = {} if max_new_tokens is None else {"max_output_tokens": max_new_tokens}
    if ours:
        session["omnivox"] = ours
    turns = {"type": "server_vad", "silence_duration_ms": round(silence_ms)}
    with Client(url, api_key=api_key, model=model, voice_activity=turns, session=session) as client:
        yield from converse(client, device, headphones=headphones)


def converse(client: Client, device: Device, *, headphones: bool = False
             ) -> Iterator[Said | Text | Audio | Done | Interrupted]:
    """Talk until the microphone ends; `client` was opened with voice_activity, at the device's rate.

    headphones: the microphone does not hear the speaker, so it stays open while an answer plays.
    Raises OmnivoxError where the server closes the connection or answers with an error.
    """
    conversation = _Conversation(client, device, headphones)
    microphone = threading.Thread(target=conversation.listen, name="microphone", daemon=True)
    microphone.start()
    while (event := client.receive(conversation.patience)) is not None:
        yield from conversation.take(event)
        if conversation.over:
            break
    microphone.join()


class _Conversation:
    """What both threads know of a conversation. Only `listen` runs in the microphone's."""

    def __init__(self, client: Client, device: Device, headphones: bool) -> None:
        self._client, self._device, self._headphones = client, device, headphones
        self._playing = threading.Event()  # an answer may be heard
        self._answer: Answer | None = None  # the one under way
        self._last: Answer | None = None  # the one that is heard
        self._silenced: str | None = None  # a response that was spoken over
        self._harmless = set[str]()  # ids of events whose refusal changes nothing
        self._expected = False  # a question has ended, and its answer has not begun
        self._ended = False  # the microphone has

    @property
    def over(self) -> bool:
        """Whether nobody speaks any more."""
        return self._ended and not self._expected and self._answer is None

    @property
    def patience(self) -> float | None:
        """Seconds to wait for the next event; None: without end."""
        return _PATIENCE if self._ended else None

    def listen(self) -> None:
        """Stream the microphone until it ends."""
        with suppress(OmnivoxError):  # a connection that is gone: `receive` says so
            while (block := self._device.record()) is not None:
                deaf = self._playing.is_set() and not self._headphones
                self._client.append(torch.zeros_like(block) if deaf else block)
            self._client.append(torch.zeros(2 * self._client.sample_rate))  # ends a question that is being asked
            self._client.send({"type": "input_audio_buffer.clear"})  # its answer says that all of it was judged

    def take(self, event: Mapping[str, Any]) -> Iterator[Said | Text | Audio | Done | Interrupted]:
        """What an event of the server means to those who talk."""
        match event["type"]:
            case "error" if event["error"].get("event_id") in self._harmless:
                pass  # it had been forgotten already
            case "error":
                raise_error(event["error"])
            case "conversation.item.input_audio_transcription.completed":
                yield Said(event["transcript"])
            case "input_audio_buffer.speech_started":
                yield from self._interrupt()
            case "input_audio_buffer.committed":
                self._expected = True
            case "input_audio_buffer.cleared":
                self._ended = True
            case "response.created":
                self._expected = False
                self._answer = self._last = Answer(self._client.sample_rate)
                self._answer.id = event["response"]["id"]
            case _ if self._answer and self._answer.id == response_of(event) != self._silenced:
                yield from self._hear(self._answer, event)
        if event["type"] == "response.done":
            self._answer = None

    def _hear(self, answer: Answer, event: Mapping[str, Any]) -> Iterator[Text | Audio | Done]:
        for made in answer.take(event):
            if isinstance(made, Audio):
                self._playing.set()
                self._device.play(made.samples, self._client.sample_rate)
            yield made
        if answer.done and self._playing.is_set() and not self._headphones:
            self._device.drain()
            self._playing.clear()

    def _interrupt(self) -> Iterator[Interrupted]:
        """Fall silent, and say what was heard of the last answer."""
        lost = self._device.stop()
        last, self._last = self._last, None
        self._playing.clear()
        if last is None or last.item_id is None or not (lost or self._answer):
            return
        self._silenced = last.id
        heard = max(0, last.heard_ms - round(1000 * lost))
        self._harmless.add(self._client.truncate(last.item_id, heard))
        yield Interrupted(heard)
