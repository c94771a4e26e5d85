"""Sound on the wire: the formats of the Realtime protocol, in and out, as it comes.

    audio/pcm   16-bit little-endian mono at 24 kHz
    audio/pcmu  G.711 µ-law, a byte a sample at 8 kHz
    audio/pcma  G.711 A-law, likewise

Shapes: n samples, mono float32 in -1..1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnivox.errors import ConfigError
from omnivox.rates import SAMPLE_RATE
from omnivox.runtime.resample import Resampler, Samples

_RATES = {"audio/pcm": 24_000, "audio/pcmu": 8_000, "audio/pcma": 8_000}  # samples per second, the only ones allowed


@dataclass(frozen=True)
class AudioFormat:
    """One of the formats above. Raises ConfigError for any other."""

    type: str = "audio/pcm"
    rate: int = 24_000

    def __post_init__(self) -> None:
        if _RATES.get(self.type) != self.rate:
            raise ConfigError(f"format: found {self.type!r} at {self.rate!r} Hz; expected one of {_RATES}")

    @classmethod
    def parse(cls, value: object, field: str) -> AudioFormat:
        """The format that JSON such as {"type": "audio/pcm", "rate": 24000} names; the rate may be left out.

        field: where it stands, for the message. Raises ConfigError.
        """
        if not isinstance(value, dict):
            raise ConfigError(f'{field}: found {value!r}; expected an object such as {{"type": "audio/pcm"}}')
        name = value.get("type")
        if not isinstance(name, str) or name not in _RATES:
            raise ConfigError(f"{field}.type: found {name!r}; expected {', '.join(_RATES)}")
        rate = value.get("rate")
        if rate is not None and (isinstance(rate, bool) or rate != _RATES[name]):
            raise ConfigError(f"{field}.rate: found {rate!r}; expected {_RATES[name]} for {name}")
        return cls(name, _RATES[name])

    def to_json(self) -> dict[str, Any]:
        """As the protocol writes it: the G.711 formats without their rate."""
        return {"type": self.type, "rate": self.rate} if self.type == "audio/pcm" else {"type": self.type}

    @property
    def width(self) -> int:
        """Bytes per sample."""
        return 2 if self.type == "audio/pcm" else 1

    def samples(self, seconds: float) -> int:
        """Wire samples nearest to that long."""
        return round(seconds * self.rate)

    def seconds(self, size: int) -> float:
        """How long `size` bytes last."""
        return size / (self.width * self.rate)


def milliseconds(samples: int, rate: int) -> int:
    """Whole milliseconds of `samples` at `rate` Hz, rounded down, so that a sum never runs ahead of the sound."""
    return samples * 1000 // rate


class WireDecoder:
    """Bytes of the wire → samples [n] at `rate` Hz, a few milliseconds late until `flush`."""

    def __init__(self, wire: AudioFormat, rate: int = SAMPLE_RATE) -> None:
        self.format = wire
        self._resampler = Resampler(wire.rate, rate)
        self._odd = b""  # the first half of a 16-bit sample whose second half has not come

    def push(self, data: bytes) -> Samples:
        """More samples [n]; a packet may end within a sample."""
        data = self._odd + data
        whole = len(data) - len(data) % self.format.width
        self._odd = data[whole:]
        return self._resampler.push(decode(data[:whole], self.format))

    def flush(self) -> Samples:
        """The last samples; half a sample is dropped. Then the next stream may begin."""
        self._odd = b""
        return self._resampler.flush()


class WireEncoder:
    """Samples [n] at `source_rate` Hz → bytes of the wire, a few milliseconds late until `flush`."""

    def __init__(self, wire: AudioFormat, source_rate: int) -> None:
        self.format = wire
        self._resampler = Resampler(source_rate, wire.rate)

    def push(self, samples: NDArray[Any]) -> bytes:
        """More bytes. Samples beyond full scale are clipped; what is no number is silence."""
        return encode(self._resampler.push(_finite(samples)), self.format)

    def flush(self) -> bytes:
        """The last bytes. Then the next stream may begin."""
        return encode(self._resampler.flush(), self.format)


def decode(data: bytes, wire: AudioFormat) -> Samples:
    """Whole samples [n] at the format's own rate."""
    if wire.type == "audio/pcm":
        return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
    levels = _LAWS[wire.type].levels
    return levels[np.frombuffer(data, np.uint8)]


def encode(samples: NDArray[Any], wire: AudioFormat) -> bytes:
    """Samples [n] at the format's own rate as bytes, clipped to full scale."""
    samples = _finite(samples)
    if wire.type == "audio/pcm":
        return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()
    return _LAWS[wire.type].codes(samples).tobytes()


def _finite(samples: NDArray[Any]) -> Samples:
    """Within full scale; what is no number becomes silence, for it would go on sounding in a filter's memory."""
    return np.nan_to_num(np.clip(np.asarray(samples, np.float32), -1, 1), nan=0.0)


class _Law:
    """A G.711 law. Magnitude n = 0..127 counts from silence: eight segments of sixteen steps.

    decisions: [128] the least magnitude of each n; magnitudes: [128] what each n sounds as; both over `full_scale`.
    mask: what the wire exclusive-ors to n; bit 7 is the sign, set for positive samples.
    """

    def __init__(self, decisions: NDArray[Any], magnitudes: NDArray[Any], full_scale: int, mask: int) -> None:
        self._decisions = decisions / full_scale
        code = np.arange(256) ^ mask
        self.levels: Samples = (np.where(code & 0x80, 1, -1) * magnitudes[code & 0x7F] / full_scale).astype(np.float32)
        self._mask = mask

    def codes(self, samples: Samples) -> NDArray[np.uint8]:
        """[n] → [n], each the code whose step holds the sample."""
        n = np.searchsorted(self._decisions, np.abs(samples.astype(np.float64)), side="right") - 1
        return ((n | np.where(samples < 0, 0, 0x80)) ^ self._mask).astype(np.uint8)


def _mu_law() -> _Law:
    """G.711 table 2: 14 bits, segments twice as wide each, zero in the middle of its step."""
    segment, step = np.divmod(np.arange(128), 16)
    decisions = np.maximum(((step + 16) << (segment + 1)) - 33, 0)
    # Bits are sent inverted: 0xFF and 0x7F are the two zeros.
    return _Law(decisions, ((2 * step + 33) << segment) - 33, full_scale=8192, mask=0x7F)


def _a_law() -> _Law:
    """G.711 table 1: 13 bits, the first two segments equally wide, zero on a border."""
    segment, step = np.divmod(np.arange(128), 16)
    linear = segment == 0
    decisions = np.where(linear, 2 * step, (step + 16) << segment)
    magnitudes = decisions + np.where(linear, 1, (1 << segment) >> 1)
    # Every second bit is sent inverted.
    return _Law(decisions, magnitudes, full_scale=4096, mask=0x55)


_LAWS = {"audio/pcmu": _mu_law(), "audio/pcma": _a_law()}
