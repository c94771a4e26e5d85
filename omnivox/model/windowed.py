"""Any unit vocoder as a streaming module: units in, sound out, equal to the offline waveform wherever it is cut.

    units heard ─► durations, once both neighbourhoods are known ─► frames ─► a window ─► the sound of its middle

A unit's duration is settled when the units that it depends on have come (or never will), so durations always equal the
offline ones. A frame is spoken when `lookahead` frames behind it are there; the frames before it are always kept.

Shapes: B batch, U units, R units that a duration depends on (each side), L left context and P lookahead in frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from omnivox.model.vocoder import Vocoder, Window, drop_negative, repeat_units
from omnivox.streaming import Chunk


@dataclass
class VocoderState:
    """units: [B, 2R] the last ones heard, newest last; heard: [B] how many in all.
    frames: [B, L + P], those spoken last, then those that wait; spoken, waiting: [B] how many of each.
    phase: [B] of the voice at the next frame, in cycles."""

    units: Tensor
    heard: Tensor
    frames: Tensor
    spoken: Tensor
    waiting: Tensor
    phase: Tensor


class StreamingVocoder:
    """Slides a window over a vocoder's frames.

    lookahead: frames of right context to wait for. At the vocoder's own (the default, and the most that is waited for)
    the stream equals the offline waveform to rounding; less answers sooner and costs accuracy near the cuts, never
    length.
    """

    def __init__(self, vocoder: Vocoder, lookahead: int | None = None) -> None:
        if lookahead is not None and lookahead < 0:
            raise ValueError(f"lookahead: found {lookahead}; expected 0 or more frames")
        self.vocoder = vocoder
        self.lookahead = vocoder.context[1] if lookahead is None else min(lookahead, vocoder.context[1])
        self.reach = vocoder.duration.reach

    def initial_state(self, batch: int) -> VocoderState:
        device = self.vocoder.embedding.weight.device

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(batch, *shape, dtype=torch.long, device=device)

        frames = zeros(self.vocoder.context[0] + self.lookahead)
        phase = zeros().to(self.vocoder.phase_dtype)
        return VocoderState(zeros(2 * self.reach), zeros(), frames, zeros(), zeros(), phase)

    @torch.no_grad()
    def step(self, x: Chunk, state: VocoderState) -> tuple[Chunk, VocoderState]:
        """Units [B, U] int64 (negative ones are dropped) → samples [B, N]."""
        ending = torch.zeros_like(state.heard, dtype=torch.bool)
        return self._advance(*drop_negative(x.data, x.length), state, ending)

    @torch.no_grad()
    def flush(self, state: VocoderState, rows: Tensor | None = None) -> tuple[Chunk, VocoderState]:
        """What `rows` ([B] bool, by default all) are still owed; they are fresh afterwards. Others give 0 samples."""
        ending = torch.ones_like(state.heard, dtype=torch.bool) if rows is None else rows
        chunk, state = self._advance(state.units[:, :0], torch.zeros_like(state.heard), state, ending)
        for leaf in (state.units, state.heard, state.frames, state.spoken, state.waiting, state.phase):
            leaf[ending] = 0
        return chunk, state

    def _advance(self, units: Tensor, length: Tensor, state: VocoderState,
                 ending: Tensor) -> tuple[Chunk, VocoderState]:
        fresh, fresh_count = self._settle(units, length, state, ending)
        left, size = self.vocoder.context[0], state.frames.shape[1]
        # Row b's fresh frames follow its waiting ones: columns of [kept | fresh] are read around the gap between.
        column = torch.arange(size + fresh.shape[1], device=fresh.device)
        gap = (self.lookahead - state.waiting)[:, None]
        source = torch.where(column < left + state.waiting[:, None], column, (column + gap).clamp(max=len(column) - 1))
        frames = torch.cat([state.frames, fresh], 1).gather(1, source)
        total = state.waiting + fresh_count
        count = torch.where(ending, total, (total - self.lookahead).clamp(min=0))
        samples, phase = self._speak(frames, total, count, state)

        state.phase.copy_(phase)
        state.spoken.add_(count)
        state.waiting.copy_(total - count)
        column = torch.arange(size, device=fresh.device)
        kept = frames.gather(1, (count[:, None] + column).clamp(max=frames.shape[1] - 1))
        state.frames.copy_(kept.masked_fill(~self._filled(state, state.waiting, size), 0))
        return Chunk(samples, count * self.vocoder.frame_samples), state

    def _settle(self, units: Tensor, length: Tensor, state: VocoderState, ending: Tensor) -> tuple[Tensor, Tensor]:
        """The frames [B, F] of the units whose durations can now be known, and how many each row has."""
        reach = self.reach
        known = torch.cat([state.units, units], 1)
        column = torch.arange(known.shape[1], device=known.device)
        end = (2 * reach + length)[:, None]
        valid = (column >= (2 * reach - state.heard)[:, None]) & (column < end)
        settled = valid & (column >= reach) & (column < torch.where(ending[:, None], end, end - reach))
        durations = self.vocoder.frames_of(self.vocoder.log_durations(known, valid)).masked_fill(~settled, 0)
        state.units.copy_(known.gather(1, length[:, None] + column[: 2 * reach]))
        state.heard.add_(length)
        return repeat_units(known, durations)

    def _filled(self, state: VocoderState, ahead: Tensor, columns: int) -> Tensor:
        """[B, columns], where frames are: those spoken, up to the left context, and `ahead` to come."""
        left = self.vocoder.context[0]
        column = torch.arange(columns, device=ahead.device)
        return (column >= (left - state.spoken)[:, None]) & (column < (left + ahead)[:, None])

    def _speak(self, frames: Tensor, total: Tensor, count: Tensor, state: VocoderState) -> tuple[Tensor, Tensor]:
        """The sound of each row's first `count` waiting frames, and the phase behind them."""
        speak = int(count.max()) if count.numel() else 0
        if not speak:
            return self.vocoder.embedding.weight.new_zeros(len(count), 0), state.phase
        left, right = self.vocoder.context
        columns = min(frames.shape[1], left + speak + right)
        valid = self._filled(state, total, columns)
        spoken = self.vocoder.speak(Window(frames[:, :columns], valid, left, speak, state.spoken, state.phase))
        return spoken.samples, spoken.phase.gather(1, count[:, None])[:, 0]
