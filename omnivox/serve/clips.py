"""Whole sounds in memory: what a request carries, and what an answer does.

A stranger's bytes are looked at before libsndfile sees them, and no more of them is decoded than is allowed: a small
file can hold days of silence.
"""

from __future__ import annotations

import io

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnivox.errors import AudioError
from omnivox.runtime.wire import AudioFormat, decode, encode
from omnivox.sound import read_audio

PCM = AudioFormat()
_BEGINNINGS = {"wav": (b"RIFF", b"RF64"), "flac": (b"fLaC",), "mp3": (b"ID3", b"\xff"), "ogg": (b"OggS",),
               "opus": (b"OggS",)}
READABLE = (*_BEGINNINGS, "pcm16")
_WRITING = {"wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "mp3": ("MP3", "MPEG_LAYER_III"),
            "opus": ("OGG", "OPUS")}
WRITABLE = (*_WRITING, "pcm16")
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
MAX_RATE, MAX_CHANNELS = 192_000, 2


def read_clip(data: bytes, kind: str, field: str, max_seconds: float) -> Tensor:
    """Samples [n] at 16 kHz. kind: one of `READABLE`; pcm16 is raw, at 24 kHz. field: where it stands, for the message.

    Raises AudioError: not of that kind, damaged, empty, longer than `max_seconds`.
    """
    if kind == "pcm16":
        if len(data) % 2:
            raise AudioError(f"{field}: found {len(data)} bytes; expected two for each sample")
        samples, rate = decode(data, PCM), PCM.rate
    else:
        samples, rate = _decode(data, kind, field, max_seconds)
    if len(samples) > max_seconds * rate:
        raise AudioError(f"{field}: lasts more than {max_seconds:g} s; at most that much is heard")
    try:
        return read_audio(samples, source_rate=rate)
    except AudioError as error:
        raise AudioError(str(error).replace("audio", field, 1)) from error


def _decode(data: bytes, kind: str, field: str, max_seconds: float) -> tuple[NDArray[np.float32], int]:
    if not data.startswith(_BEGINNINGS[kind]):
        raise AudioError(f"{field}: does not begin as {kind} does")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.samplerate > MAX_RATE or file.channels > MAX_CHANNELS:
                raise AudioError(f"{field}: found {file.channels} channels at {file.samplerate} Hz; expected at most "
                                 f"{MAX_CHANNELS} at {MAX_RATE}")
            return file.read(int(max_seconds * file.samplerate) + 1, dtype="float32"), file.samplerate
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{field}: not {kind} that can be read ({error.error_string})") from error


def write_clip(samples: Tensor, rate: int, kind: str) -> bytes:
    """Samples [n] at `rate` Hz as a file. kind: one of `WRITABLE`; pcm16 is raw, at 24 kHz."""
    data = np.clip(torch.nan_to_num(samples.detach().cpu().float()).numpy(), -1, 1)
    if kind == "pcm16":
        return encode(soxr.resample(data, rate, PCM.rate) if len(data) else data, PCM)
    if kind == "opus" and rate not in _OPUS_RATES:
        data, rate = soxr.resample(data, rate, 24_000), 24_000
    container, subtype = _WRITING[kind]
    file = io.BytesIO()
    soundfile.write(file, data, rate, format=container, subtype=subtype)
    return file.getvalue()
