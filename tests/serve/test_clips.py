"""Whole sounds in memory: what is read, and what of a stranger's bytes is not."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import torch

from omnivox.errors import AudioError
from omnivox.serve.clips import READABLE, WRITABLE, read_clip, write_clip

TONE = 0.4 * torch.sin(2 * torch.pi * 440 * torch.arange(16_000) / 16_000)


def file(samples: np.ndarray, rate: int, container: str = "WAV") -> bytes:
    data = io.BytesIO()
    soundfile.write(data, samples, rate, format=container)
    return data.getvalue()


@pytest.mark.parametrize("kind", WRITABLE)
def test_what_is_written_is_read(kind: str) -> None:
    heard = read_clip(write_clip(TONE, 16_000, kind), kind, "field", 10)
    assert heard.shape == TONE.shape
    middle = slice(2000, -2000)
    alike = torch.corrcoef(torch.stack([heard[middle], TONE[middle]]))[0, 1]
    assert alike > 0.98 or kind == "mp3"  # mp3 comes a frame late
    assert 0.2 < heard.square().mean().sqrt() / TONE.square().mean().sqrt() < 1.5


@pytest.mark.parametrize("kind", WRITABLE)
def test_silence_that_is_empty_is_no_error(kind: str) -> None:
    write_clip(torch.empty(0), 16_000, kind)


def test_loud_and_broken_samples_are_tamed() -> None:
    wild = torch.tensor([float("nan"), float("inf"), -9.0, 0.5])
    np.testing.assert_allclose(np.frombuffer(write_clip(wild, 24_000, "pcm16"), "<i2"), [0, 32767, -32768, 16384])


def test_raw_pcm_is_at_24_khz() -> None:
    assert len(read_clip(bytes(48_000), "pcm16", "field", 10)) == 16_000


def test_stereo_is_mixed_and_any_rate_becomes_16_khz() -> None:
    both = np.stack([np.full(4410, 0.5), np.full(4410, -0.5)], 1)
    heard = read_clip(file(both, 44_100, "FLAC"), "flac", "field", 10)
    assert len(heard) == 1600
    assert heard.abs().max() < 1e-3


@pytest.mark.parametrize(("data", "kind", "message"), [
    (b"", "wav", "does not begin as wav"),
    (b"RIFFgarbage", "wav", "not wav that can be read"),
    (b"fLaC" + bytes(100), "flac", "not flac that can be read"),
    (b"\xff" * 100, "mp3", "field.data: "),
    (b"caff" + bytes(100), "ogg", "does not begin as ogg"),
    (b"abc", "pcm16", "found 3 bytes; expected two for each sample"),
    (b"", "pcm16", "holds no samples"),
    (file(np.zeros(10), 16_000), "flac", "does not begin as flac"),
    (file(np.zeros(10), 300_000), "wav", "1 channels at 300000 Hz"),
    (file(np.zeros((10, 6)), 16_000), "wav", "6 channels"),
    (file(np.zeros(0), 16_000), "wav", "holds no samples"),
    (bytes(2 * 24_000 * 11), "pcm16", "lasts more than 10 s"),
    (file(np.zeros(16_000 * 100), 16_000, "FLAC"), "flac", "lasts more than 10 s"),  # little data, much silence
])
def test_what_cannot_be_heard_is_refused_by_field(data: bytes, kind: str, message: str) -> None:
    with pytest.raises(AudioError, match=r"field\.data: ") as caught:
        read_clip(data, kind, "field.data", 10)
    assert message in str(caught.value)


def test_no_more_is_decoded_than_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read",
                        lambda self, frames, **rest: asked.append(frames) or real(self, frames, **rest))
    with pytest.raises(AudioError, match="more than 2 s"):
        read_clip(file(np.zeros(16_000 * 60), 16_000, "FLAC"), "flac", "field", 2)
    assert asked == [32_001]


def test_what_can_be_written_can_be_read() -> None:
    assert set(WRITABLE) <= set(READABLE)
