"""Takes encoder, adaptor and LLM further together: the LLM reads what the encoder writes, its loss teaches all three.

As Whisper's encoder learns with its decoder (Radford et al. 2022), beside CTC (Watanabe et al. 2017). Stage 1 then
freezes the encoder, as in the paper.

Shapes: B batch, T tokens, D LLM width.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from omnivox.nano.dialogues import Dialogue
from omnivox.nano.speak import Corpus
from omnivox.nano.words import ANSWER, BLANK, TRANSCRIBE, UNKNOWN
from omnivox.train.features import Features
from omnivox.train.language import LanguageConfig, Reader, next_token_nll, token_id
from omnivox.train.loop import Losses, Run, Schedule, fast_precision, prepared, train
from omnivox.train.recognise import Batch, Batches, MelBatches, RecogniseConfig, Recogniser, ctc_losses, error_rates
from omnivox.train.stage1 import SpokenPrompts, right_in_speech


@dataclass(frozen=True)
class HearConfig:
    """How the bundled model's encoder and LLM learn from each other."""

    schedule: Schedule
    written: LanguageConfig
    transcribe: float = 0.12  # share of the questions that are to be written down instead of answered
    copy_weight: float = 0.15  # of the loss on what is written down, beside that on answers,
    phone_weight: float = 0.1  # of CTC over phones,
    word_weight: float = 0.3  # and over words
    written_weight: float = 0.5  # of a written batch of the same size, ...
    written_every: int = 3  # ... which is added to every n-th step
    seed: int = 0
    threads: int = 2  # nothing else runs beside it


def train_hearing(model: Recogniser, llm: Any, tokenizer: PreTrainedTokenizerBase, corpus: Corpus, out: Path,
                  recognise: RecogniseConfig, config: HearConfig, sample: Callable[[random.Random, Any], Dialogue],
                  held: Mapping[str, Corpus] | None = None, strange: Tensor | None = None) -> None:
    """Train (or resume) `model` and `llm` in `out`, in rooms and noises from none to the worst; `held` names exams.

    corpus: questions, and what can only be written down; rows without an answer are. sample: draws written questions.
    recognise: how its encoder was trained, for the batches. strange: see `Reader`.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    words = model.classes(tokenizer.get_vocab())
    blank, unknown = (token_id(tokenizer, token) for token in (BLANK, UNKNOWN))
    run = Run(out, {"recogniser": model, "llm": llm}, config.schedule, config)
    settings = replace(recognise, schedule=config.schedule, gentle=0.0, mixed=True, seed=config.seed)
    batches = Batches(corpus, [row["samples"] for row in corpus.rows], settings, words, unknown, blank)
    prompts, reader = SpokenPrompts(model.adaptor, llm, tokenizer), Reader(llm, tokenizer, strange)
    made = prepared(run, batches.at)

    def asked(batch: Batch, step: int) -> tuple[list[str], list[list[int]]]:
        """The task of each utterance, and the tokens that are right."""
        rng = random.Random(f"{config.seed} {step} task")
        rows = [corpus.rows[i] for i in batch.chosen]
        tasks = [ANSWER if row["answer"] and rng.random() >= config.transcribe else TRANSCRIBE for row in rows]
        return tasks, [prompts.target(row["answer" if task == ANSWER else "text"])
                       for row, task in zip(rows, tasks, strict=True)]

    def losses(step: int) -> Losses:
        batch = next(made)
        tasks, targets = asked(batch, step)
        answers = torch.tensor([task == ANSWER for task in tasks])
        with fast_precision():
            phones, spoken, speech, positions = ctc_losses(model, batch)
            embeds, labels_BT, _ = prompts.join(speech, positions, tasks, targets)
            nll, rows = next_token_nll(llm, {"inputs_embeds": embeds}, labels_BT)
            read, copied = (nll[kind[rows]].sum() / kind[rows].sum().clamp_min(1) for kind in (answers, ~answers))
            loss = (read + config.copy_weight * copied + config.word_weight * spoken + config.phone_weight * phones)
            if step % config.written_every == 0:
                rng = random.Random(f"{config.seed} {step} written")
                drawn = [sample(rng, "train") for _ in tasks]
                loss = loss + config.written_weight * reader.loss(drawn, config.written, rng)
        return {"loss": loss, "read": read, "copied": copied, "words": spoken, "phones": phones}

    def evaluate() -> dict[str, float]:
        model.eval(), llm.eval()
        rates: dict[str, float] = {}
        for name, exam in (held or {}).items():
            answers = [row["answer"] for row in exam.rows]
            features = Features(exam, model.encoder, MelBatches(recognise.encoder.n_mels), 1, config.seed)
            right = right_in_speech(prompts, features, answers)
            phone, word = error_rates(model, exam, words, unknown)
            rates |= {f"right_{name}": round(sum(right) / len(right), 4), f"per_{name}": round(phone, 4),
                      f"wer_{name}": round(word, 4)}
        model.train(), llm.train()
        return rates

    train(run, losses, evaluate if held else None)
