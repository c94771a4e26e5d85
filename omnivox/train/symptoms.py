"""What makes stage 2 fail for those who build it anew, each noticed and explained; docs/stage2-symptoms.md tells more.

Shapes: M LLM states of an answer, D LLM width, U units.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from omnivox.errors import DataError

log = logging.getLogger(__name__)
SURE = 1.0  # nats by which states must fit the wrong labels better, to be called misaligned
QUIET = 0.1  # units decoded, over units to be said, under which a decoder has collapsed to the blank


def wrong_units(units: Tensor, known: int) -> str | None:
    """Why units [U] cannot be a target for a decoder that knows 0 to `known` − 1; None where they can."""
    if not len(units):
        return "has no units"
    least, most = int(units.min()), int(units.max())
    if least < 0:
        return f"holds the unit {least}: padding is in the target; cut it off before the data set is written"
    if most >= known:
        return (f"holds the unit {most}; the decoder knows 0 to {known - 1}: these are another quantiser's units, or "
                "the padding value is in the target")
    merged, counts = torch.unique_consecutive(units, return_counts=True)
    if len(merged) == len(units):
        return None
    if int((counts > 1).sum()) == 1 and counts[-1] > 1:
        return (f"ends with {int(counts[-1])} times the unit {int(units[-1])}: padding is in the target; cut it off "
                "before the data set is written")
    return f"has {len(units) - len(merged)} units equal to the one before: repeats are not merged; quantise it again"


def too_long(units: int, states: int, upsample: int) -> str | None:
    """Why so many units cannot come out of so many states; None where they can."""
    if units <= upsample * states:
        return None
    return (f"has {units} units for {states} tokens; at most {upsample} a token, {upsample * states}, can be said: "
            f"raise decoder.upsample to {-(-units // states)} or more, merge repeats, or leave such rows out")


@dataclass
class Alignment:
    """Which labels the fed states predict: their own, as the paper's do, or the next, as the released trainer's do."""

    own: float = 0.0
    next: float = 0.0
    count: int = 0

    @torch.no_grad()
    def add(self, states_MD: Tensor, labels_M: Tensor, head: Any) -> None:
        """An answer's states and tokens; head: the LLM's output layer."""
        if len(labels_M) < 3:
            return
        logits = head(states_MD.to(head.weight)).float()
        self.own += float(F.cross_entropy(logits[1:-1], labels_M[1:-1], reduction="sum"))
        self.next += float(F.cross_entropy(logits[1:-1], labels_M[2:], reduction="sum"))
        self.count += len(labels_M) - 2

    def check(self, fed: str) -> None:
        """Raises DataError where the states are surely not those that are meant."""
        if not self.count:
            return
        right, wrong = (self.own, self.next) if fed == "predicting" else (self.next, self.own)
        if (right - wrong) / self.count > SURE:
            raise DataError(
                f"states: are meant to be {fed!r} but predict the {'next' if fed == 'predicting' else 'same'} token "
                f"({wrong / self.count:.2f} nats against {right / self.count:.2f}): they are one position off. Speech "
                "would lag behind the text; compute them again, or set stage2.states_fed to what they are")


@dataclass
class BlankMonitor:
    """Warns, once, when a decoder says almost nothing long after it began to learn.

    patience: steps that every CTC begins with, all blank.
    """

    patience: int
    warned: bool = field(default=False)

    def __call__(self, step: int, means: Mapping[str, float]) -> None:
        """Means of a step: "said" (units decoded, over units to be said), "blank_share" (of frames), "loss"."""
        if self.warned or step < self.patience or means["said"] >= QUIET:
            return
        self.warned = True
        log.warning(
            "stage 2, step %d: %.0f%% of frames are blank and only %.0f%% of the units are said, with the loss at %.2f "
            "a unit: the decoder has collapsed to the blank. Likely causes, the first the likeliest: a learning rate "
            "that is too high or has no warm-up (stage2.lr, stage2.warmup); states and units of different answers "
            "(listen to a few rows); states one position off (stage2.states_fed); padding in the units; a data set of "
            "a few hundred answers. See docs/stage2-symptoms.md",
            step, 100 * means["blank_share"], 100 * means["said"], means["loss"])
