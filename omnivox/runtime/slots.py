"""Many replies in one forward pass: fixed storage, one row for each reply, one tick for all.

    hidden ─► sampler ─► token ─► LLM ─► hidden'
       └────► speech decoder (λ frames) ─► collapse ─► units        (`consumed` models: from hidden' instead)

Rows in use are always the first ones: replies, and behind them newcomers whose prompts are being read. So a tick costs
what its replies cost, whatever the number of slots. On CUDA it is captured as a graph for each of 1, 2, 4, 8, ... rows.

Shapes: B rows in use, T positions of a prompt, D LLM width, λ frames a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from omnivox.model.ctc import CollapseState, CTCCollapse
from omnivox.model.llm import LLMState, copy_positions
from omnivox.model.speech_decoder import SpeechDecoderState
from omnivox.runtime.graph import Captured
from omnivox.runtime.respond import Omni
from omnivox.runtime.sampling import SamplerState, SamplingSettings
from omnivox.streaming import Chunk, assign_rows, leaves, slice_rows


@dataclass
class SlotsState:
    """What the rows are: states of the parts, and hidden [B, 1, D], from which each row's next token is chosen.

    live, spoken: [B] 1 where the row advances, and where its reply is to be heard.
    """

    llm: LLMState
    decoder: SpeechDecoderState
    collapse: CollapseState
    sampler: SamplerState
    hidden: Tensor
    live: Tensor
    spoken: Tensor


@dataclass(frozen=True)
class Ticked:
    """Of each row that advanced: the token chosen, its probability, and the units that it gave."""

    tokens: list[int]
    chances: list[float]
    units: list[list[int]]


class Slots:
    """Storage for `rows` replies of `tokens` tokens at most, behind prompts that leave them room in `context`."""

    def __init__(self, omni: Omni, rows: int, context: int, tokens: int) -> None:
        self.omni, self.rows, self.context, self.tokens = omni, rows, context, tokens
        self.consumed = omni.config.states_fed == "consumed"
        decoder = omni.model.speech_decoder
        self.collapse = CTCCollapse(decoder.blank)
        weight = omni.embedding.weight
        device = weight.device
        self.ends = torch.tensor(sorted(omni.end_ids) or [-1], device=device)
        self.state = SlotsState(
            omni.llm.initial_state(rows, context), decoder.initial_state(rows, tokens),
            self.collapse.initial_state(rows, device), omni.sampler.initial_state(rows, device=device),
            weight.new_zeros(rows, 1, weight.shape[1]), torch.zeros(rows, dtype=torch.long, device=device),
            torch.zeros(rows, dtype=torch.long, device=device))
        for _, leaf in leaves(self.state):
            leaf.zero_()  # the memory is taken now, and not page by page as replies grow longer
        self._fresh = self.collapse.initial_state(1, device)
        self._step = Captured(self._tick, device)
        with torch.inference_mode():
            widths = {self._step.width(n, rows) for n in range(1, rows + 1)}
            self._step.capture(*((width, greedy) for width in widths for greedy in (True, False)))

    def place(self, row: int, known: LLMState | None, positions: int) -> None:
        """A newcomer takes a row; the first `positions` of its prompt are known from a state of its own."""
        if known is not None:
            copy_positions(known, 0, self.state.llm, row, 0, positions)
        self.state.llm.position[row] = positions

    def read(self, first: int, pieces: Sequence[Tensor]) -> Tensor:
        """The next embeddings [T, D] of the prompts in the rows from `first` on, one at least of each; gives their last
        hidden states [B, 1, D]."""
        last = torch.tensor([len(piece) - 1 for piece in pieces], device=self.ends.device)
        rows = slice_rows(self.state.llm, first, first + len(pieces))
        hidden, _ = self.omni.llm.step(Chunk(pad_sequence(list(pieces), batch_first=True), last + 1), rows)
        return hidden.data.gather(1, last[:, None, None].expand(-1, 1, hidden.data.shape[2]))

    def begin(self, row: int, hidden: Tensor, sampling: SamplingSettings, speak: bool) -> None:
        """A prompt has been read, up to the hidden state [1, D]; its reply begins."""
        state, at = self.state, torch.tensor([row], device=self.ends.device)
        state.decoder.position[row] = 0  # what lies behind a position is never read
        assign_rows(state.collapse, at, self._fresh)
        assign_rows(state.sampler, at, self.omni.sampler.initial_state(1, sampling, self.ends.device))
        state.hidden[row] = hidden
        state.live[row], state.spoken[row] = 1, int(speak)

    def swap(self, one: int, other: int) -> None:
        """Two rows change places."""
        state, here, there = self.state, [one, other], [other, one]
        for part in (state.llm, state.decoder):
            end = int(part.position[here].max())
            for storage in (*part.keys, *part.values):
                storage[here, :, :end] = storage[there, :, :end]
        rest = (state.llm.position, state.decoder.position, state.collapse, state.sampler, state.hidden, state.live,
                state.spoken)
        for _, leaf in leaves(rest):
            leaf[here] = leaf[there]

    def set_live(self, row: int, live: bool) -> None:
        """A row that is not live stands still, as if nothing happened."""
        self.state.live[row] = int(live)

    @torch.inference_mode()
    def tick(self, rows: int, greedy: bool) -> Ticked:
        """One token of each of the first `rows` replies that is live. `greedy`: none of them samples."""
        width = self._step.width(rows, self.rows)
        if width > rows:
            self.state.live[rows:width] = 0
        ids, chances, units, count = self._step(width, greedy)
        given = zip(units[:rows].tolist(), count[:rows].tolist(), strict=True)
        return Ticked(ids[:rows, 0].tolist(), chances[:rows].tolist(), [row[:n] for row, n in given])

    def _tick(self, rows: int, greedy: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Fixed shapes, storage updated in place, no question to the device: what a CUDA graph needs."""
        omni, state = self.omni, slice_rows(self.state, 0, rows)
        logits = omni.llm.logits(state.hidden)
        ids = logits.argmax(-1) if greedy else omni.sampler.step(Chunk(logits, state.live), state.sampler)[0].data
        chance = logits.float().softmax(-1).gather(-1, ids[..., None])[:, 0, 0]
        ended = torch.isin(ids[:, 0], self.ends).long()
        predicting = state.hidden.clone()
        # A row that ends is read once more where its state is spoken by: the speech of `consumed` models wants it.
        going = state.live if self.consumed else state.live * (1 - ended)
        read, _ = omni.llm.step(Chunk(omni.embedding(ids), going), state.llm)
        state.hidden.copy_(torch.where(going[:, None, None] > 0, read.data, state.hidden))
        heard = state.hidden if self.consumed else predicting
        logits_speech, _ = omni.model.speech_decoder.step(Chunk(heard, state.live * state.spoken), state.decoder)
        units, _ = self.collapse.step(Chunk(logits_speech.data.argmax(-1), logits_speech.length), state.collapse)
        return ids, chance, units.data, units.length
