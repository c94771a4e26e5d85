"""Takes the encoder, and the adaptor behind it, further: what they write is read by the LLM, whose loss teaches them.

As Whisper's encoder learns from its decoder's loss (Radford et al. 2022), beside CTC (Watanabe et al. 2017). The LLM
is frozen here, as the encoder is in stage 1.

Shapes: B batch, T tokens, D LLM width.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from omnivox.nano.speak import Corpus
from omnivox.nano.words import ANSWER, BLANK, TRANSCRIBE, UNKNOWN
from omnivox.train.features import Features
from omnivox.train.language import next_token_loss, token_id
from omnivox.train.loop import Losses, Run, Schedule, fast_precision, prepared, train
from omnivox.train.recognise import Batch, Batches, MelBatches, RecogniseConfig, Recogniser, ctc_losses, error_rates
from omnivox.train.stage1 import SpokenPrompts, right_in_speech


@dataclass(frozen=True)
class HearConfig:
    """How the bundled model's encoder learns from its LLM."""

    schedule: Schedule
    transcribe: float = 0.3  # share of the questions that are to be written down instead of answered
    phone_weight: float = 0.2  # of CTC over phones,
    word_weight: float = 0.3  # and over words, beside the LLM's loss
    seed: int = 0
    threads: int = 1


def train_hearing(model: Recogniser, llm: Any, tokenizer: PreTrainedTokenizerBase, corpus: Corpus, out: Path,
                  recognise: RecogniseConfig, config: HearConfig, held: Mapping[str, Corpus] | None = None) -> None:
    """Train (or resume) `model` in `out`, in rooms and noises at their worst; `held` names exams.

    corpus: questions, and what can only be written down; rows without an answer are.
    recognise: how its encoder was trained, for the batches.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    llm.eval().requires_grad_(False)
    words = model.classes(tokenizer.get_vocab())
    blank, unknown = (token_id(tokenizer, token) for token in (BLANK, UNKNOWN))
    run = Run(out, {"recogniser": model}, config.schedule, config)
    settings = replace(recognise, schedule=config.schedule, gentle=0.0, seed=config.seed)
    batches = Batches(corpus, [row["samples"] for row in corpus.rows], settings, words, unknown, blank)
    prompts = SpokenPrompts(model.adaptor, llm, tokenizer)
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
        with fast_precision():
            phones, spoken, speech, positions = ctc_losses(model, batch)
            embeds, labels, _ = prompts.join(speech, positions, *asked(batch, step))
            read = next_token_loss(llm, {"inputs_embeds": embeds}, labels)
        loss = read + config.word_weight * spoken + config.phone_weight * phones
        return {"loss": loss, "read": read, "words": spoken, "phones": phones}

    def evaluate() -> dict[str, float]:
        model.eval()
        rates: dict[str, float] = {}
        for name, exam in (held or {}).items():
            answers = [row["answer"] for row in exam.rows]
            features = Features(exam, model.encoder, MelBatches(recognise.encoder.n_mels), 1, config.seed)
            right = right_in_speech(prompts, features, answers)
            phone, word = error_rates(model, exam, words, unknown)
            rates |= {f"right_{name}": round(sum(right) / len(right), 4), f"per_{name}": round(phone, 4),
                      f"wer_{name}": round(word, 4)}
        model.train()
        return rates

    train(run, losses, evaluate if held else None)
