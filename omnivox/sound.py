"""Sound files in and out: any format libsndfile reads becomes mono float32 at the rate asked for."""

from __future__ import annotations

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


def read_audio(source: str | Path | np.ndarray | Tensor, rate: int = SAMPLE_RATE, *,
               source_rate: int | None = None, max_seconds: float = MAX_SECONDS) -> Tensor:
    """Mono float32 samples [n] at `rate` Hz.

    source: a path to anything libsndfile decodes (wav of any width, flac, mp3, ogg), or samples already decoded, [n] or
    [n, channels], floats in -1..1 or integers at their own full scale, taken to be at `source_rate` (default: `rate`).

    Raises AudioError: not a sound file, empty, longer than `max_seconds`, or samples that are not finite.
    """
    if isinstance(source, str | Path):
        name, samples, found = str(source), *_decode(Path(source), max_seconds)
    else:
        if source_rate is not None and source_rate <= 0:
            raise AudioError(f"source_rate: found {source_rate}; expected samples per second")
        name, samples, found = "audio", _as_float(source), source_rate or rate
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    if samples.ndim != 1:
        raise AudioError(f"{name}: samples have shape {samples.shape}; expected [n] or [n, channels]")
    if not len(samples):
        raise AudioError(f"{name}: holds no samples; expected some speech")
    if len(samples) > max_seconds * found:
        raise AudioError(f"{name}: lasts {len(samples) / found:,.0f} s; at most {max_seconds:,.0f} s are read")
    if bad := int(np.count_nonzero(~np.isfinite(samples))):
        raise AudioError(f"{name}: {bad} of {len(samples)} samples are NaN or infinite; expected finite numbers")
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
            return file.read(dtype="float32", always_2d=False), file.samplerate
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: not a sound file that can be read ({error.error_string}); "
                         "expected wav, flac, mp3 or ogg") from error


def _as_float(source: np.ndarray | Tensor) -> np.ndarray:
    if isinstance(source, Tensor):
        source = source.detach().cpu()
        source = (source.float() if source.is_floating_point() else source).numpy()  # numpy has no bfloat16
    samples = np.asarray(source)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if np.issubdtype(samples.dtype, np.signedinteger):
        return samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    if np.issubdtype(samples.dtype, np.floating):
        return samples.astype(np.float32)
    raise AudioError(f"audio: samples are {samples.dtype}; expected floats in -1..1 or signed integers")


def write_wav(path: str | Path, samples: Tensor | np.ndarray, rate: int) -> None:
    """Write mono samples [n] in -1..1 as 16-bit wav, beside and then renamed."""
    data = samples.detach().cpu().float().numpy() if isinstance(samples, Tensor) else samples
    with atomic(path) as temporary:
        soundfile.write(temporary, np.clip(data, -1.0, 1.0), rate, subtype="PCM_16", format="WAV")
