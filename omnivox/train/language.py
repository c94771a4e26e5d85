"""Trains a small LLM from nothing on written dialogues: the question in, the answer by cross-entropy.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from omnivox.nano import dialogues
from omnivox.nano.dialogues import Dialogue
from omnivox.nano.rephrase import rephrase
from omnivox.nano.topics import decline
from omnivox.nano.words import ANSWER, BLANK, BOS, EOS, PAD, TRANSCRIBE, UNKNOWN
from omnivox.train.loop import Losses, Run, Schedule, fast_precision, train
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
    spread: float = 0.5  # share of the batch whose words lie among blanks, as speech will have them
    drop: float = 0.08  # share of the questions that lose a word, as a listener would
    glue: float = 0.2  # chance of each of a few edits: a small word lost, added, or exchanged for another
    unheard: float = 0.04  # share of the questions whose rarest word is not understood, and which are declined
    strange: float = 0.2  # share of the batch that makes no sense, and is declined
    exam: int = 200  # written questions of each split that are watched while training
    seed: int = 0
    threads: int = 1


def build_llm(config: LanguageConfig, tokenizer: PreTrainedTokenizerBase, table: Tensor | None = None
              ) -> LlamaForCausalLM:
    """A Llama of the recipe's size with the tokenizer's vocabulary, which reads words by the embeddings `table` [V, D].

    These stay as they are: a speech encoder learns to write them too.
    """
    llama = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=config.width, num_hidden_layers=config.layers,
        num_attention_heads=config.heads, num_key_value_heads=config.heads, intermediate_size=config.ffn,
        max_position_embeddings=1024, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False, initializer_range=0.04,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    llm = LlamaForCausalLM(llama)
    weight = llm.model.embed_tokens.weight.requires_grad_(False)
    if table is not None:
        weight.copy_(table)
    return llm


def encode_dialogue(dialogue: Dialogue, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Token ids of a written prompt, and of its right answer (ended by eos)."""
    asked = tokenizer.encode(dialogue.question, add_special_tokens=False)
    said = tokenizer.encode(dialogue.answer, add_special_tokens=False)
    return [token_id(tokenizer, BOS), *asked, token_id(tokenizer, ANSWER)], [*said, token_id(tokenizer, EOS)]


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """The id of one token, such as a special one."""
    value = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(value, int)
    return value


def next_token_loss(llm: Any, inputs: dict[str, Tensor], labels_BT: Tensor) -> Tensor:
    """Mean cross-entropy of predicting labels[t + 1] at t; −100 is not learnt."""
    return next_token_nll(llm, inputs, labels_BT)[0].mean()


def next_token_nll(llm: Any, inputs: dict[str, Tensor], labels_BT: Tensor) -> tuple[Tensor, Tensor]:
    """The same of each of N labelled tokens, [N], and the row b of each, [N]. Only labelled states meet the head."""
    states = llm.base_model(**inputs, use_cache=False).last_hidden_state
    wanted = labels_BT[:, 1:] != -100
    logits = llm.lm_head(states[:, :-1][wanted]).float()
    return F.cross_entropy(logits, labels_BT[:, 1:][wanted], reduction="none"), wanted.nonzero()[:, 0]


@cache
def _rank() -> Mapping[str, int]:
    """How often each word occurs in questions."""
    rng = random.Random(0)
    return Counter(word for _ in range(20_000) for word in dialogues.sample_evenly(rng, "train").question.split())


def overheard(words: list[str], config: LanguageConfig, rng: random.Random, kept: Container[str] = ()) -> list[str]:
    """`words` rephrased, and now and then without one of them: phrasings never written must be understood too.

    kept: see `rephrase`.
    """
    words = rephrase(words, config.glue, rng, kept)
    if len(words) > 3 and rng.random() < config.drop and (
            droppable := [i for i, word in enumerate(words) if word not in kept]):
        del words[rng.choice(droppable)]
    return words


def spread(words: Sequence[int], blank: int, rng: random.Random) -> list[int]:
    """Word ids among blanks, as CTC over spoken words puts them: 12.5 positions a second, two to seven for a word."""
    spaced = [blank] * rng.randint(0, 5)
    for word in words:
        spaced += [blank] * rng.choice((0, 1, 1, 2, 2, 3, 3, 4, 5)) + [word] * (1 + (rng.random() < 0.15))
    return spaced + [blank] * rng.randint(0, 5)


def _example(dialogue: Dialogue, tokenizer: PreTrainedTokenizerBase, config: LanguageConfig,
             rng: random.Random, strange: Mapping[str, int]) -> tuple[list[int], list[int]]:
    """Ids of a prompt, the question in it as a listener may have heard it, and of what is to be learned."""
    if rng.random() < config.transcribe:
        words = dialogue.question.split()
        task, said = TRANSCRIBE, dialogue.question
    else:
        kept = dialogues.filled_words().get(dialogue.topic, ())
        words = overheard(dialogue.question.split(), config, rng, kept)
        task, said = ANSWER, dialogue.answer
        if rng.random() < config.unheard:
            words[min(range(len(words)), key=lambda i: _rank()[words[i]])] = UNKNOWN
            said = decline.ANSWER
    ids = [strange[word] if word in strange else token_id(tokenizer, word) for word in words]
    if rng.random() < config.spread:
        ids = spread(ids, token_id(tokenizer, BLANK), rng)
    target = tokenizer.encode(said, add_special_tokens=False)
    return [token_id(tokenizer, BOS), *ids, token_id(tokenizer, task)], [*target, token_id(tokenizer, EOS)]


def written_batch(drawn: Sequence[Dialogue], tokenizer: PreTrainedTokenizerBase, config: LanguageConfig,
                  rng: random.Random, strange: Mapping[str, int] | None = None) -> tuple[Tensor, Tensor]:
    """Right-padded ids [B, T] and labels [B, T] (−100 on the prompt and on padding).

    strange: ids, beyond those of the tokens, of words that are none.
    """
    pairs = [_example(dialogues.sample_strange(rng) if rng.random() < config.strange else dialogue, tokenizer,
                      config, rng, strange or {}) for dialogue in drawn]
    ids = [torch.tensor(prompt + target) for prompt, target in pairs]
    labels = [torch.tensor([-100] * len(prompt) + target) for prompt, target in pairs]
    return pad(ids, token_id(tokenizer, PAD))[0], pad(labels, -100)[0]


class Reader:
    """What the LLM reads: its tokens by their embeddings, and words that are no tokens by their sounds.

    strange: sounds [N, D] of `dialogues.strange_words()`; their ids follow those of the tokens. None: there are none.
    """

    def __init__(self, llm: Any, tokenizer: PreTrainedTokenizerBase, strange: Tensor | None = None) -> None:
        known = llm.get_input_embeddings().weight.detach()
        self.table = known if strange is None else torch.cat([known, strange])
        self.llm, self.tokenizer = llm, tokenizer
        named = () if strange is None else dialogues.strange_words()
        self.ids = {word: len(known) + i for i, word in enumerate(named)}

    def loss(self, drawn: Sequence[Dialogue], config: LanguageConfig, rng: random.Random) -> Tensor:
        """Of a batch of written questions."""
        ids, labels = written_batch(drawn, self.tokenizer, config, rng, self.ids)
        return next_token_loss(self.llm, {"inputs_embeds": F.embedding(ids, self.table)}, labels)


def right_in_writing(llm: Any, tokenizer: PreTrainedTokenizerBase, asked: Sequence[Dialogue],
                     batch: int = 50) -> list[bool]:
    """Whether greedy decoding of each written question gives exactly the expected answer."""
    right = []
    with torch.inference_mode():
        for start in range(0, len(asked), batch):
            pairs = [encode_dialogue(d, tokenizer) for d in asked[start : start + batch]]
            longest = max(len(prompt) for prompt, _ in pairs)
            ids = torch.tensor([[token_id(tokenizer, PAD)] * (longest - len(p)) + p for p, _ in pairs])
            mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p, _ in pairs])
            output = llm.generate(ids, attention_mask=mask, max_new_tokens=48, do_sample=False)
            for row, (_, target) in zip(output[:, longest:].tolist(), pairs, strict=True):
                right.append(row[: len(target)] == target)
    return right


def train_language(tokenizer: PreTrainedTokenizerBase, sample: Callable[[random.Random, Any], Dialogue], out: Path,
                   config: LanguageConfig, table: Tensor, strange: Tensor | None = None) -> LlamaForCausalLM:
    """Train (or resume) in `out` on dialogues drawn by `sample(rng, split)`; `table`: see `build_llm`, `strange`: see
    `Reader`."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    llm = build_llm(config, tokenizer, table)
    run = Run(out, {"llm": llm}, config.schedule, config)
    reader = Reader(llm, tokenizer, strange)
    exam = random.Random(f"{config.seed} exam")
    held = {split: [sample(exam, split) for _ in range(config.exam)] for split in ("train", "held")}

    def losses(step: int) -> Losses:
        rng = random.Random(f"{config.seed} {step}")
        with fast_precision():
            return {"loss": reader.loss([sample(rng, "train") for _ in range(config.batch)], config, rng)}

    def evaluate() -> dict[str, float]:
        llm.eval()
        rates = {f"right_{split}": sum(right_in_writing(llm, tokenizer, part)) / len(part)
                 for split, part in held.items()}
        llm.train()
        return rates

    train(run, losses, evaluate)
    return llm
