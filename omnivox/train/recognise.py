"""Trains a speech encoder from nothing: phones by CTC, at the top and half-way up (Lee & Watanabe 2021).

Shapes: B batch, N samples, T mel frames, C mel bins, S encoder frames, P phones.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnivox.model.config import EncoderConfig
from omnivox.model.ctc import collapse, ctc_nll
from omnivox.model.encoder import Encoder
from omnivox.model.mel import compress, mel_filters, power_spectrogram
from omnivox.nano.rooms import augment, warp_mel_filters
from omnivox.nano.speak import PHONES
from omnivox.train.loop import Losses, Run, Schedule, train


class Spoken(Protocol):
    """What training needs of an utterance."""

    @property
    def audio(self) -> np.ndarray: ...
    @property
    def phones(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class RecogniseConfig:
    """How the bundled model's encoder is trained."""

    encoder: EncoderConfig
    schedule: Schedule
    batch: int = 32
    pool: int = 8  # batches that are sorted by length together
    warp: float = 0.2  # vocal tract lengths from 1 - warp to 1 + warp ...
    gentle: float = 0.3  # ... reached, with the full strength of rooms and noises, after this share of the steps
    half_weight: float = 0.3  # of the loss half-way up
    seed: int = 0
    threads: int = 1
    warps: tuple[float, ...] = field(default=tuple(round(-1 + i / 8, 3) for i in range(17)))


class Recogniser(nn.Module):
    """The encoder with two heads over phones and the blank (the last class)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.head = nn.Linear(config.width, len(PHONES) + 1)
        self.middle = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, len(PHONES) + 1))

    def forward(self, mel_BTC: Tensor, length_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits at the top and half-way up, [B, S, P + 1] each, and their lengths [B]."""
        kept: list[Tensor] = []
        middle = self.encoder.blocks[len(self.encoder.blocks) // 2]
        hook = middle.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
        try:
            top, frames = self.encoder(mel_BTC, length_B)
        finally:
            hook.remove()
        return self.head(top), self.middle(kept[0]), frames


class MelBatches:
    """Waveforms → augmented log-mel batches; everything random comes from the generators given."""

    def __init__(self, n_mels: int, warps: Sequence[float] = (0.0,), warp: float = 0.0) -> None:
        plain = mel_filters(n_mels)
        self.plain = plain
        self.warped = [warp_mel_filters(plain, 1 + warp * share) for share in warps]
        self.warps = list(warps)

    def mel(self, wave_N: Tensor, rng: random.Random | None = None, strength: float = 0.0) -> Tensor:
        """Log-mel [T, C] of one waveform; with `rng` as if spoken by another head."""
        filters = self.plain
        if rng is not None:
            reachable = [f for f, share in zip(self.warped, self.warps, strict=True) if abs(share) <= strength + 1e-6]
            filters = rng.choice(reachable)
        if len(wave_N) < 400:
            wave_N = F.pad(wave_N, (0, 400 - len(wave_N)))
        return compress(filters @ power_spectrogram(wave_N[None]))[0].T


def pad(rows: Sequence[Tensor], value: float = 0) -> tuple[Tensor, Tensor]:
    """Rows [T_b, ...] padded on the right to [B, T, ...], and their lengths [B]."""
    lengths = torch.tensor([len(row) for row in rows])
    return nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value), lengths


def mask_mel(mel_TC: Tensor, rng: random.Random, strength: float) -> Tensor:
    """SpecAugment (Park et al. 2019): two stripes of time and two of frequency are set to the mean."""
    mel_TC = mel_TC.clone()
    mean = mel_TC.mean()
    for _ in range(2):
        width = rng.randint(0, int(12 * strength))
        start = rng.randrange(max(1, mel_TC.shape[1] - width))
        mel_TC[:, start : start + width] = mean
        width = rng.randint(0, int(min(20, mel_TC.shape[0] // 8) * strength))
        start = rng.randrange(max(1, mel_TC.shape[0] - width))
        mel_TC[start : start + width] = mean
    return mel_TC


def pick(lengths: Sequence[int], batch: int, pool: int, rng: random.Random) -> list[int]:
    """Indices of one batch of neighbours in length, out of a random pool."""
    chosen = sorted((rng.randrange(len(lengths)) for _ in range(batch * pool)), key=lambda i: lengths[i])
    start = rng.randrange(pool) * batch
    return chosen[start : start + batch]


def edit_distance(a: Sequence[int], b: Sequence[int]) -> int:
    """Levenshtein distance."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        above, row[0] = row[0], i + 1
        for j, y in enumerate(b):
            above, row[j + 1] = row[j + 1], min(row[j + 1] + 1, row[j] + 1, above + (x != y))
    return row[-1]


def phone_error_rate(model: Recogniser, utterances: Sequence[Spoken], batch: int = 16) -> float:
    """Edits per phone of the greedy decoding."""
    index = {phone: i for i, phone in enumerate(PHONES)}
    mels = MelBatches(model.encoder.config.n_mels)
    edits = total = 0
    with torch.inference_mode():
        for start in range(0, len(utterances), batch):
            part = [utterances[i] for i in range(start, min(len(utterances), start + batch))]
            mel, length = pad([mels.mel(torch.from_numpy(np.asarray(u.audio))) for u in part])
            logits, _, frames = model(mel, length)
            for b, utterance in enumerate(part):
                heard = collapse(logits[b, : frames[b]].argmax(-1), len(PHONES)).tolist()
                said = [index[p] for p in utterance.phones]
                edits += edit_distance(heard, said)
                total += len(said)
    return edits / max(1, total)


def train_recogniser(corpus: Sequence[Spoken], lengths: Sequence[int], out: Path, config: RecogniseConfig,
                     held: dict[str, Sequence[Spoken]] | None = None) -> Recogniser:
    """Train (or resume) in `out`; `lengths`: samples of each utterance; `held` names exams for the phone error rate."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    model = Recogniser(config.encoder)
    run = Run(out, {"recogniser": model}, config.schedule, config)
    mels = MelBatches(config.encoder.n_mels, config.warps, config.warp)
    index = {phone: i for i, phone in enumerate(PHONES)}

    def losses(step: int) -> Losses:
        rng = random.Random(f"{config.seed} {step}")
        generator = torch.Generator().manual_seed(rng.getrandbits(60))
        strength = min(1.0, 0.2 + 0.8 * step / max(1.0, config.gentle * config.schedule.steps))
        rows, targets = [], []
        for i in pick(lengths, config.batch, config.pool, rng):
            utterance = corpus[i]
            wave = augment(torch.from_numpy(np.asarray(utterance.audio)), generator, strength)
            rows.append(mask_mel(mels.mel(wave, rng, strength), rng, strength))
            targets.append(torch.tensor([index[p] for p in utterance.phones]))
        mel, length = pad(rows)
        target, target_length = pad(targets)
        top, half, frames = model(mel, length)
        scale = target_length.sum()
        top_loss = ctc_nll(top, frames, target, target_length, len(PHONES)).sum() / scale
        half_loss = ctc_nll(half, frames, target, target_length, len(PHONES)).sum() / scale
        return {"loss": top_loss + config.half_weight * half_loss, "top": top_loss, "half": half_loss}

    def evaluate() -> dict[str, float]:
        model.eval()
        rates = {f"per_{name}": round(phone_error_rate(model, part), 4) for name, part in (held or {}).items()}
        model.train()
        return rates

    train(run, losses, evaluate if held else None)
    return model
