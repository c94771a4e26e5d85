"""Talking through a microphone and a speaker: listen until the speaker pauses, answer, listen again.

Half duplex: what the microphone hears while the answer plays is dropped, so an open loudspeaker cannot make the model
answer itself. Turns come from Silero's voice activity detector (https://github.com/snakers4/silero-vad, MIT), which
judges blocks of 32 ms; the defaults of `TurnSettings` are those of OpenAI's `server_vad`.

Shapes: n samples; a block is [BLOCK] float32 samples in -1..1 at 16 kHz.
"""

from __future__ import annotations

import queue
import threading
import warnings
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnivox.errors import ConfigError
from omnivox.rates import SAMPLE_RATE
from omnivox.runtime.events import Audio, Done, Text

if TYPE_CHECKING:
    from omnivox.runtime.respond import Omni

BLOCK = 512  # samples that the detector judges at once, 32 ms
HYSTERESIS = 0.15  # speech ends below threshold - HYSTERESIS, as in Silero's own iterator


class AudioDevice(Protocol):
    """A microphone and a speaker."""

    def record(self) -> Tensor | None:
        """The next block of the microphone, waiting for it; None when there will be no more."""

    def play(self, samples: Tensor, rate: int) -> None:
        """Queue samples [n] at `rate` Hz for the speaker and return at once."""

    def drain(self) -> None:
        """Wait until everything queued has been heard, then forget what the microphone heard meanwhile."""


class Detector(Protocol):
    """A voice activity detector with memory."""

    def __call__(self, block: Tensor) -> float:
        """Probability that this block, which follows the last one, holds speech."""

    def reset(self) -> None:
        """Forget every block heard so far."""


@dataclass(frozen=True)
class TurnSettings:
    """When a turn begins and ends."""

    threshold: float = 0.5  # probability above which a block is speech
    prefix_ms: float = 300.0  # kept before the first block of speech
    silence_ms: float = 500.0  # of silence that ends a turn
    min_speech_ms: float = 160.0  # less speech than this is a click or a cough
    max_seconds: float = 30.0  # a longer turn is answered as far as it got

    def __post_init__(self) -> None:
        if not HYSTERESIS < self.threshold < 1:
            raise ConfigError(f"threshold: found {self.threshold}; expected more than {HYSTERESIS} and less than 1")
        if self.silence_ms < blocks_ms(1):
            raise ConfigError(f"silence_ms: found {self.silence_ms}; expected a block or more, {blocks_ms(1):.0f} ms")


@dataclass(frozen=True)
class Heard:
    """A question has ended; its answer follows."""

    samples: Tensor  # [n] at 16 kHz


def blocks_ms(blocks: int) -> float:
    """How long `blocks` blocks last, in milliseconds."""
    return blocks * BLOCK * 1000 / SAMPLE_RATE


def questions(device: AudioDevice, detector: Detector, settings: TurnSettings | None = None) -> Iterator[Tensor]:
    """Each turn that the microphone hears: samples [n], from `prefix_ms` before the speech to the pause after it."""
    settings = settings or TurnSettings()
    before: deque[Tensor] = deque(maxlen=max(1, round(settings.prefix_ms / blocks_ms(1))))
    turn: list[Tensor] = []
    speech = silence = 0  # blocks of this turn
    while (block := device.record()) is not None:
        probability = detector(block)
        if not turn and probability < settings.threshold:
            before.append(block)
            continue
        if not turn:
            turn, speech, silence = list(before), 0, 0
            before.clear()
        turn.append(block)
        if probability >= settings.threshold:
            speech, silence = speech + 1, 0
        elif probability < settings.threshold - HYSTERESIS:
            silence += 1
        if blocks_ms(silence) >= settings.silence_ms or blocks_ms(len(turn)) >= 1000 * settings.max_seconds:
            if blocks_ms(speech) >= settings.min_speech_ms:
                yield torch.cat(turn)
                detector.reset()
            else:
                before.extend(turn)
            turn = []
    if turn and blocks_ms(speech) >= settings.min_speech_ms:
        yield torch.cat(turn)


def converse(omni: Omni, device: AudioDevice, detector: Detector, settings: TurnSettings | None = None,
             **respond: Any) -> Iterator[Heard | Text | Audio | Done]:
    """Answer every turn through the device; `respond` goes to `Omni.respond`. Ends when the microphone does."""
    for question in questions(device, detector, settings):
        yield Heard(question)
        for event in omni.respond(question, **respond):
            if isinstance(event, Audio):
                device.play(event.samples, omni.sample_rate)
            yield event
        device.drain()


class Silero:
    """Silero's detector for 16 kHz. Raises ConfigError where the package is missing."""

    def __init__(self) -> None:
        threads = torch.get_num_threads()
        try:
            with warnings.catch_warnings():  # it loads TorchScript, which newer torch deprecates
                warnings.simplefilter("ignore")
                from silero_vad import load_silero_vad
                self._model = load_silero_vad()
        except ImportError as error:
            raise _missing("silero-vad", error) from error
        finally:
            torch.set_num_threads(threads)  # importing the package sets it to one

    @torch.inference_mode()
    def __call__(self, block: Tensor) -> float:
        return float(self._model(block, SAMPLE_RATE))

    def reset(self) -> None:
        self._model.reset_states()


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
        data = samples.detach().cpu().float().numpy()
        if rate != SAMPLE_RATE:
            data = soxr.resample(data, rate, SAMPLE_RATE)
        with self._lock:
            self._queued.append(np.ascontiguousarray(data))
            self._quiet.clear()

    def drain(self) -> None:
        while not self._quiet.wait(0.1):  # in slices, so that Ctrl-C is seen
            pass
        while not self._recorded.empty():
            self._recorded.get_nowait()

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
