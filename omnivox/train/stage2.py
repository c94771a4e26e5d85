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
    per_answer: int = 8  # utterances that ask for an answer, at most: one asked often must not crowd out the others
    repeat: float = 0.3  # share of the batches that repeat what was heard: words that no answer joins
    state_noise: float = 0.05  # of each state's standard deviation, against learning answers by heart
    seed: int = 0
    threads: int = 1


Key = tuple[int, int, str]
"""An utterance, a copy of it (see Features), and the task: to answer it or to repeat it."""


class States:
    """LLM states [M, D] that feed the decoder for each key, teacher-forced on what is right to say."""

    def __init__(self, corpus: Corpus, features: Features, prompts: SpokenPrompts, fed: StatesFed) -> None:
        self.corpus, self.features, self.prompts, self.fed = corpus, features, prompts, fed
        self._kept: dict[Key, Tensor] = {}

    def said(self, index: int, task: str) -> str | None:
        """What is to be said to utterance `index`."""
        said: str | None = self.corpus.rows[index]["answer" if task == ANSWER else "text"]
        return said

    def rows(self, keys: Sequence[Key]) -> list[Tensor]:
        """States of each key, float32."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._kept]
        if missing:
            answers = [self.prompts.target(self.said(i, task) or "") for i, _, task in missing]
            with torch.no_grad(), fast_precision():
                frames = self.features.rows([(i, copy) for i, copy, _ in missing])
                embeds, _, starts = self.prompts.embed(frames, [task for _, _, task in missing], answers)
                states = self.prompts.llm.base_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
            shift = 1 if self.fed == "predicting" else 0
            for b, key in enumerate(missing):
                first = starts[b] - shift
                self._kept[key] = states[b, first : first + len(answers[b])].half()
        return [self._kept[key].float() for key in keys]


def unit_error_rate(decoder: SpeechDecoder, states: States, keys: Sequence[Key],
                    units_of: Mapping[str, Tensor]) -> float:
    """Edits per unit of the greedy decoding."""
    edits = total = 0
    with torch.no_grad():
        for key in keys:
            heard = collapse(decoder(states.rows([key])[0][None])[0].argmax(-1), decoder.blank).tolist()
            said = units_of[states.said(key[0], key[2]) or ""].tolist()
            edits += edit_distance(heard, said)
            total += len(said)
    return edits / max(1, total)


def train_stage2(states: States, units_of: Mapping[str, Tensor], decoder: SpeechDecoder, out: Path,
                 config: Stage2Config, held: Container[str | None] = ()) -> None:
    """Train (or resume) `decoder` in `out`.

    units_of: merged units [U] of each answer's recording. held: answers kept out of training, for the unit error rate.
    Raises DataError where a unit is none of the decoder's, or an answer has more units than λ frames for each token.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    _check(units_of, decoder)
    run = Run(out, {"speech_decoder": decoder}, config.schedule, config)
    asked = {task: _usable(states, units_of, task, config.per_answer) for task in (ANSWER, TRANSCRIBE)}
    exam = [(i, 0, ANSWER) for i in asked[ANSWER] if states.said(i, ANSWER) in held][:60]
    asked = {task: [i for i in found if states.said(i, task) not in held] for task, found in asked.items()}
    if not asked[ANSWER]:
        raise DataError(f"{out}: no question was spoken whose answer was spoken too, beside those withheld")
    lengths = {task: [len(units_of[states.said(i, task) or ""]) for i in found] for task, found in asked.items()}

    def batch_of(step: int) -> tuple[Tensor, ...]:
        rng = random.Random(f"{config.seed} {step}")
        generator = torch.Generator().manual_seed(rng.getrandbits(60))
        task = TRANSCRIBE if asked[TRANSCRIBE] and rng.random() < config.repeat else ANSWER
        chosen = [asked[task][i] for i in pick(lengths[task], config.batch, config.pool, rng)]
        given = states.rows([(i, rng.randrange(states.features.copies), task) for i in chosen])
        noisy = [row + config.state_noise * row.std() * torch.randn(row.shape, generator=generator) for row in given]
        return *pad(noisy), *pad([units_of[states.said(i, task) or ""] for i in chosen])

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


def _usable(states: States, units_of: Mapping[str, Tensor], task: str, most: int) -> list[int]:
    """Utterances to which the answer voice has said what is right, at most so many for each thing to say."""
    times, usable = Counter[str | None](), list[int]()
    for i in range(len(states.corpus.rows)):
        said = states.said(i, task)
        if said in units_of and times[said] < most:
            times[said] += 1
            usable.append(i)
    return usable


def _check(units_of: Mapping[str, Tensor], decoder: SpeechDecoder) -> None:
    for answer, units in units_of.items():
        if len(units) and int(units.max()) >= decoder.config.units:
            raise DataError(f"answer {answer!r}: unit {int(units.max())}; "
                            f"the decoder knows 0 to {decoder.config.units - 1}")
