"""Sound files in and out: every format that is promised, and one clear error for what is no question."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from omnivox.errors import AudioError
from omnivox.sound import read_audio, write_wav
from omnivox.writing import atomic
from tests.disk import full_disk


def tone(rate: int = 16000, seconds: float = 0.5, hertz: float = 440.0, level: float = 0.5) -> NDArray[np.float64]:
    return level * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def snr(found: Any, expected: NDArray[np.float64]) -> float:
    """Decibels, 20 ms at both ends left out: resamplers and codecs ring there."""
    inner = slice(320, min(len(found), len(expected)) - 320)
    error = np.asarray(found, dtype=np.float64)[inner] - expected[inner]
    return float(10 * np.log10(np.square(expected[inner]).mean() / max(1e-20, np.square(error).mean())))


# -- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("subtype", "decibels"), [
    ("FLOAT", 140), ("DOUBLE", 140), ("PCM_U8", 35), ("PCM_16", 85), ("PCM_24", 130), ("PCM_32", 140), ("ULAW", 30)])
def test_wav_of_every_width(tmp_path: Path, subtype: str, decibels: float) -> None:
    soundfile.write(tmp_path / "a.wav", tone(), 16000, subtype=subtype)
    found = read_audio(tmp_path / "a.wav")
    assert found.dtype == torch.float32
    assert found.shape == (8000,)
    assert snr(found, tone()) > decibels


@pytest.mark.parametrize(("name", "subtype", "decibels"), [
    ("a.flac", "PCM_16", 85), ("a.flac", "PCM_24", 130), ("a.mp3", None, 20), ("a.ogg", "VORBIS", 20),
    ("a.ogg", "OPUS", 20), ("a.aiff", "PCM_16", 85)])
def test_compressed_formats(tmp_path: Path, name: str, subtype: str | None, decibels: float) -> None:
    soundfile.write(tmp_path / name, tone(), 16000, subtype=subtype)
    found = read_audio(tmp_path / name)
    assert found.shape[0] == pytest.approx(8000, abs=1200)  # mp3 pads to whole frames
    best = max(snr(found[shift:], tone()[: len(found) - shift]) for shift in range(1200))  # and some codecs delay
    assert best > decibels


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_odd_rates(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(rate), rate, subtype="FLOAT")
    found = read_audio(tmp_path / "a.wav")
    assert found.shape[0] == pytest.approx(8000, abs=1)
    assert snr(found, tone()) > 60
    again = read_audio(tone(rate), source_rate=rate)
    torch.testing.assert_close(again, found, atol=1e-6, rtol=0)


def test_another_rate_out(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(), 16000, subtype="FLOAT")
    assert snr(read_audio(tmp_path / "a.wav", 24000), tone(24000)) > 60


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = tone(hertz=300), tone(hertz=700)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), 16000, subtype="FLOAT")
    assert snr(read_audio(tmp_path / "a.wav"), (left + right) / 2) > 100
    assert snr(read_audio(np.stack([left, right, left], 1)), (2 * left + right) / 3) > 100


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint8", "float16", "float32", "float64"])
def test_arrays_and_tensors_of_every_type(dtype: str) -> None:
    samples: NDArray[Any] = tone()
    if dtype == "uint8":
        samples = np.round(samples * 127 + 128).astype(dtype)
    elif dtype.startswith("int"):
        samples = np.round(samples * np.iinfo(dtype).max).astype(dtype)
    else:
        samples = samples.astype(dtype)
    decibels = 30 if dtype.endswith("int8") else 60
    for source in (samples, torch.from_numpy(samples)):
        found = read_audio(source)
        assert found.dtype == torch.float32
        assert snr(found, tone()) > decibels


def test_a_bfloat16_tensor_that_has_gradients() -> None:
    source = torch.from_numpy(tone()).bfloat16().requires_grad_()
    found = read_audio(source)
    assert not found.requires_grad
    assert snr(found, tone()) > 40


def test_what_comes_back_is_a_copy() -> None:
    source = tone().astype(np.float32)
    read_audio(source)[0] = 9
    assert source[0] == 0


# -- what is no question ----------------------------------------------------------------------------------------------


def refused(source: Any, message: str, **options: Any) -> None:
    with pytest.raises(AudioError, match=message) as caught:
        read_audio(source, **options)
    assert "\n" not in str(caught.value)
    if isinstance(source, Path):
        assert str(source) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello, I am a letter", b"RIFF", b"RIFF\x24\0\0\0WAVEfmt ", bytes(5000)])
@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.txt"])
def test_no_sound_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, "not a sound file that can be read|holds no samples")


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    refused(tmp_path / "a.wav", "no such file")
    refused(tmp_path, "is a folder; expected a sound file")
    refused("", "is a folder|no such file")


def test_no_samples(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(0), 16000)
    refused(tmp_path / "a.wav", "holds no samples")
    refused(np.zeros(0), "audio: holds no samples")
    refused(torch.zeros(0, 2), "audio: holds no samples")


def test_ten_hours_are_refused_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, path = 10 * 3600 * 16000, tmp_path / "a.wav"
    with path.open("wb") as file:  # a sparse file: a header, and a hole of 1.1 GB
        file.write(b"RIFF" + struct.pack("<I", 36 + 2 * samples) + b"WAVEfmt "
                   + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16) + b"data" + struct.pack("<I", 2 * samples))
        file.truncate(44 + 2 * samples)
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *args, **kwargs: pytest.fail("it was decoded"))
    refused(path, r"lasts 36,000 s; at most 600 s are read")


def test_too_long_an_array() -> None:
    refused(np.zeros(16001, dtype=np.float32), r"audio: lasts 1 s; at most 1 s", max_seconds=1)
    refused(np.zeros(8001, dtype=np.float32), "audio: lasts", max_seconds=1, source_rate=8000)
    assert len(read_audio(np.zeros(16000, dtype=np.float32), max_seconds=1)) == 16000


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers(tmp_path: Path, bad: float) -> None:
    samples = tone()
    samples[7] = samples[9] = bad
    refused(samples, "2 of 8000 samples are NaN or infinite")
    refused(torch.from_numpy(samples), "2 of 8000 samples are NaN or infinite")
    soundfile.write(tmp_path / "a.wav", samples, 22050, subtype="FLOAT")
    refused(tmp_path / "a.wav", "2 of 8000 samples are NaN or infinite")


@pytest.mark.parametrize("source", [np.zeros((2, 3, 4)), np.float32(1.0), torch.zeros(2, 3, 4)])
def test_samples_of_another_shape(source: Any) -> None:
    refused(source, r"audio: samples have shape .*; expected \[n\] or \[n, channels\]")


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_channels_before_samples_are_refused_not_averaged(channels: int, kind: Any) -> None:
    samples = np.stack([tone().astype(np.float32)] * channels)
    refused(kind(samples), rf"shape \({channels}, 8000\); expected .*: transpose them")
    assert torch.equal(read_audio(kind(samples.T.copy())), read_audio(samples[0]))


def test_samples_far_beyond_full_scale(tmp_path: Path) -> None:
    refused(32768 * tone(), r"audio: samples reach 16,384; expected floats in -1..1 .*divide them by 32768")
    refused(np.full(100, 1e300), "100 of 100 samples are NaN or infinite")
    soundfile.write(tmp_path / "a.wav", 1e30 * tone(), 16000, subtype="FLOAT")
    refused(tmp_path / "a.wav", "samples reach 5e")
    assert snr(read_audio(20 * tone()), 20 * tone()) > 100  # a hot recording is none of that


@pytest.mark.parametrize("name", ["a.raw", "A.RAW"])
def test_samples_without_a_header(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(3200))
    refused(tmp_path / name, "has no header")


def test_a_telephone_recording(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(8000), 8000, subtype="GSM610")
    assert len(read_audio(tmp_path / "a.wav")) == pytest.approx(8000, abs=1000)  # in whole blocks


@pytest.mark.parametrize("dtype", ["complex64", "bool", "uint16", "U1", "object"])
def test_samples_of_another_kind(dtype: str) -> None:
    refused(np.zeros(100).astype(dtype), "audio: samples are .*; expected floats in -1..1 or signed integers")


@pytest.mark.parametrize("rate", [0, -8000])
def test_a_rate_that_is_none(rate: int) -> None:
    refused(tone(), f"source_rate: found {rate}", source_rate=rate)


# -- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.from_numpy, np.asarray, lambda x: torch.from_numpy(x).half()])
def test_there_and_back(tmp_path: Path, kind: Any) -> None:
    write_wav(tmp_path / "a.wav", kind(tone(24000)), 24000)
    info = soundfile.info(tmp_path / "a.wav")
    assert (info.samplerate, info.channels, info.subtype, info.format) == (24000, 1, "PCM_16", "WAV")
    assert snr(read_audio(tmp_path / "a.wav", 24000), tone(24000)) > 55
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_loud_samples_are_clipped_not_wrapped(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.array([2.0, -2.0, 0.0]), 16000)
    found, _ = soundfile.read(tmp_path / "a.wav")
    assert found == pytest.approx([1, -1, 0], abs=1e-3)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                        error: BaseException) -> None:
    def fail(path: Path, *args: Any, **kwargs: Any) -> None:
        with path.open("wb") as file:
            file.write(b"half")
        raise error

    (tmp_path / "a.wav").write_bytes(b"old")
    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(type(error)):
        write_wav(tmp_path / "a.wav", tone(), 16000)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]
    assert (tmp_path / "a.wav").read_bytes() == b"old"


def test_atomic_shows_nothing_until_it_is_whole(tmp_path: Path) -> None:
    with atomic(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
        assert temporary.parent == tmp_path
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    with pytest.raises(FileNotFoundError):
        write_wav(tmp_path / "nowhere" / "a.wav", tone(), 16000)


def test_a_full_disk_is_named_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"old")
    told = full_disk(f"""
import numpy as np
from omnivox.sound import write_wav
write_wav({str(tmp_path / "a.wav")!r}, np.zeros(100_000), 16_000)
""")
    assert told.startswith("OSError: [Errno 27]")
    assert str(tmp_path / "a.wav") in told
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]
    assert (tmp_path / "a.wav").read_bytes() == b"old"
