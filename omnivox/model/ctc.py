"""Connectionist temporal classification (Graves et al. 2006): the loss, and the collapse as a streaming module.

Shapes: B batch, T frames, U units, V classes (K units and the blank, class K).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from omnivox.streaming import Chunk


def ctc_nll(logits_BTV: Tensor, frames_B: Tensor, units_BU: Tensor, units_length_B: Tensor, blank: int) -> Tensor:
    """−log P(units | logits) of each row, [B]; a target that does not fit its frames gives 0, as the published code."""
    exact = torch.float32 if logits_BTV.device.type == "mps" else torch.float64  # float32 loses 1e-3 of the gradients
    log_probs = logits_BTV.to(exact).log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(log_probs, units_BU.clamp(min=0), frames_B, units_length_B, blank=blank,
                      reduction="none", zero_infinity=True)


def collapse(classes: Tensor, blank: int) -> Tensor:
    """The units of one whole sequence of classes [T]: merge equal neighbours, then drop blanks."""
    merged: Tensor = torch.unique_consecutive(classes)
    return merged[merged != blank]


@dataclass
class CollapseState:
    """last: [B] the last class seen, the blank at the start."""

    last: Tensor


class CTCCollapse:
    """`collapse` as a streaming module: chunks of classes [B, T] → chunks of units [B, T], packed to the left."""

    def __init__(self, blank: int) -> None:
        self.blank = blank

    def initial_state(self, batch: int, device: torch.device | str = "cpu") -> CollapseState:
        return CollapseState(torch.full((batch,), self.blank, dtype=torch.long, device=device))

    def step(self, x: Chunk, state: CollapseState) -> tuple[Chunk, CollapseState]:
        classes_BT = x.data
        frames = classes_BT.shape[1]
        history = torch.cat([state.last[:, None], classes_BT], 1)
        valid = torch.arange(frames, device=classes_BT.device) < x.length[:, None]
        keep = (classes_BT != history[:, :-1]) & (classes_BT != self.blank) & valid
        slot = torch.where(keep, keep.cumsum(1) - 1, frames)  # what is dropped goes to a bin behind the end
        units = classes_BT.new_full((classes_BT.shape[0], frames + 1), self.blank).scatter_(1, slot, classes_BT)
        state.last.copy_(history.gather(1, x.length[:, None])[:, 0])
        return Chunk(units[:, :frames], keep.sum(1)), state

    def flush(self, state: CollapseState) -> tuple[Chunk, CollapseState]:
        """Nothing is owed: every unit was given as soon as it was seen."""
        empty = state.last.new_empty((state.last.shape[0], 0))
        return Chunk(empty, torch.zeros_like(state.last)), state
