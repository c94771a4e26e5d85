"""Talking through a microphone and a speaker: listen until the speaker pauses, answer, listen again.

Half duplex: what the microphone hears while the answer plays is dropped, so an open loudspeaker cannot make the model
answer itself. Turns come from `turns.Ears`.

Shapes: n samples; a block is [BLOCK] float32 samples in -1..1 at 16 kHz.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnivox.errors import ConfigError
from omnivox.rates import SAMPLE_RATE
from omnivox.runtime.events import Audio, Done, Text
from omnivox.runtime.resample import Resampler
from omnivox.runtime.turns import BLOCK, Detector, Ears, Ended, TurnSettings

if TYPE_CHECKING:
    from omnivox.runtime.respond import Omni


class AudioDevice(Protocol):
    """A microphone and a speaker."""

    def record(self) -> Tensor | None:
        """The next block of the microphone, waiting for it; None when there will be no more."""

    def play(self, samples: Tensor, rate: int) -> None:
        """Queue samples [n] at `rate` Hz for the speaker and return at once."""

    def drain(self) -> None:
        """Wait until everything queued has been heard, then forget what the microphone heard meanwhile."""


@dataclass(frozen=True)
class Heard:
    """A question has ended; its answer follows."""

    samples: Tensor  # [n] at 16 kHz


def questions(device: AudioDevice, detector: Detector, settings: TurnSettings | None = None) -> Iterator[Tensor]:
    """Each turn that the microphone hears: samples [n], from `prefix_ms` before the speech to the pause after it."""
    ears = Ears(detector, settings)
    while (block := device.record()) is not None:
        yield from (turn.samples for turn in ears.hear(block) if isinstance(turn, Ended))
    yield from (turn.samples for turn in ears.finish() if isinstance(turn, Ended))


def converse(omni: Omni, device: AudioDevice, detector: Detector, settings: TurnSettings | None = None,
             **respond: Any) -> Iterator[Heard | Text | Audio | Done]:
    """Answer every turn through the device; `respond` goes to `Omni.respond`. Ends when the microphone does.

    A turn ends at what the model can hear, whatever `settings` allow.
    """
    settings = settings or TurnSettings()
    longest = omni.model.max_samples / SAMPLE_RATE
    settings = replace(settings, max_seconds=min(settings.max_seconds, longest))
    for question in questions(device, detector, settings):
        yield Heard(question)
        for event in omni.respond(question, **respond):
            if isinstance(event, Audio):
                device.play(event.samples, omni.sample_rate)
            yield event
        device.drain()


class SoundDevice:
    """The default microphone and speaker, through PortAudio. Use it as a context manager.

    Raises ConfigError: sounddevice or PortAudio is not installed, or there is no microphone or no speaker.
    """

    def __init__(self) -> None:
        try:
            import sounddevice
        except ImportError as error:
            raise _missing("sounddevice", error) from error
        except OSError as error:
            raise ConfigError(f"chat: {error}; install PortAudio (Debian: apt-get install libportaudio2; "
                              "macOS: brew install portaudio)") from error
        self._recorded: queue.SimpleQueue[Tensor] = queue.SimpleQueue()
        self._queued: deque[NDArray[np.float32]] = deque()
        self._converter: Resampler | None = None  # of the reply that is being played
        self._rate = SAMPLE_RATE  # of that reply
        self._lock = threading.Lock()
        self._quiet = threading.Event()
        self._quiet.set()
        try:
            self._microphone = sounddevice.InputStream(
                samplerate=SAMPLE_RATE, blocksize=BLOCK, channels=1, dtype="float32", callback=self._hear)
            self._speaker = sounddevice.OutputStream(
                samplerate=SAMPLE_RATE, channels=1, dtype="float32", callback=self._say)
        except (sounddevice.PortAudioError, ValueError) as error:  # ValueError: no default device
            raise ConfigError(f"chat: no microphone or speaker that works at {SAMPLE_RATE} Hz ({error}); "
                              "connect one and choose it as the system's default") from error

    def __enter__(self) -> Self:
        self._speaker.start()
        self._microphone.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._microphone.close()
        self._speaker.close()

    def record(self) -> Tensor | None:
        return self._recorded.get()

    def play(self, samples: Tensor, rate: int) -> None:
        if self._converter is None or self._rate != rate:
            self._converter, self._rate = Resampler(rate, SAMPLE_RATE), rate
        self._enqueue(self._converter.push(samples.detach().cpu().float().numpy()))

    def _enqueue(self, data: NDArray[np.float32]) -> None:
        if not len(data):
            return
        with self._lock:
            self._queued.append(data)
            self._quiet.clear()

    def drain(self) -> None:
        if self._converter is not None:
            self._enqueue(self._converter.flush())
            self._converter = None
        while not self._quiet.wait(0.1):  # in slices, so that Ctrl-C is seen
            pass
        with suppress(queue.Empty):  # another thread may be recording
            while True:
                self._recorded.get_nowait()

    def stop(self) -> float:
        """Drop what is queued for the speaker; returns how many seconds of it nobody will hear."""
        with self._lock:
            dropped = sum(map(len, self._queued))
            self._queued.clear()
        self._converter = None
        return dropped / SAMPLE_RATE

    def _hear(self, data: NDArray[np.float32], frames: int, time: object, status: object) -> None:
        self._recorded.put(torch.from_numpy(data[:, 0].copy()))

    def _say(self, out: NDArray[np.float32], frames: int, time: object, status: object) -> None:
        filled = 0
        with self._lock:
            while filled < frames and self._queued:
                piece = self._queued.popleft()
                taken = min(len(piece), frames - filled)
                out[filled:filled + taken, 0] = piece[:taken]
                filled += taken
                if taken < len(piece):
                    self._queued.appendleft(piece[taken:])
            if not filled:  # a whole block after the last sample: it has left the buffer
                self._quiet.set()
        out[filled:] = 0


def _missing(package: str, error: ImportError) -> ConfigError:
    return ConfigError(f"chat: Python package {package} is missing ({error}); install it with: "
                       "pip install 'omnivox[chat]'")
