"""What a session hears: sound in, turns out; off the event loop, for the detector is a network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from omnivox.rates import SAMPLE_RATE
from omnivox.runtime.turns import Detector, Ears, Turn, TurnSettings
from omnivox.runtime.wire import AudioFormat, WireDecoder
from omnivox.serve.protocol import EAGERNESS, Json, ProtocolError

SHORTEST_MS = 200.0  # of silence after a question that the model is sure to have understood
LEAST_SECONDS = 0.1  # of sound in a commit, as OpenAI


class Hearing:
    """The input buffer of one session, with or without a detector of turns."""

    def __init__(self, pool: ThreadPoolExecutor, longest: float, detector: Callable[[], Detector]) -> None:
        self._pool, self._longest, self._make_detector = pool, longest, detector
        self._decoder = WireDecoder(AudioFormat())
        self._ears: Ears | None = None
        self._eagerness: str | None = None
        self._buffer: list[Tensor] = []  # in manual turns
        self.heard = 0  # samples at 16 kHz, since the session began

    def configure(self, wire: AudioFormat, turn_detection: Json | None, longest_turn: float) -> None:
        """As the session says; what is in the buffer stays, if turns go on being found in the same way."""
        if wire != self._decoder.format:
            self._decoder = WireDecoder(wire)
        if turn_detection is None:
            kept = self._ears.take() if self._ears is not None else None
            self._buffer += [] if kept is None else [kept]
            self._ears = self._eagerness = None
            return
        self._eagerness = turn_detection.get("eagerness")
        silence = EAGERNESS[self._eagerness] * 1000 if self._eagerness else turn_detection["silence_duration_ms"]
        settings = TurnSettings(turn_detection.get("threshold", 0.5), turn_detection.get("prefix_padding_ms", 300),
                                silence, max_seconds=longest_turn)
        if self._ears is None or self._ears.settings != settings:
            detector = self._make_detector() if self._ears is None else self._ears.detector
            heard = 0 if self._ears is None else self._ears.heard
            self._ears = Ears(detector, settings)
            self._ears.heard = heard or self.heard
            self._buffer = []

    async def append(self, data: bytes, audible: bool) -> list[Turn]:
        """What more sound brings. `audible`: an answer is being heard. Raises ProtocolError: the buffer is full."""
        waiting = sum(map(len, self._buffer)) / SAMPLE_RATE
        if waiting + self._decoder.format.seconds(len(data)) > self._longest:
            raise ProtocolError(f"Input audio buffer is full: it holds {waiting:.1f} s and may hold "
                                f"{self._longest:.0f} s; commit or clear it.", "input_audio_buffer_full", "audio")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._hear, data, audible)

    def _hear(self, data: bytes, audible: bool) -> list[Turn]:
        samples = torch.from_numpy(self._decoder.push(data).copy())
        self.heard += len(samples)
        if self._ears is None:
            self._buffer.append(samples)
            return []
        return list(self._ears.hear(samples, audible))

    def take(self) -> Tensor:
        """Everything in the buffer. Raises ProtocolError where that is next to nothing."""
        if self._ears is not None:
            samples = self._ears.take()
        else:
            rest = torch.from_numpy(self._decoder.flush().copy())  # or it would begin the next question
            samples, self._buffer = torch.cat([*self._buffer, rest]), []
        if (seconds := len(samples) / SAMPLE_RATE) < LEAST_SECONDS - 0.02:  # what the resampler still holds
            raise ProtocolError("Error committing input audio buffer: buffer too small. Expected at least "
                                f"{1000 * LEAST_SECONDS:.0f}ms of audio, but buffer only has {1000 * seconds:.2f}ms of "
                                "audio.", "input_audio_buffer_commit_empty")
        return samples

    def clear(self) -> None:
        """Forget what is in the buffer."""
        self._buffer = []
        self._decoder.flush()
        if self._ears is not None:
            self._ears.clear()

    def expect(self, certainty: float) -> None:
        """In `semantic_vad`: how sure the model is of its answer, if nothing follows. The surer, the shorter the pause
        that ends the turn; a sentence that hangs in the air gets all the time that the eagerness leaves it."""
        if self._ears is not None and self._eagerness is not None:
            longest = 1000 * EAGERNESS[self._eagerness]
            self._ears.silence_ms = SHORTEST_MS + (longest - SHORTEST_MS) * (1 - certainty)
