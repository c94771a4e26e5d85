"""Sound files in and out: any format libsndfile reads becomes mono float32 at the rate asked for."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from omnivox.errors import AudioError
from omnivox.rates import SAMPLE_RATE
from omnivox.writing import atomic

MAX_SECONDS = 600.0  # longer questions are refused before they are decoded
LOUDEST = 100.0  # 40 dB above full scale: beyond, somebody took other numbers for samples


def read_audio(source: str | Path | np.ndarray | Tensor, rate: int = SAMPLE_RATE, *,
               source_rate: int | None = None, max_seconds: float = MAX_SECONDS) -> Tensor:
    """Mono float32 samples [n] at `rate` Hz.

    source: a path to anything libsndfile decodes (wav of any width, flac, mp3, ogg), or samples already decoded, [n] or
    [n, channels], floats in -1..1 or integers at their own full scale, taken to be at `source_rate` (default: `rate`).

    Raises AudioError: not a sound file, empty, longer than `max_seconds`, or samples that are not finite, far beyond
    full scale, or [channels, n].
    """
    if isinstance(source, str | Path):
        name, samples, found = str(source), *_decode(Path(source), max_seconds)
    else:
        if source_rate is not None and source_rate <= 0:
            raise AudioError(f"source_rate: found {source_rate}; expected samples per second")
        name, samples, found = "audio", _as_float(source), source_rate or rate
    if samples.ndim not in (1, 2):
        raise AudioError(f"{name}: samples have shape {samples.shape}; expected [n] or [n, channels]")
    if not samples.size:
        raise AudioError(f"{name}: holds no samples; expected some speech")
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    if len(samples) > max_seconds * found:
        raise AudioError(f"{name}: lasts {len(samples) / found:,.0f} s; at most {max_seconds:,.0f} s are read")
    if bad := int(np.count_nonzero(~np.isfinite(samples))):
        raise AudioError(f"{name}: {bad} of {len(samples)} samples are NaN or infinite; expected finite numbers")
    if (peak := float(np.abs(samples).max())) > LOUDEST:
        raise AudioError(f"{name}: samples reach {peak:,.6g}; expected floats in -1..1 "
                         "(16-bit numbers kept as floats: divide them by 32768)")
    if found != rate:
        samples = soxr.resample(samples, found, rate)
    return torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))


def _decode(path: Path, max_seconds: float) -> tuple[np.ndarray, int]:
    if not path.exists():
        raise AudioError(f"{path}: no such file")
    if path.is_dir():
        raise AudioError(f"{path}: is a folder; expected a sound file")
    try:
        with soundfile.SoundFile(path) as file:
            if file.frames > max_seconds * file.samplerate:
                seconds = file.frames / file.samplerate
                raise AudioError(f"{path}: lasts {seconds:,.0f} s; at most {max_seconds:,.0f} s are read")
            frames = -1 if file.seekable() else file.frames  # it cannot find the end of GSM 6.10
            return file.read(frames, dtype="float32"), file.samplerate
    except TypeError as error:  # soundfile takes files that end in .raw for samples without a header
        raise AudioError(f"{path}: has no header that tells rate and format; expected wav, flac, mp3 or ogg") from error
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: not a sound file that can be read ({error.error_string}); "
                         "expected wav, flac, mp3 or ogg") from error


def _as_float(source: np.ndarray | Tensor) -> np.ndarray:
    if isinstance(source, Tensor):
        source = source.detach().cpu()
        source = (source.float() if source.is_floating_point() else source).numpy()  # numpy has no bfloat16
    samples = np.asarray(source)
    if samples.ndim == 2 and 0 < samples.shape[0] < samples.shape[1]:  # as torchaudio gives them
        raise AudioError(f"audio: samples have shape {samples.shape}; expected [n] or [n, channels]: transpose them")
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if np.issubdtype(samples.dtype, np.signedinteger):
        return samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    if np.issubdtype(samples.dtype, np.floating):
        with np.errstate(over="ignore"):  # what is too large for float32 is infinite, and refused as such
            return samples.astype(np.float32)
    raise AudioError(f"audio: samples are {samples.dtype}; expected floats in -1..1 or signed integers")


def write_wav(path: str | Path, samples: Tensor | np.ndarray, rate: int) -> None:
    """Write mono samples [n] in -1..1 as 16-bit wav, whole or not at all. Raises OSError naming `path`."""
    data = samples.detach().cpu().float().numpy() if isinstance(samples, Tensor) else samples
    encoded = io.BytesIO()  # libsndfile itself neither says why it could not write nor writes to a pipe
    soundfile.write(encoded, np.clip(data, -1.0, 1.0), rate, subtype="PCM_16", format="WAV")
    with atomic(path) as place:
        place.write_bytes(encoded.getvalue())
