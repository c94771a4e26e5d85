"""Stage 2 (LLaMA-Omni, §2.5): the speech decoder alone, by CTC, on the states of speech prompts.

Everything before the decoder is frozen, so each pair's states are computed once.
Shapes: B batch, M LLM states of an answer, D LLM width, U units.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from omnivox.errors import DataError
from omnivox.model.config import StatesFed
from omnivox.model.ctc import collapse
from omnivox.model.speech_decoder import SpeechDecoder
from omnivox.nano.speak import Corpus
from omnivox.nano.words import ANSWER, TRANSCRIBE
from omnivox.train.features import Features
from omnivox.train.loop import Losses, Run, Schedule, fast_precision, prepared, train
from omnivox.train.recognise import edit_distance, mean_ctc, pad, pick
from omnivox.train.stage1 import SpokenPrompts


@dataclass(frozen=True)
class Stage2Config:
    """How the bundled model's speech decoder learns."""

    schedule: Schedule
    batch: int = 16
    pool: int = 8
    states_fed: StatesFed = "predicting"
    copies: int = 4  # rooms and heads of each utterance: what it does not hear well, it answers in other states
    per_answer: int = 8  # utterances that ask for an answer, at most: one asked often must not crowd out the others;
    often: float = 0.75  # but this power of their number, where that is more: "Sorry" must be said well
    repeat: float = 0.3  # share of the batches that repeat what was heard: words that no answer joins
    state_noise: float = 0.05  # of each state's standard deviation, against learning answers by heart
    seed: int = 0
    threads: int = 1


Key = tuple[int, int, str]
"""An utterance, a copy of it (see Features), and the task: to answer it or to repeat it."""


class States:
    """What is said to each key, and the LLM states [M, D] that feed the decoder for it, teacher-forced."""

    def __init__(self, corpus: Corpus, features: Features, prompts: SpokenPrompts, fed: StatesFed) -> None:
        self.corpus, self.features, self.prompts, self.fed = corpus, features, prompts, fed
        self._kept: dict[Key, tuple[str, Tensor]] = {}

    def right(self, index: int, task: str) -> str | None:
        """What is right to say to utterance `index`."""
        said: str | None = self.corpus.rows[index]["answer" if task == ANSWER else "text"]
        return said

    def rows(self, keys: Sequence[Key], replies: Container[str] = ()) -> list[tuple[str, Tensor]]:
        """What is said to each key, and its states, float32. What is right, but where the model itself answers with
        another of `replies`, that: as it speaks, so it learns to speak."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._kept]
        if missing:
            with torch.no_grad(), fast_precision():
                self._kept.update(zip(missing, self._made(missing, replies), strict=True))
        return [(said, states.float()) for said, states in map(self._kept.__getitem__, keys)]

    def _made(self, keys: Sequence[Key], replies: Container[str]) -> list[tuple[str, Tensor]]:
        frames = self.features.rows([(i, copy) for i, copy, _ in keys])
        tasks, said = [task for _, _, task in keys], [self.right(i, task) or "" for i, _, task in keys]
        states, own = self._read(frames, tasks, said)
        wrong = [b for b, task in enumerate(tasks) if task == ANSWER and not own[b]] if replies else []
        if wrong:
            texts = [str(self.prompts.tokenizer.decode(ids, skip_special_tokens=True))
                     for ids in self.prompts.replies([frames[b] for b in wrong])]
            others = {b: text for b, text in zip(wrong, texts, strict=True) if text in replies}
            if others:
                found, _ = self._read([frames[b] for b in others], [ANSWER] * len(others), list(others.values()))
                for (b, text), row in zip(others.items(), found, strict=True):
                    said[b], states[b] = text, row
        return list(zip(said, states, strict=True))

    def _read(self, frames: Sequence[Tensor], tasks: Sequence[str], said: Sequence[str]
              ) -> tuple[list[Tensor], list[bool]]:
        """States of what is said, float16, and whether the model itself says it."""
        targets = [self.prompts.target(text) for text in said]
        read = self.prompts.read(frames, tasks, targets)
        states = [row[:-1] if self.fed == "predicting" else row[1:] for row in read]
        return [row.half() for row in states], self.prompts.own(read, targets)


def unit_error_rate(decoder: SpeechDecoder, states: States, keys: Sequence[Key],
                    units_of: Mapping[str, Tensor]) -> float:
    """Edits per unit of the greedy decoding."""
    edits = total = 0
    with torch.no_grad():
        for key in keys:
            [(text, row)] = states.rows([key])
            heard = collapse(decoder(row[None])[0].argmax(-1), decoder.blank).tolist()
            said = units_of[text].tolist()
            edits += edit_distance(heard, said)
            total += len(said)
    return edits / max(1, total)


def train_stage2(states: States, units_of: Mapping[str, Tensor], decoder: SpeechDecoder, out: Path,
                 config: Stage2Config, held: Container[str | None] = ()) -> None:
    """Train (or resume) `decoder` in `out`.

    units_of: merged units [U] of each answer's recording; one with more than λ for each token teaches nothing. held:
    answers kept out of training, for the unit error rate. Raises DataError where a unit is none of the decoder's.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    _check(units_of, decoder)
    run = Run(out, {"speech_decoder": decoder}, config.schedule, config)
    asked = {task: _usable(states, units_of, task, config) for task in (ANSWER, TRANSCRIBE)}
    exam = [(i, 0, ANSWER) for i in asked[ANSWER] if states.right(i, ANSWER) in held][:60]
    asked = {task: [i for i in found if states.right(i, task) not in held] for task, found in asked.items()}
    replies = {text for text in units_of if text not in held}
    if not asked[ANSWER]:
        raise DataError(f"{out}: no question was spoken whose answer was spoken too, beside those withheld")
    lengths = {task: [len(units_of[states.right(i, task) or ""]) for i in found] for task, found in asked.items()}

    def batch_of(step: int) -> tuple[Tensor, ...]:
        rng = random.Random(f"{config.seed} {step}")
        generator = torch.Generator().manual_seed(rng.getrandbits(60))
        task = TRANSCRIBE if asked[TRANSCRIBE] and rng.random() < config.repeat else ANSWER
        chosen = [asked[task][i] for i in pick(lengths[task], config.batch, config.pool, rng)]
        given = states.rows([(i, rng.randrange(states.features.copies), task) for i in chosen], replies)
        noisy = [row + config.state_noise * row.std() * torch.randn(row.shape, generator=generator)
                 for _, row in given]
        return *pad(noisy), *pad([units_of[said] for said, _ in given])

    batches = prepared(run, batch_of)

    def losses(_: int) -> Losses:
        data, length, target, target_length = next(batches)
        frames = length * decoder.config.upsample
        with fast_precision(fused_attention=True):
            logits = decoder(data)
        nll = mean_ctc(logits, frames, target, target_length, decoder.blank)
        valid = torch.arange(logits.shape[1]) < frames[:, None]
        blank = (logits.detach().argmax(-1) == decoder.blank)[valid].float().mean()
        return {"loss": nll, "blank_share": blank}

    def evaluate() -> dict[str, float]:
        decoder.eval()
        rate = unit_error_rate(decoder, states, exam, units_of)
        decoder.train()
        return {"unit_error_rate": round(rate, 4)}

    train(run, losses, evaluate if exam else None)


def _usable(states: States, units_of: Mapping[str, Tensor], task: str, config: Stage2Config) -> list[int]:
    """Utterances to which the answer voice has said what is right, drawn evenly; of each thing to say, at most so many
    as `config` allows."""
    rights = [states.right(i, task) for i in range(len(states.corpus.rows))]
    most = {said: max(config.per_answer, round(n ** config.often)) for said, n in Counter(rights).items()}
    times, usable = Counter[str | None](), list[int]()
    for i in random.Random(config.seed).sample(range(len(rights)), len(rights)):
        if (said := rights[i]) in units_of and times[said] < most[said]:
            times[said] += 1
            usable.append(i)
    return sorted(usable)


def _check(units_of: Mapping[str, Tensor], decoder: SpeechDecoder) -> None:
    for answer, units in units_of.items():
        if len(units) and int(units.max()) >= decoder.config.units:
            raise DataError(f"answer {answer!r}: unit {int(units.max())}; "
                            f"the decoder knows 0 to {decoder.config.units - 1}")
