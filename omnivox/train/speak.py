"""Stage 2 of any model (LLaMA-Omni, §2.5): the speech decoder alone, by CTC, on states that are frozen.

Shapes: B answers, M LLM states, D LLM width, U units, T frames (λ·M).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from omnivox.model.ctc import collapse
from omnivox.model.speech_decoder import Layer, SpeechDecoder
from omnivox.model.vocoder import Vocoder
from omnivox.sound import write_wav
from omnivox.train.settings import Stage2Settings
from omnivox.train.states import Spoken, SpokenStates
from omnivox.train.symptoms import BlankMonitor
from omnivox.train.trainer import Task
from omnivox.writing import atomic


@dataclass
class SpokenAnswers:
    """states [B, M, D], units [B, U] and their lengths [B]."""

    names: tuple[str, ...]
    states: Tensor
    length: Tensor
    units: Tensor
    units_length: Tensor
    bad: tuple[tuple[str, str], ...] = ()

    @property
    def count(self) -> int:
        """Units to be said."""
        return int(self.units_length.sum())

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        moved: dict[str, Any] = {name: value.to(device) for name, value in vars(self).items()
                                 if isinstance(value, Tensor)}
        return replace(self, **moved)


def gather(rows: Sequence[Spoken]) -> SpokenAnswers:
    """Pad on the right."""
    return SpokenAnswers(
        tuple(row.name for row in rows),
        pad_sequence([row.states for row in rows], batch_first=True), torch.tensor([len(row.states) for row in rows]),
        pad_sequence([row.units for row in rows], batch_first=True), torch.tensor([len(row.units) for row in rows]))


class Speaking(nn.Module):
    """What learns to speak: a speech decoder."""

    def __init__(self, decoder: SpeechDecoder, settings: Stage2Settings) -> None:
        super().__init__()
        self.decoder = decoder.float().requires_grad_(True)
        self.noise = settings.state_noise

    def forward(self, batch: SpokenAnswers, classes: bool = False) -> dict[str, Tensor]:
        """Σ −log p of the units; frames that are likeliest blank, of all; units that a greedy decoding says.

        classes: the likeliest class of each frame [B, T] instead, as "classes"."""
        states = batch.states.float()
        if self.training and self.noise:
            states = states + self.noise * states.std() * torch.randn_like(states)
        frames = self.decoder.config.upsample * batch.length
        if classes:
            return {"classes": self.decoder(states, batch.length, frames).argmax(-1)}
        frames = torch.maximum(frames, batch.units_length)
        logits = self.decoder(states, batch.length, frames)
        with torch.autocast(logits.device.type, enabled=False):
            log_probs = logits.float().log_softmax(-1)
            nll = F.ctc_loss(log_probs.transpose(0, 1), batch.units, frames, batch.units_length,
                             blank=self.decoder.blank, reduction="sum", zero_infinity=True)
        return {"loss": nll, **_heard(logits.detach().argmax(-1), frames, self.decoder.blank)}


def _heard(classes_BT: Tensor, frames_B: Tensor, blank: int) -> dict[str, Tensor]:
    valid = torch.arange(classes_BT.shape[1], device=frames_B.device) < frames_B[:, None]
    first = F.pad(classes_BT[:, 1:] != classes_BT[:, :-1], (1, 0), value=True)
    silent = classes_BT == blank
    return {"blank_share": (silent & valid).sum().float(), "blank_share_of": valid.sum().float(),
            "said": (first & ~silent & valid).sum().float()}


class Answers:
    """Batches out of states. It travels to loading processes by pickle."""

    def __init__(self, states: SpokenStates, numbers: Sequence[int]) -> None:
        self.states, self.numbers = states, numbers

    @property
    def lengths(self) -> list[float]:
        """In states."""
        sizes = self.states.sizes
        return [float(sizes[number][0]) for number in self.numbers]

    def __call__(self, rows: Sequence[int]) -> SpokenAnswers:
        return gather(self.states.rows([self.numbers[row] for row in rows]))


def speaking_task(decoder: SpeechDecoder, train: Answers, held: Answers, settings: Stage2Settings,
                  vocoder: Vocoder | None = None) -> Task:
    """Stage 2 as the trainer wants it. vocoder: to hear samples; without one their units are written down."""
    module = Speaking(decoder, settings)

    def held_batches() -> Iterator[SpokenAnswers]:
        for start in range(0, len(held.numbers), settings.micro_batch):
            yield held(range(start, min(start + settings.micro_batch, len(held.numbers))))

    def show(folder: Path) -> None:
        write_speech(module, held, min(settings.samples, len(held.numbers)), vocoder, folder)

    some: Callable[[], Iterator[SpokenAnswers]] | None = held_batches if held.numbers else None
    return Task(module, train, train.lengths, some, (Layer,), show if held.numbers else None,
                BlankMonitor(settings.blank_patience))


@torch.no_grad()
def write_speech(module: Speaking, held: Answers, count: int, vocoder: Vocoder | None, folder: Path) -> None:
    """Held-out answers, spoken from their states: sound where there is a vocoder, and units."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        batch = held([number]).to(next(module.parameters()).device)
        units = collapse(module(batch, classes=True)["classes"][0], module.decoder.blank).cpu()
        with atomic(folder / f"{batch.names[0]}.txt") as path:
            path.write_text(" ".join(map(str, units.tolist())) + "\n")
        if vocoder is not None and len(units):
            place = next(vocoder.parameters()).device
            sound = vocoder(units[None].to(place), torch.tensor([len(units)], device=place))
            write_wav(folder / f"{batch.names[0]}.wav", sound.row(0).float(), vocoder.sample_rate)
