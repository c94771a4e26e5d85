"""Conversations as batches: token ids, labels, mels, units; and the speech put in its places, several in a row.

Shapes: B rows, L token ids, Q questions, T mel frames, C mel bins, P positions of the LLM, D LLM width, U units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from omnivox.checkpoint.prompt import Prompt
from omnivox.errors import DataError, OmnivoxError
from omnivox.model.config import OmniConfig
from omnivox.model.mel import log_mel, mel_filters, pad_or_cut
from omnivox.model.omni import IGNORED, SPEECH, SpokenLM
from omnivox.rates import CHUNK_SAMPLES, HOP_LENGTH, SAMPLE_RATE
from omnivox.train.chat import conversation_ids
from omnivox.train.conversations import Conversations


@dataclass
class Example:
    """One conversation. ids, labels, turns: [L]; mels: of each question, [T, C]; units: of each answer, [U]."""

    id: str
    ids: Tensor
    labels: Tensor
    turns: Tensor
    mels: list[Tensor]
    units: list[Tensor | None]


@dataclass
class SpokenRows:
    """Several. ids, labels, turns: [B, L], labels and turns IGNORED on padding; mel: [Q, T, C], row after row.

    units: of each answer, row after row; bad: rows that had to be replaced, and why.
    """

    names: tuple[str, ...]
    ids: Tensor
    labels: Tensor
    turns: Tensor
    length: Tensor
    mel: Tensor
    mel_length: Tensor
    units: tuple[Tensor | None, ...] = ()
    bad: tuple[tuple[str, str], ...] = ()

    @property
    def count(self) -> int:
        """Labels to be learnt."""
        return int((self.labels != IGNORED).sum())

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        moved: dict[str, Any] = {name: value.to(device) for name, value in vars(self).items()
                                 if isinstance(value, Tensor)}
        return replace(self, **moved)


@dataclass
class SplicedRows:
    """embeds [B, P, D], labels, turns and mask [B, P]."""

    embeds: Tensor
    labels: Tensor
    turns: Tensor
    mask: Tensor


class Examples:
    """Turns conversations into batches. It travels to loading processes by pickle.

    max_positions: of the LLM, for prompt, speech and answers together. spoken: answers must have units.
    """

    def __init__(self, data: Conversations, tokenizer: PreTrainedTokenizerBase, prompt: Prompt, config: OmniConfig,
                 max_positions: int = 2048, spoken: bool = False) -> None:
        self.data, self.tokenizer, self.prompt, self.config = data, tokenizer, prompt, config
        self.max_positions, self.spoken = max_positions, spoken
        self._filters = mel_filters(config.mel.n_mels)

    @property
    def lengths(self) -> list[float]:
        """About how many positions each conversation takes."""
        per_second = 100 / self.config.encoder.stride / self.config.adaptor.k
        return [size.question_seconds * per_second + size.answer_characters / 4 for size in self.data.sizes]

    def example(self, index: int) -> Example:
        """Raises DataError where the conversation cannot be learnt from, naming it and what is wrong."""
        row = self.data[index]
        for number, turn in enumerate(row.turns):
            where = f"{row.id}, turn {number + 1}"
            if not turn.answer.strip():
                raise DataError(f"{where}: its answer is empty; expected text")
            self._check_question(turn.question, where)
            if self.spoken and (turn.units is None or not len(turn.units)):
                raise DataError(f"{where}: its answer has no units; stage 2 learns from spoken answers")
        ids, labels, turns = conversation_ids(self.prompt, self.tokenizer, [turn.answer for turn in row.turns])
        mels = [self._mel(turn.question) for turn in row.turns]
        if (found := len(ids) + sum(self._positions(len(mel)) for mel in mels)) > self.max_positions:
            raise DataError(f"{row.id}: takes about {found} positions; at most {self.max_positions} are trained on")
        return Example(row.id, torch.tensor(ids), torch.tensor(labels), torch.tensor(turns), mels,
                       [turn.units for turn in row.turns])

    def batch(self, rows: Sequence[int]) -> SpokenRows:
        """A batch of conversations. A bad one is replaced by the next good one of the data set.

        Raises DataError where none is good.
        """
        examples, bad = [], []
        for index in rows:
            example, why = self._good(index)
            examples.append(example)
            bad += why
        return collate(examples, tuple(bad))

    def _good(self, index: int) -> tuple[Example, list[tuple[str, str]]]:
        bad = list[tuple[str, str]]()
        for ahead in range(min(len(self.data), 100)):
            at = (index + ahead) % len(self.data)
            try:
                return self.example(at), bad
            except OmnivoxError as error:
                bad.append((str(at), str(error)))
        raise DataError(f"data: {len(bad)} conversations in a row cannot be used; the first: {bad[0][1]}")

    def _check_question(self, wave: Tensor, where: str) -> None:
        encoder = self.config.encoder
        longest = encoder.positions * encoder.stride * HOP_LENGTH
        longest = min(longest, CHUNK_SAMPLES) if self.config.mel.pad_to_chunk else longest
        if not HOP_LENGTH <= len(wave) <= longest:
            raise DataError(f"{where}: its question lasts {len(wave) / SAMPLE_RATE:.2f} s; expected up to "
                            f"{longest / SAMPLE_RATE:.0f} s, what this encoder hears")
        if not bool(wave.isfinite().all()):
            raise DataError(f"{where}: its question holds NaN or infinite samples")

    def _mel(self, wave: Tensor) -> Tensor:
        wave = pad_or_cut(wave) if self.config.mel.pad_to_chunk else wave
        return log_mel(wave[None].float(), self._filters)[0]

    def _positions(self, frames: int) -> int:
        return frames // self.config.encoder.stride // self.config.adaptor.k


def collate(examples: Sequence[Example], bad: tuple[tuple[str, str], ...] = ()) -> SpokenRows:
    """Pad on the right."""
    mels = [mel for example in examples for mel in example.mels]

    def padded(rows: list[Tensor], value: int = 0) -> tuple[Tensor, Tensor]:
        return pad_sequence(rows, batch_first=True, padding_value=value), torch.tensor([len(row) for row in rows])

    ids, length = padded([example.ids for example in examples])
    labels, _ = padded([example.labels for example in examples], IGNORED)
    turns, _ = padded([example.turns for example in examples], IGNORED)
    return SpokenRows(tuple(example.id for example in examples), ids, labels, turns, length, *padded(mels),
                      tuple(units for example in examples for units in example.units), bad)


def splice(model: SpokenLM, batch: SpokenRows) -> SplicedRows:
    """Put every question's speech in its place, and pad on the right again. The encoder gets no gradients."""
    with torch.no_grad():
        frames = model.encoder(batch.mel.to(model.encoder.conv1.weight),
                               None if model.config.mel.pad_to_chunk else batch.mel_length)[0]
    length = model.encoder.output_length(batch.mel_length)
    speech, length = model.adaptor(frames.to(model.adaptor.linear1.weight), length)
    return insert(model.llm.get_input_embeddings(), batch, speech, length)


def insert(table: torch.nn.Module, batch: SpokenRows, speech_QSD: Tensor, length_Q: Tensor) -> SplicedRows:
    """Embeddings of the rows' tokens, with the questions' speech [Q, S, D] in the places of SPEECH."""
    words = table(batch.ids.clamp(min=0))
    rows, columns, question = [], [], 0
    lengths = length_Q.tolist()
    for b, length in enumerate(batch.length.tolist()):
        ids = batch.ids[b, :length]
        places = (ids == SPEECH).nonzero()[:, 0].tolist()
        pieces, marks, start = list[Tensor](), list[Tensor](), 0
        both = torch.stack([batch.labels[b, :length], batch.turns[b, :length]], 1)
        for place in places:
            heard = speech_QSD[question, : lengths[question]]
            pieces += [words[b, start:place], heard.to(words)]
            marks += [both[start:place], both.new_full((len(heard), 2), IGNORED)]
            start, question = place + 1, question + 1
        rows.append(torch.cat([*pieces, words[b, start:length]]))
        columns.append(torch.cat([*marks, both[start:length]]))
    marked = pad_sequence(columns, batch_first=True, padding_value=IGNORED)
    mask = pad_sequence([column.new_ones(len(column)) for column in columns], batch_first=True)
    return SplicedRows(pad_sequence(rows, batch_first=True), marked[..., 0], marked[..., 1], mask)


def answer_states(hidden_BPD: Tensor, spliced: SplicedRows, fed: str) -> list[Tensor]:
    """The LLM states [M, D] that feed the speech decoder, of each answer of each row."""
    shift = 1 if fed == "predicting" else 0
    states = []
    for hidden, turns in zip(hidden_BPD, spliced.turns, strict=True):
        for turn in range(int(turns.max()) + 1):
            at = (turns == turn).nonzero()[:, 0] - shift
            states.append(hidden[at])
    return states


