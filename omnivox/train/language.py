"""Trains a small LLM from nothing on written dialogues: the question in, the answer by cross-entropy.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from omnivox.nano.dialogues import Dialogue
from omnivox.nano.words import ANSWER, TRANSCRIBE
from omnivox.train.loop import Losses, Run, Schedule, train
from omnivox.train.recognise import pad


@dataclass(frozen=True)
class LanguageConfig:
    """How the bundled model's LLM learns its domain in writing."""

    schedule: Schedule
    width: int = 256
    layers: int = 4
    heads: int = 4
    ffn: int = 704
    batch: int = 64
    transcribe: float = 0.1  # share of the batch that only repeats the question
    drop: float = 0.2  # share of the questions that lose a word, as a listener would
    exam: int = 200  # written questions of each split that are watched while training
    seed: int = 0
    threads: int = 1


def build_llm(config: LanguageConfig, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """A Llama of the recipe's size with the tokenizer's vocabulary, input and output embeddings tied."""
    llama = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=config.width, num_hidden_layers=config.layers,
        num_attention_heads=config.heads, num_key_value_heads=config.heads, intermediate_size=config.ffn,
        max_position_embeddings=1024, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True, initializer_range=0.04,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    return LlamaForCausalLM(llama)


def encode_dialogue(dialogue: Dialogue, tokenizer: PreTrainedTokenizerBase, task: str = ANSWER,
                    question: str | None = None) -> tuple[list[int], list[int]]:
    """Token ids of a written prompt, and of what is to be learned after it (ended by eos)."""
    asked = tokenizer.encode(dialogue.question if question is None else question, add_special_tokens=False)
    said = tokenizer.encode(dialogue.answer, add_special_tokens=False) if task == ANSWER else \
        tokenizer.encode(dialogue.question, add_special_tokens=False)
    return [_id(tokenizer, "bos"), *asked, tokenizer.convert_tokens_to_ids(task)], [*said, _id(tokenizer, "eos")]


def _id(tokenizer: PreTrainedTokenizerBase, name: str) -> int:
    value = getattr(tokenizer, f"{name}_token_id")
    assert isinstance(value, int)
    return value


def next_token_loss(llm: Any, inputs: dict[str, Tensor], labels_BT: Tensor) -> Tensor:
    """Mean cross-entropy of predicting labels[t + 1] at t; −100 is not learnt. Only labelled states meet the head."""
    states = llm.base_model(**inputs, use_cache=False).last_hidden_state
    wanted = labels_BT[:, 1:] != -100
    return F.cross_entropy(llm.lm_head(states[:, :-1][wanted]).float(), labels_BT[:, 1:][wanted])


def written_batch(dialogues: Sequence[Dialogue], tokenizer: PreTrainedTokenizerBase, config: LanguageConfig,
                  rng: random.Random) -> tuple[Tensor, Tensor]:
    """Right-padded ids [B, T] and labels [B, T] (−100 on the prompt and on padding)."""
    ids, labels = [], []
    for dialogue in dialogues:
        words = dialogue.question.split()
        if len(words) > 3 and rng.random() < config.drop:
            del words[rng.randrange(len(words))]
        task = TRANSCRIBE if rng.random() < config.transcribe else ANSWER
        question = dialogue.question if task == TRANSCRIBE else " ".join(words)
        prompt, target = encode_dialogue(dialogue, tokenizer, task, question)
        ids.append(torch.tensor(prompt + target))
        labels.append(torch.tensor([-100] * len(prompt) + target))
    return pad(ids, _id(tokenizer, "pad"))[0], pad(labels, -100)[0]


def right_in_writing(llm: Any, tokenizer: PreTrainedTokenizerBase, dialogues: Sequence[Dialogue],
                     batch: int = 50) -> list[bool]:
    """Whether greedy decoding of each written question gives exactly the expected answer."""
    right = []
    with torch.inference_mode():
        for start in range(0, len(dialogues), batch):
            pairs = [encode_dialogue(d, tokenizer) for d in dialogues[start : start + batch]]
            longest = max(len(prompt) for prompt, _ in pairs)
            ids = torch.tensor([[_id(tokenizer, "pad")] * (longest - len(p)) + p for p, _ in pairs])
            mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p, _ in pairs])
            output = llm.generate(ids, attention_mask=mask, max_new_tokens=48, do_sample=False)
            for row, (_, target) in zip(output[:, longest:].tolist(), pairs, strict=True):
                right.append(row[: len(target)] == target)
    return right


def train_language(tokenizer: PreTrainedTokenizerBase, sample: Callable[[random.Random, Any], Dialogue], out: Path,
                   config: LanguageConfig) -> LlamaForCausalLM:
    """Train (or resume) in `out` on dialogues drawn by `sample(rng, split)`."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    llm = build_llm(config, tokenizer)
    run = Run(out, {"llm": llm}, config.schedule, config)
    exam = random.Random(f"{config.seed} exam")
    held = {split: [sample(exam, split) for _ in range(config.exam)] for split in ("train", "held")}

    def losses(step: int) -> Losses:
        rng = random.Random(f"{config.seed} {step}")
        ids, labels = written_batch([sample(rng, "train") for _ in range(config.batch)], tokenizer, config, rng)
        return {"loss": next_token_loss(llm, {"input_ids": ids}, labels)}

    def evaluate() -> dict[str, float]:
        llm.eval()
        rates = {f"right_{split}": sum(right_in_writing(llm, tokenizer, part)) / len(part)
                 for split, part in held.items()}
        llm.train()
        return rates

    train(run, losses, evaluate)
    return llm
