"""A Realtime server's response, as it arrives, into the events of a reply."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnivox.errors import OmnivoxError
from omnivox.runtime.clock import Clock
from omnivox.runtime.events import Audio, Done, Reply, Text, Timings
from omnivox.runtime.wire import AudioFormat, WireDecoder

WIRE = AudioFormat()  # what the client speaks, whatever the server could


class Answer:
    """One response of the server, from its first event to `response.done`.

    id: the response's, once known. item_id: of the message that is being said. done: whether it has ended. clock:
    seconds since it was asked for; it stands still while the caller is away.
    """

    def __init__(self, sample_rate: int) -> None:
        self.id: str | None = None
        self.item_id: str | None = None
        self.done = False
        self.clock = Clock()
        self._rate = sample_rate
        self._from_wire = WireDecoder(WIRE, sample_rate)
        self._given = 0  # samples
        self._text, self._sound, self._timings = "", list[Tensor](), Timings()

    @property
    def heard_ms(self) -> int:
        """Whole milliseconds of sound that were given out."""
        return self._given * 1000 // self._rate

    def take(self, event: Mapping[str, Any]) -> Iterator[Text | Audio | Done]:
        """What an event of this response adds. Raises OmnivoxError if the server failed to make it."""
        match event["type"]:
            case "response.output_audio_transcript.delta" | "response.output_text.delta":
                self._timings.first_token = self._timings.first_token or self.clock.now()
                self._text += event["delta"]
                yield Text(event["delta"])
            case "response.output_audio.delta":
                self.item_id = event["item_id"]
                yield from self._hear(self._from_wire.push(base64.b64decode(event["delta"])))
            case "response.done":
                self.done = True
                yield from self._hear(self._from_wire.flush())
                yield self._finish(event["response"])

    def _hear(self, samples: NDArray[np.float32]) -> Iterator[Audio]:
        if len(samples):
            self._timings.first_audio = self._timings.first_audio or self.clock.now()
            self._given += len(samples)
            self._sound.append(torch.from_numpy(samples))
            yield Audio(self._sound[-1])

    def _finish(self, response: Mapping[str, Any]) -> Done:
        status = response.get("status")
        if status == "failed":
            error = (response.get("status_details") or {}).get("error") or {}
            raise OmnivoxError(f"the server could not answer: {error.get('message') or 'it does not say why'}")
        audio, timings = torch.cat([torch.empty(0), *self._sound]), self._timings
        timings.total = self.clock.now()
        timings.audio_seconds = len(audio) / self._rate
        timings.real_time_factor = timings.total / timings.audio_seconds if len(audio) else 0.0
        return Done(Reply(self._text, [], [], audio, self._rate, timings, cancelled=status == "cancelled",
                          cut=status == "incomplete"))
