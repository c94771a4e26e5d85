"""The spoken language model (LLaMA-Omni, §2): encoder, adaptor, LLM and speech decoder, and the losses of both stages.

Shapes: B batch, N samples, T mel frames, C mel bins, S speech positions, L token ids, P = L − 1 + S positions of the
LLM, D LLM width, M answer tokens (= LLM states fed to the speech decoder), U units.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from omnivox.model.adaptor import Adaptor
from omnivox.model.config import OmniConfig, StatesFed
from omnivox.model.ctc import ctc_nll
from omnivox.model.encoder import Encoder
from omnivox.model.mel import log_mel, mel_filters, pad_or_cut
from omnivox.model.speech_decoder import SpeechDecoder
from omnivox.rates import CHUNK_SAMPLES, HOP_LENGTH
from omnivox.streaming import Chunk

SPEECH = -200
"""The token id that marks where a question's speech goes."""
IGNORED = -100
"""The label of a position that is not to be learnt."""


@dataclass
class SpokenBatch:
    """Spoken questions with written and, for stage 2, spoken answers. All is padded on the right with anything.

    ids, labels: [B, L], each row with at most one SPEECH; labels are IGNORED but on the answer. length: [B].
    mel: [B, T, C]; mel_length: [B]. None: no row has speech.
    units: [B, U] without equal neighbours; units_length: [B]. None: stage 1.
    """

    ids: Tensor
    labels: Tensor
    length: Tensor
    mel: Tensor | None = None
    mel_length: Tensor | None = None
    units: Tensor | None = None
    units_length: Tensor | None = None

    def to(self, device: torch.device | str) -> Self:
        """The same batch on another device."""
        moved = {f.name: value.to(device) for f in fields(self) if (value := getattr(self, f.name)) is not None}
        return type(self)(**moved)


@dataclass
class Spliced:
    """A batch as the LLM sees it: embeds [B, P, D], labels [B, P] and mask [B, P] (1 on real positions)."""

    embeds: Tensor
    labels: Tensor
    mask: Tensor


@dataclass
class CTCLoss:
    """loss: Σ nll over Σ units; nll: [B], −log P(units) of each row; frames: [B], upsampled lengths."""

    loss: Tensor
    nll: Tensor
    frames: Tensor


class SpokenLM(nn.Module):
    """Speech in, text and units out.

    llm: a decoder-only model of `transformers`. Raises ValueError where the parts do not fit together.
    """

    def __init__(self, config: OmniConfig, llm: nn.Module) -> None:
        super().__init__()
        _check_sizes(config, llm)
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.adaptor = Adaptor(config.adaptor)
        self.llm: Any = llm
        self.speech_decoder = SpeechDecoder(config.speech_decoder)
        self._filters = mel_filters(config.mel.n_mels)  # no buffer: the mel is float32 whatever the weights are

    # -- the question -------------------------------------------------------------------------------------------------

    @property
    def max_samples(self) -> int:
        """The longest question that is heard to its end, in samples."""
        own = self.config.encoder.positions * self.config.encoder.stride * HOP_LENGTH
        return min(own, CHUNK_SAMPLES) if self.config.mel.pad_to_chunk else own

    def speech_positions(self, samples: int) -> int:
        """How many positions of the LLM a question of so many samples takes, at most: padded to 30 s, always those."""
        samples = CHUNK_SAMPLES if self.config.mel.pad_to_chunk else samples
        frames = torch.tensor(-(-samples // HOP_LENGTH))
        return max(1, int(self.encoder.output_length(frames)) // self.config.adaptor.k)

    def log_mel(self, wave: Tensor) -> Tensor:
        """Log-mel [B, T, C] of waveforms [B, N], padded or cut to 30 s first where the checkpoint wants it."""
        wave = pad_or_cut(wave) if self.config.mel.pad_to_chunk else wave
        wave = wave.to(self.encoder.conv1.weight.device, torch.float32)
        return log_mel(wave, self._filters.to(wave.device))

    def encode(self, mel: Tensor, length: Tensor | None = None) -> Chunk:
        """Speech positions [B, S, D] of mel frames [B, T, C], of which `length` [B] are the question's (None: all).

        A model that pads to 30 s sees the padding too, as published; what it gives for it is dropped afterwards.
        """
        if length is None:
            length = torch.full((len(mel),), mel.shape[1], device=mel.device)
        seen = None if self.config.mel.pad_to_chunk else length
        frames, _ = self.encoder(mel.to(self.encoder.conv1.weight), seen)
        return Chunk(*self.adaptor(frames, self.encoder.output_length(length)))

    def embed_prompt(self, ids: Tensor, speech: Tensor | None = None) -> Tensor:
        """Embeddings [P, D] of token ids [L], with `speech` [S, D] in the place of SPEECH (if there is one).

        Raises ValueError: speech without a place, a place without speech, or two places.
        """
        at = _speech_at(ids)
        if (at is None) != (speech is None):
            raise ValueError(f"prompt: has {'no' if at is None else 'a'} place for speech; "
                             f"it is given {'none' if speech is None else 'some'}")
        table = self.llm.get_input_embeddings()
        if at is None or speech is None:
            return table(ids)  # type: ignore[no-any-return]
        before, after = table(torch.cat([ids[:at], ids[at + 1:]])).split([at, len(ids) - at - 1])
        return torch.cat([before, speech.to(before), after])

    def splice(self, batch: SpokenBatch) -> Spliced:
        """Put each row's speech in its place and pad on the right again."""
        speech = None if batch.mel is None else self.encode(batch.mel, batch.mel_length)
        rows, labels = [], []
        for b, length in enumerate(batch.length.tolist()):
            ids, row_labels = batch.ids[b, :length], batch.labels[b, :length]
            at = _speech_at(ids)
            heard = speech.row(b) if speech is not None and at is not None else None
            rows.append(self.embed_prompt(ids, heard))
            if at is not None and heard is not None:
                silent = row_labels.new_full((len(heard),), IGNORED)
                row_labels = torch.cat([row_labels[:at], silent, row_labels[at + 1:]])
            labels.append(row_labels)
        return Spliced(pad_sequence(rows, batch_first=True),
                       pad_sequence(labels, batch_first=True, padding_value=IGNORED),
                       pad_sequence([torch.ones_like(row) for row in labels], batch_first=True))

    # -- training -----------------------------------------------------------------------------------------------------

    def stage1_loss(self, batch: SpokenBatch) -> Tensor:
        """Cross-entropy of predicting each answer token from those before it, the mean over all of the batch's."""
        spliced = self.splice(batch)
        return self._cross_entropy(spliced, self._read(spliced).logits)

    def stage2_loss(self, batch: SpokenBatch) -> CTCLoss:
        """CTC of the answers' units; only the speech decoder gets gradients."""
        with torch.no_grad():
            spliced = self.splice(batch)
            hidden = self.llm.base_model(inputs_embeds=spliced.embeds, attention_mask=spliced.mask,
                                         use_cache=False).last_hidden_state
        return self._ctc(hidden, spliced.labels, batch)

    def joint_loss(self, batch: SpokenBatch, ctc_weight: float = 1.0) -> Tensor:
        """Both at once: stage 1's plus `ctc_weight` times stage 2's, with gradients everywhere."""
        spliced = self.splice(batch)
        read = self._read(spliced, output_hidden_states=True)
        ctc = self._ctc(read.hidden_states[-1], spliced.labels, batch)
        return self._cross_entropy(spliced, read.logits) + ctc_weight * ctc.loss

    def fed_states(self, hidden: Tensor, labels: Tensor, fed: StatesFed | None = None) -> Chunk:
        """The LLM states [B, M, D] that the speech decoder is fed, out of all of them [B, P, D].

        `predicting` takes the states that predict each label (the paper); `consumed` those at the labels themselves
        (the released trainer), one position later. Default: the configuration's.
        """
        at = labels != IGNORED
        if (fed or self.config.states_fed) == "predicting":
            at = F.pad(at[:, 1:], (0, 1))
        states = [row[here] for row, here in zip(hidden, at, strict=True)]
        return Chunk(pad_sequence(states, batch_first=True), at.sum(1))

    def _read(self, spliced: Spliced, **options: Any) -> Any:
        """Run the LLM; logits only at the columns that some row learns to predict from."""
        return self.llm(inputs_embeds=spliced.embeds, attention_mask=spliced.mask, use_cache=False,
                        logits_to_keep=_predicting_columns(spliced.labels), **options)

    def _cross_entropy(self, spliced: Spliced, logits: Tensor) -> Tensor:
        target = spliced.labels[:, _predicting_columns(spliced.labels) + 1]
        wanted = target != IGNORED
        return F.cross_entropy(logits[wanted].float(), target[wanted])

    def _ctc(self, hidden: Tensor, labels: Tensor, batch: SpokenBatch) -> CTCLoss:
        if batch.units is None or batch.units_length is None:
            raise ValueError("batch: has no units; stage 2 learns from spoken answers")
        states = self.fed_states(hidden, labels)
        if not states.length.all():
            raise ValueError(f"batch: row {int(states.length.argmin())} has no answer; expected labels in every row")
        frames = torch.maximum(self.config.speech_decoder.upsample * states.length, batch.units_length)
        logits = self.speech_decoder(states.data, states.length, frames)
        nll = ctc_nll(logits, frames, batch.units, batch.units_length, self.speech_decoder.blank)
        return CTCLoss(nll.sum() / batch.units_length.sum(), nll, frames)


def _check_sizes(config: OmniConfig, llm: Any) -> None:
    encoder, llm_width = config.encoder, llm.get_input_embeddings().weight.shape[1]
    for name, found, expected in (
        ("encoder.n_mels", encoder.n_mels, config.mel.n_mels),
        ("adaptor.encoder_width", config.adaptor.encoder_width, encoder.width),
        ("adaptor.llm_width", config.adaptor.llm_width, llm_width),
        ("speech_decoder.llm_width", config.speech_decoder.llm_width, llm_width),
    ):
        if found != expected:
            raise ValueError(f"{name}: found {found}; expected {expected}, the size of what it is joined to")
    if encoder.width % encoder.heads:
        raise ValueError(f"encoder.heads: found {encoder.heads}; expected a divisor of encoder.width, {encoder.width}")
    frames = CHUNK_SAMPLES // HOP_LENGTH // encoder.stride
    if config.mel.pad_to_chunk and encoder.positions < frames:
        raise ValueError(f"encoder.positions: found {encoder.positions}; expected {frames} or more, for "
                         "mel.pad_to_chunk makes every question 30 s long")


def _speech_at(ids: Tensor) -> int | None:
    """Where the speech goes in token ids [L]."""
    places = (ids == SPEECH).nonzero()[:, 0].tolist()
    if len(places) > 1:
        raise ValueError(f"prompt: has {len(places)} places for speech; expected one at most")
    return places[0] if places else None


def _predicting_columns(labels: Tensor) -> Tensor:
    """Columns whose next label is to be learnt in at least one row."""
    return (labels[:, 1:] != IGNORED).any(0).nonzero()[:, 0]
