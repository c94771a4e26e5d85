"""Who speaks: when somebody begins, pauses, goes on, and has finished.

Silero's voice activity detector (https://github.com/snakers4/silero-vad, MIT) judges blocks of 32 ms; the defaults of
`TurnSettings` are those of OpenAI's `server_vad`. `Ears` makes turns of its judgements:

    silence ─► Began (after `min_speech_ms` of speech) ─► Paused ─► Ended (after `silence_ms` of silence)
                                                           └──► Resumed

While an answer is to be heard, `interrupt_ms` of speech are needed instead: a cough or an "mm-hm" interrupts nobody.
Shapes: n samples; a block is [BLOCK] float32 samples in -1..1 at 16 kHz.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from omnivox.errors import ConfigError
from omnivox.rates import SAMPLE_RATE

BLOCK = 512  # samples that the detector judges at once, 32 ms
CONTEXT = 64  # samples before a block that the detector sees too
HYSTERESIS = 0.15  # speech ends below threshold - HYSTERESIS, as in Silero's own iterator


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
    interrupt_ms: float = 500.0  # of speech that interrupt an answer
    pause_ms: float = 64.0  # of silence after which an answer may be prepared
    max_seconds: float = 30.0  # a turn is never longer, it is answered as far as it got

    def __post_init__(self) -> None:
        if not HYSTERESIS < self.threshold < 1:
            raise ConfigError(f"threshold: found {self.threshold}; expected more than {HYSTERESIS} and less than 1")
        if self.silence_ms < blocks_ms(1):
            raise ConfigError(f"silence_ms: found {self.silence_ms}; expected a block or more, {blocks_ms(1):.0f} ms")


def blocks_ms(blocks: int) -> float:
    """How long `blocks` blocks last, in milliseconds."""
    return blocks * BLOCK * 1000 / SAMPLE_RATE


@dataclass(frozen=True)
class Began:
    """Somebody speaks, since sample `at` of the stream (the prefix included)."""

    at: int


@dataclass(frozen=True)
class Paused:
    """Somebody stopped for a moment: the turn's samples [n] so far."""

    at: int
    samples: Tensor


@dataclass(frozen=True)
class Resumed:
    """It was only a pause."""

    at: int


@dataclass(frozen=True)
class Ended:
    """The turn is over: all of its samples [n]; `silence` of them follow its last speech."""

    at: int
    samples: Tensor
    silence: int


Turn = Began | Paused | Resumed | Ended


class Ears:
    """Listens to one stream. `silence_ms` may be set anew at any time, by somebody who knows how a sentence ends."""

    def __init__(self, detector: Detector, settings: TurnSettings | None = None) -> None:
        self.detector, self.settings = detector, settings or TurnSettings()
        self.silence_ms = self.settings.silence_ms
        self.heard = 0  # samples of the stream
        self._rest = torch.empty(0)
        self._before: deque[Tensor] = deque(maxlen=max(1, round(self.settings.prefix_ms / blocks_ms(1))))
        self._turn: list[Tensor] = []
        self._speech = self._silence = 0  # blocks of this turn: of speech, and of silence at its end
        self._began = self._paused = False

    def hear(self, samples: Tensor, audible: bool = False) -> Iterator[Turn]:
        """What samples [n] of any number, which follow the last, bring. `audible`: an answer is being heard."""
        data = torch.cat([self._rest, samples])
        whole = len(data) // BLOCK * BLOCK
        self._rest = data[whole:]
        for block in data[:whole].reshape(-1, BLOCK):
            self.heard += BLOCK
            yield from self._judge(block, audible)

    def finish(self) -> Iterator[Turn]:
        """The stream is over: what is being said is a turn."""
        if self._enough(audible=False):
            yield from self._begin(audible=False)
            yield self._end()

    def take(self) -> Tensor:
        """What is kept of the turn so far, samples [n], which is over by somebody's word."""
        samples = torch.cat([torch.empty(0), *self._before, *self._turn, self._rest])
        self._rest = torch.empty(0)
        self.clear()
        return samples

    def clear(self) -> None:
        """Forget the turn that is being spoken."""
        self._turn, self._speech, self._silence, self._began, self._paused = [], 0, 0, False, False
        self._before.clear()
        self.silence_ms = self.settings.silence_ms

    @property
    def speaking(self) -> bool:
        """Whether a turn has begun and not ended."""
        return self._began

    def _judge(self, block: Tensor, audible: bool) -> Iterator[Turn]:
        probability, settings = self.detector(block), self.settings
        spoken = probability >= settings.threshold
        if not self._turn and not spoken:
            self._before.append(block)
            return
        if not self._turn:
            self._turn = list(self._before)
            self._before.clear()
        self._turn.append(block)
        if spoken:
            self._speech, self._silence = self._speech + 1, 0
        elif probability < settings.threshold - HYSTERESIS:
            self._silence += 1
        yield from self._begin(audible)
        yield from self._pause()
        long = blocks_ms(len(self._turn) + 1) > 1000 * settings.max_seconds
        if blocks_ms(self._silence) >= self.silence_ms or long:
            if self._began:
                yield self._end()
            else:
                self._dismiss()

    def _enough(self, audible: bool) -> bool:
        least = self.settings.interrupt_ms if audible else self.settings.min_speech_ms
        return self._began or (bool(self._turn) and blocks_ms(self._speech) >= least)

    def _begin(self, audible: bool) -> Iterator[Turn]:
        if not self._began and self._enough(audible):
            self._began = True
            yield Began(self.heard - len(self._turn) * BLOCK)

    def _pause(self) -> Iterator[Turn]:
        if self._paused and not self._silence:
            self._paused = False
            self.silence_ms = self.settings.silence_ms
            yield Resumed(self.heard)
        elif self._began and not self._paused and blocks_ms(self._silence) >= self.settings.pause_ms:
            self._paused = True
            yield Paused(self.heard, torch.cat(self._turn))

    def _end(self) -> Ended:
        ended = Ended(self.heard, torch.cat(self._turn), self._silence * BLOCK)
        self.clear()
        self.detector.reset()
        return ended

    def _dismiss(self) -> None:
        """Too little speech for a turn: it may be the beginning of the next."""
        blocks = self._turn
        self.clear()
        self._before.extend(blocks)


class Silero:
    """Silero's detector for 16 kHz; all share one model, each has its own memory.

    Raises ConfigError where the package is missing.
    """

    def __init__(self) -> None:
        self._model = _silero()
        self._context, self._state = torch.zeros(CONTEXT), torch.zeros(0)

    @torch.inference_mode()
    def __call__(self, block: Tensor) -> float:
        window = torch.cat([self._context, block])[None]
        out, self._state = self._model(window, self._state)
        self._context = window[0, -CONTEXT:]
        return float(out)

    def reset(self) -> None:
        self._context, self._state = torch.zeros(CONTEXT), torch.zeros(0)


@cache
def _silero() -> Any:
    """The network without the memory that its package keeps beside it: (window, state) → (probability, state)."""
    threads = torch.get_num_threads()
    try:
        with warnings.catch_warnings():  # it loads TorchScript, which newer torch deprecates
            warnings.simplefilter("ignore")
            from silero_vad import load_silero_vad
            return load_silero_vad()._model
    except ImportError as error:
        raise ConfigError(f"voice activity: Python package silero-vad is missing ({error}); install it with: "
                          "pip install 'omnivox[chat]'") from error
    finally:
        torch.set_num_threads(threads)  # importing the package sets it to one
