"""Trains a speech encoder by CTC: on phones below its top (Lee & Watanabe 2021), on words behind the adaptor.

The words' classes are the embeddings that the LLM reads, so that a spoken word arrives where the written one lies.

Shapes: B batch, N samples, T mel frames, C mel bins, S encoder frames, P LLM positions, D LLM width, V words.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnivox.model.adaptor import Adaptor
from omnivox.model.config import AdaptorConfig, EncoderConfig
from omnivox.model.ctc import collapse
from omnivox.model.encoder import Encoder
from omnivox.model.mel import compress, mel_filters, power_spectrogram
from omnivox.nano.rooms import augment, warp_mel_filters
from omnivox.nano.speak import PHONES
from omnivox.nano.words import BLANK, UNKNOWN
from omnivox.train.loop import Losses, Run, Schedule, fast_precision, prepared, train


class Spoken(Protocol):
    """What training needs of an utterance."""

    @property
    def text(self) -> str: ...
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
    gentle: float = 0.9  # ... reached, with the full strength of rooms and noises, after this share of the steps
    mixed: bool = False  # each utterance draws its strength evenly, from none to that of the step
    phone_layer: int = 4  # blocks below the phones
    phone_weight: tuple[float, float] = (1.5, 0.3)  # at first, and from half-way on, when words are to be learned
    sharpness: float = 20.0  # of the words' classes, at first
    others: int = 600  # words that compete with those of a batch
    seed: int = 0
    threads: int = 1
    warps: tuple[float, ...] = field(default=tuple(round(-1 + i / 8, 3) for i in range(17)))


class Recogniser(nn.Module):
    """The encoder with a head over phones and the blank (the last class), and the adaptor with one over words.

    table: embeddings [V, D] of the LLM's words, `blank` the one that stands where no word ends; they do not move.
    A word's logit falls with the distance of a position from its embedding: −½ sharpness · |position − embedding|².
    """

    def __init__(self, config: RecogniseConfig, adaptor: AdaptorConfig, table: Tensor, blank: int) -> None:
        super().__init__()
        width = config.encoder.width
        self.encoder, self.adaptor = Encoder(config.encoder), Adaptor(adaptor)
        self.phones = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(PHONES) + 1))
        self.sharpness = nn.Parameter(torch.tensor(config.sharpness))
        self.phone_layer, self.blank = config.phone_layer, blank
        self.register_buffer("table", table.detach().clone(), persistent=False)
        self.register_buffer("same", same_rows(table), persistent=False)
        with torch.no_grad():
            self.adaptor.linear2.bias.copy_(0.8 * table[blank])  # most positions end no word

    def forward(self, mel_BTC: Tensor, length_B: Tensor, classes: Tensor | None = None
                ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits over phones [B, S, 41] and words [B, P, V], each followed by its lengths [B].

        classes: the words in question [V]; all if None.
        """
        phones, frames, speech, positions = self.hear(mel_BTC, length_B)
        return phones, frames, self.words(speech, classes), positions

    def hear(self, mel_BTC: Tensor, length_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits over phones [B, S, 41] and what the LLM reads [B, P, D], each followed by its lengths [B]."""
        kept: list[Tensor] = []
        above = self.encoder.blocks[self.phone_layer]
        hook = above.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
        try:
            top, frames = self.encoder(mel_BTC, length_B)
        finally:
            hook.remove()
        return self.phones(kept[0]), frames, *self.adaptor(top, frames)

    def words(self, speech_BPD: Tensor, classes: Tensor | None = None) -> Tensor:
        """Logits over words [B, P, V] of what the LLM reads."""
        table = self.get_buffer("table")
        table = table if classes is None else table[classes]
        return (self.sharpness * speech_BPD) @ table.T - (0.5 * self.sharpness) * table.square().sum(1)

    def classes(self, rows: Mapping[str, int]) -> dict[str, int]:
        """The class of each word, by its row: one for all that sound the same."""
        same = self.get_buffer("same").tolist()
        return {word: same[row] for word, row in rows.items()}


def same_rows(table: Tensor) -> Tensor:
    """For each row of [V, D] the first that equals it, [V]: words that sound the same are one class."""
    kinds = table.unique(dim=0, return_inverse=True)[1].tolist()
    first: dict[int, int] = {}
    return torch.tensor([first.setdefault(kind, row) for row, kind in enumerate(kinds)])


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


@dataclass
class Batch:
    """mel: [B, T, C]; phones, words: the targets [B, ·], padded on the right; each followed by its lengths [B].

    chosen: which utterances these are.
    classes: [V] the words that compete, the blank first; `words` are indices into it. weight: log of how many words of
    the whole vocabulary each stands for, [V].
    """

    chosen: list[int]
    mel: Tensor
    length: Tensor
    phones: Tensor
    phone_count: Tensor
    words: Tensor
    word_count: Tensor
    classes: Tensor
    weight: Tensor


class Batches:
    """The batch of each step."""

    def __init__(self, corpus: Sequence[Spoken], lengths: Sequence[int], config: RecogniseConfig,
                 words: Mapping[str, int], unknown: int, blank: int) -> None:
        self.corpus, self.lengths, self.config, self.words, self.unknown = corpus, lengths, config, words, unknown
        self.blank = blank
        self.rivals = sorted({*words.values()} - {blank})
        self.mels = MelBatches(config.encoder.n_mels, config.warps, config.warp)

    def at(self, step: int) -> Batch:
        """Of step `step`, in rooms and noises that grow worse at first."""
        config, rng = self.config, random.Random(f"{self.config.seed} {step}")
        generator = torch.Generator().manual_seed(rng.getrandbits(60))
        worst = min(1.0, 0.2 + 0.8 * step / max(1.0, config.gentle * config.schedule.steps))
        rows, phones, words = [], [], []
        chosen = pick(self.lengths, config.batch, config.pool, rng)
        spoken = [self.corpus[i] for i in chosen]
        waves = [torch.from_numpy(np.asarray(utterance.audio)) for utterance in spoken]
        for place, (utterance, wave) in enumerate(zip(spoken, waves, strict=True)):
            strength = worst * rng.random() if config.mixed else worst
            wave = augment(wave, generator, strength, waves[:place] + waves[place + 1:])
            rows.append(mask_mel(self.mels.mel(wave, rng, strength), rng, strength))
            phones.append(torch.tensor(phone_ids(utterance)))
            words.append(word_ids(utterance, self.words, self.unknown))
        said = {word for row in words for word in row}
        own, rest = sorted(said), [word for word in self.rivals if word not in said]
        others = rng.sample(rest, min(len(rest), config.others))
        classes = [self.blank, *own, *others]
        index = {word: i for i, word in enumerate(classes)}
        weight = torch.zeros(len(classes))
        weight[1 + len(own):] = math.log(len(rest) / max(1, len(others)))
        targets = [torch.tensor([index[word] for word in row]) for row in words]
        return Batch(chosen, *pad(rows), *pad(phones), *pad(targets), torch.tensor(classes), weight)


def phone_ids(utterance: Spoken) -> list[int]:
    """Indices into PHONES."""
    return [PHONES.index(phone) for phone in utterance.phones]


def word_ids(utterance: Spoken, words: Mapping[str, int], unknown: int) -> list[int]:
    """Token ids of what is said; words that the LLM does not know are all one."""
    return [words.get(word, unknown) for word in utterance.text.lower().split()]


def error_rates(model: Recogniser, utterances: Sequence[Spoken], words: Mapping[str, int], unknown: int,
                batch: int = 16) -> tuple[float, float]:
    """Edits per phone and per word of the greedy decoding; `words`: the class of each word."""
    mels = MelBatches(model.encoder.config.n_mels)
    edits, total, same = [0, 0], [0, 0], model.get_buffer("same")
    with torch.inference_mode():
        for start in range(0, len(utterances), batch):
            part = [utterances[i] for i in range(start, min(len(utterances), start + batch))]
            mel, length = pad([mels.mel(torch.from_numpy(np.asarray(u.audio))) for u in part])
            phones, frames, spoken, positions = model(mel, length)
            for b, utterance in enumerate(part):
                heard = (collapse(phones[b, : frames[b]].argmax(-1), len(PHONES)),
                         collapse(same[spoken[b, : positions[b]].argmax(-1)], model.blank))
                said = (phone_ids(utterance), word_ids(utterance, words, unknown))
                for kind in range(2):
                    edits[kind] += edit_distance(heard[kind].tolist(), said[kind])
                    total[kind] += len(said[kind])
    return edits[0] / max(1, total[0]), edits[1] / max(1, total[1])


def mean_ctc(logits_BTV: Tensor, frames_B: Tensor, target_BU: Tensor, length_B: Tensor, blank: int) -> Tensor:
    """CTC per target of the batch; float32 is enough for what is no parity."""
    log_probs = logits_BTV.float().log_softmax(-1).transpose(0, 1)
    nll = F.ctc_loss(log_probs, target_BU, frames_B, length_B, blank=blank, reduction="sum", zero_infinity=True)
    return nll / length_B.sum()


def ctc_losses(model: Recogniser, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """CTC over phones and over words, and what the LLM reads [B, P, D] with its lengths [B]."""
    phones, frames, speech, positions = model.hear(batch.mel, batch.length)
    phone_loss = mean_ctc(phones, frames, batch.phones, batch.phone_count, len(PHONES))
    spoken = model.words(speech, batch.classes)
    word_loss = mean_ctc(spoken + batch.weight, positions, batch.words, batch.word_count, 0)
    return phone_loss, word_loss, speech, positions


def train_recogniser(corpus: Sequence[Spoken], lengths: Sequence[int], out: Path, config: RecogniseConfig,
                     adaptor: AdaptorConfig, table: Tensor, words: Mapping[str, int],
                     held: Mapping[str, Sequence[Spoken]] | None = None) -> Recogniser:
    """Train (or resume) in `out`; `lengths`: samples of each utterance; `held` names exams for the error rates.

    table, words: the embeddings [V, D] that the LLM reads, and the row of each word.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    blank, unknown = words[BLANK], words[UNKNOWN]
    model = Recogniser(config, adaptor, table, blank)
    words = model.classes(words)
    run = Run(out, {"recogniser": model}, config.schedule, config)
    batches = Batches(corpus, lengths, config, words, unknown, blank)
    spoken_batches = prepared(run, batches.at)

    def losses(step: int) -> Losses:
        late = min(1.0, 2 * step / config.schedule.steps)
        phone_weight = config.phone_weight[0] * (1 - late) + config.phone_weight[1] * late
        batch = next(spoken_batches)
        with fast_precision():
            phone_loss, word_loss, *_ = ctc_losses(model, batch)
        return {"loss": word_loss + phone_weight * phone_loss, "words": word_loss, "phones": phone_loss}

    def evaluate() -> dict[str, float]:
        model.eval()
        rates: dict[str, float] = {}
        for name, part in (held or {}).items():
            phone, word = error_rates(model, part, words, unknown)
            rates |= {f"per_{name}": round(phone, 4), f"wer_{name}": round(word, 4)}
        model.train()
        return rates

    train(run, losses, evaluate if held else None)
    return model
