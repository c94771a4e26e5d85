"""What every unit vocoder is: a duration predictor, and a generator that speaks a window of frames.

A generator never sees a stream: it is given a window (frames already spoken, frames to speak, frames still to come) and
answers with the sound of the middle. Offline the middle is the whole utterance; `windowed.StreamingVocoder` slides it.

Shapes: B batch, U units, E embedding, F frames of a window, M frames to speak, S samples per frame, N samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnivox.model.config import DurationConfig
from omnivox.streaming import Chunk


@dataclass
class Window:
    """A stretch of frames of a batch of streams, the same columns for every row.

    units: [B, F] int64, one unit a frame; valid: [B, F] bool, false where the stream has no frame (yet).
    before, speak: columns of left context, and columns to speak after them; what is left is right context.
    position: [B] int64, how many frames were spoken before the first one to speak.
    phase: [B], of the voice's oscillation at that frame's start, in cycles.
    """

    units: Tensor
    valid: Tensor
    before: int
    speak: int
    position: Tensor
    phase: Tensor

    @property
    def after(self) -> int:
        return self.units.shape[1] - self.before - self.speak

    def fit(self, before: int, after: int) -> Window:
        """The same window with exactly so many columns of context, cut or padded with invalid ones."""
        padding = (before - self.before, after - self.after)  # negative: cut
        units, valid = F.pad(self.units, padding), F.pad(self.valid, padding)
        return Window(units, valid, before, self.speak, self.position, self.phase)


@dataclass
class Spoken:
    """samples: [B, M·S]; phase: [B, M + 1], at the start of each frame spoken and at the end of the last."""

    samples: Tensor
    phase: Tensor


def valid_mask(length: Tensor, columns: int) -> Tensor:
    """[B, columns] bool, true before each row's length."""
    return torch.arange(columns, device=length.device) < length[:, None]


def drop_negative(units: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Units [B, U] without negative ones, packed to the left, and how many are left; as the published code."""
    keep = valid_mask(length, units.shape[1]) & (units >= 0)
    order = (~keep).long().argsort(dim=1, stable=True)
    return units.gather(1, order).clamp(min=0), keep.sum(1)


def repeat_units(units: Tensor, durations: Tensor) -> tuple[Tensor, Tensor]:
    """Each unit of [B, U] `durations` [B, U] times, which may be 0: frames [B, F] and how many each row has [B]."""
    ends = durations.cumsum(1)
    count = durations.sum(1)
    frame = torch.arange(int(count.max()) if count.numel() else 0, device=units.device)
    unit = torch.searchsorted(ends, frame.expand(len(units), -1).contiguous(), right=True)
    return units.gather(1, unit.clamp(max=max(0, units.shape[1] - 1))), count


class DurationPredictor(nn.Module):
    """Embedded units [B, U, E] → log(frames + 1) [B, U]: two convolutions with layer norm (FastSpeech 2)."""

    def __init__(self, config: DurationConfig) -> None:
        super().__init__()
        if config.kernel % 2 == 0:
            raise ValueError(f"duration.kernel: found {config.kernel}; expected an odd number")
        pad = config.kernel // 2
        self.reach = 2 * pad  # units that one duration depends on, each side
        self.conv1 = nn.Conv1d(config.embedding_dim, config.hidden_dim, config.kernel, padding=pad)
        self.ln1 = nn.LayerNorm(config.hidden_dim)
        self.conv2 = nn.Conv1d(config.hidden_dim, config.hidden_dim, config.kernel, padding=pad)
        self.ln2 = nn.LayerNorm(config.hidden_dim)
        self.proj = nn.Linear(config.hidden_dim, 1)

    def forward(self, embedded_BUE: Tensor, valid_BU: Tensor) -> Tensor:
        x = embedded_BUE
        for conv, norm in ((self.conv1, self.ln1), (self.conv2, self.ln2)):
            x = conv((x * valid_BU[..., None]).transpose(1, 2)).transpose(1, 2)
            x = norm(F.relu(x))
        return self.proj(x)[..., 0]  # type: ignore[no-any-return]


class Vocoder(nn.Module, ABC):
    """Units to sound.

    units: K; frame_samples: samples per frame; sample_rate: Hz; context: frames to the (left, right) of a frame that
    its sound depends on. `embedding` and `duration` are set by the subclass.
    """

    units: int
    frame_samples: int
    sample_rate: int
    context: tuple[int, int]
    embedding: nn.Embedding
    duration: DurationPredictor

    @abstractmethod
    def speak(self, window: Window) -> Spoken:
        """The sound of the window's middle. Exact where its context reaches `self.context` or the stream's ends."""

    @property
    def phase_dtype(self) -> torch.dtype:
        """Phases add up over a whole stream: in float64, but where the device has none."""
        return torch.float32 if self.embedding.weight.device.type == "mps" else torch.float64

    def log_durations(self, units: Tensor, valid: Tensor) -> Tensor:
        """log(frames + 1) of units [B, U] of which `valid` [B, U] are real."""
        return self.duration(self.embedding(units), valid)  # type: ignore[no-any-return]

    def frames_of(self, log_durations: Tensor) -> Tensor:
        """Whole frames, at least one, of each log duration."""
        return torch.round(torch.exp(log_durations.float()) - 1).clamp(min=1).long()

    def durations(self, units: Tensor, length: Tensor) -> Tensor:
        """Frames [B, U] that each unit of [B, U] lasts; 0 behind a row's length."""
        valid = valid_mask(length, units.shape[1])
        return self.frames_of(self.log_durations(units, valid)).masked_fill(~valid, 0)

    def forward(self, units: Tensor, length: Tensor, durations: Tensor | None = None,
                predict_durations: bool = True) -> Chunk:
        """Samples [B, N] of whole utterances.

        units: [B, U] int64, `length` [B] of them real; negative ones are dropped first.
        durations: [B, U] frames of each unit that is kept; by default predicted, or one each if `predict_durations` is
        false.
        """
        units, length = drop_negative(units, length)
        if durations is None:
            durations = self.durations(units, length) if predict_durations else torch.ones_like(units)
        frames, count = repeat_units(units, durations.masked_fill(~valid_mask(length, units.shape[1]), 0))
        phase = torch.zeros(len(units), dtype=self.phase_dtype, device=units.device)
        window = Window(frames, valid_mask(count, frames.shape[1]), 0, frames.shape[1], torch.zeros_like(count), phase)
        return Chunk(self.speak(window).samples, count * self.frame_samples)


def vocode_alone(vocoder: Vocoder, chunks: Sequence[Tensor]) -> list[Tensor]:
    """Each chunk of units [U] synthesised on its own, as the published demo streams, seams and all."""
    return [vocoder(chunk[None], torch.tensor([len(chunk)], device=chunk.device)).row(0) for chunk in chunks]
