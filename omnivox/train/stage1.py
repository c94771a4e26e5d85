"""Stage 1 (LLaMA-Omni, §2.5): adaptor and LLM by cross-entropy on the answer, the speech encoder frozen.

Shapes: B batch, S encoder frames, P LLM positions of the speech, T tokens, D LLM width.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from omnivox.model.adaptor import Adaptor
from omnivox.nano.dialogues import Dialogue
from omnivox.nano.speak import Corpus
from omnivox.nano.words import ANSWER, TRANSCRIBE
from omnivox.train.features import Features
from omnivox.train.language import LanguageConfig, Reader, next_token_loss
from omnivox.train.loop import Losses, Run, Schedule, fast_precision, prepared, train
from omnivox.train.recognise import pad, pick


@dataclass(frozen=True)
class Stage1Config:
    """How the bundled model's adaptor and LLM learn from speech."""

    schedule: Schedule
    written: LanguageConfig
    batch: int = 32
    pool: int = 8
    copies: int = 8  # rooms and heads of each utterance
    transcribe: float = 0.15  # share of the spoken batch that is to be written down instead of answered
    written_every: int = 2  # a written batch of the same size is added to every n-th step
    time_mask: int = 4  # encoder frames that may be blanked
    seed: int = 0
    threads: int = 1


class SpokenPrompts:
    """`<bos> speech <task>` and what follows it, as embeddings and labels."""

    def __init__(self, adaptor: Adaptor, llm: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        self.adaptor, self.llm, self.tokenizer = adaptor, llm, tokenizer

    def embed(self, frames: Sequence[Tensor], tasks: Sequence[str], targets: Sequence[Sequence[int]]
              ) -> tuple[Tensor, Tensor, list[int]]:
        """Right-padded embeddings [B, T, D], labels [B, T] (−100 on prompts and padding), and prompt lengths."""
        k = self.adaptor.config.k
        data, length = pad([row[: max(k, len(row) // k * k)] for row in frames])
        speech, positions = self.adaptor(data, length)
        return self.join(speech, positions, tasks, targets)

    def target(self, text: str) -> list[int]:
        """The tokens that say `text`, and the one that ends it."""
        return [*self.tokenizer.encode(text, add_special_tokens=False), self.tokenizer.eos_token_id]

    def join(self, speech: Tensor, positions: Tensor, tasks: Sequence[str], targets: Sequence[Sequence[int]]
             ) -> tuple[Tensor, Tensor, list[int]]:
        """The same of what the adaptor made of speech, [B, P, D], and its lengths [B]."""
        table = self.llm.get_input_embeddings()
        rows, labels, starts = [], [], []
        for b, (task, target) in enumerate(zip(tasks, targets, strict=True)):
            ids = torch.tensor([self.tokenizer.bos_token_id, self.tokenizer.convert_tokens_to_ids(task), *target])
            tokens = table(ids)
            rows.append(torch.cat([tokens[:1], speech[b, : positions[b]], tokens[1:]]))
            start = int(positions[b]) + 2
            labels.append(torch.cat([torch.full((start,), -100), ids[2:]]))
            starts.append(start)
        return pad(rows)[0], pad(labels, -100)[0], starts

    def read(self, frames: Sequence[Tensor], tasks: Sequence[str], targets: Sequence[Sequence[int]]) -> list[Tensor]:
        """The LLM's states [1 + T, D] of each row: that which predicts its first target, then those at all of them."""
        embeds, _, starts = self.embed(frames, tasks, targets)
        hidden = self.llm.base_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        return [row[start - 1 : start + len(target)]
                for row, start, target in zip(hidden, starts, targets, strict=True)]

    def own(self, states: Sequence[Tensor], targets: Sequence[Sequence[int]]) -> list[bool]:
        """Whether each row's targets are what greedy decoding would give: if they are the likeliest at every step."""
        return [self.llm.lm_head(row[:-1]).argmax(-1).tolist() == list(target)
                for row, target in zip(states, targets, strict=True)]

    @torch.no_grad()
    def replies(self, frames: Sequence[Tensor], most: int = 48) -> list[list[int]]:
        """What the model itself answers, greedily: at most so many tokens, with the one that ends it."""
        embeds, _, lengths = self.embed(frames, [ANSWER] * len(frames), [[]] * len(frames))
        longest = max(lengths)
        left = torch.stack([torch.cat([row.new_zeros(longest - n, row.shape[1]), row[:n]])
                            for row, n in zip(embeds, lengths, strict=True)])
        mask = torch.tensor([[0] * (longest - n) + [1] * n for n in lengths])
        output = self.llm.generate(inputs_embeds=left, attention_mask=mask, max_new_tokens=most, do_sample=False)
        end = self.tokenizer.eos_token_id
        return [row[: row.index(end) + 1] if end in row else row for row in output.tolist()]


def mask_frames(frames_SE: Tensor, rng: random.Random, longest: int) -> Tensor:
    """Blank a few neighbouring frames."""
    width = rng.randint(0, longest)
    start = rng.randrange(max(1, len(frames_SE) - width))
    frames_SE = frames_SE.clone()
    frames_SE[start : start + width] = 0
    return frames_SE


def right_in_speech(prompts: SpokenPrompts, features: Features, answers: Sequence[str], batch: int = 25) -> list[bool]:
    """Whether greedy decoding of each spoken question gives exactly the expected answer."""
    right = list[bool]()
    with torch.inference_mode():
        for start in range(0, len(answers), batch):
            targets = [prompts.target(answer) for answer in answers[start : start + batch]]
            frames = features.rows([(start + i, 0) for i in range(len(targets))])
            right += prompts.own(prompts.read(frames, [ANSWER] * len(targets), targets), targets)
    return right


def train_stage1(corpus: Corpus, features: Features, adaptor: Adaptor, llm: Any, tokenizer: PreTrainedTokenizerBase,
                 sample: Callable[[random.Random, Any], Dialogue], out: Path, config: Stage1Config,
                 held: Mapping[str, tuple[Features, Sequence[str]]] | None = None,
                 strange: Tensor | None = None) -> None:
    """Train (or resume) `adaptor` and `llm` in `out`.

    held: names exams of (features, expected answers). strange: see `Reader`.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    run = Run(out, {"adaptor": adaptor, "llm": llm}, config.schedule, config)
    prompts, reader = SpokenPrompts(adaptor, llm, tokenizer), Reader(llm, tokenizer, strange)
    asked = [i for i, row in enumerate(corpus.rows) if row["answer"]]
    lengths = [corpus.rows[i]["samples"] for i in asked]

    def targets(index: int, task: str) -> list[int]:
        return prompts.target(corpus.rows[index]["answer" if task == ANSWER else "text"])

    def batch_of(step: int) -> tuple[list[Tensor], list[str], list[list[int]]]:
        rng = random.Random(f"{config.seed} {step}")
        chosen = [asked[i] for i in pick(lengths, config.batch, config.pool, rng)]
        frames = features.rows([(i, rng.randrange(features.copies)) for i in chosen])
        tasks = [TRANSCRIBE if rng.random() < config.transcribe else ANSWER for _ in chosen]
        return ([mask_frames(f, rng, config.time_mask) for f in frames], tasks,
                [targets(i, task) for i, task in zip(chosen, tasks, strict=True)])

    spoken_batches = prepared(run, batch_of)

    def losses(step: int) -> Losses:
        with fast_precision():
            embeds, labels, _ = prompts.embed(*next(spoken_batches))
            spoken = next_token_loss(llm, {"inputs_embeds": embeds}, labels)
            if step % config.written_every:
                return {"loss": spoken, "spoken": spoken}
            rng = random.Random(f"{config.seed} {step} written")
            written = reader.loss([sample(rng, "train") for _ in range(config.batch)], config.written, rng)
        return {"loss": spoken + 0.5 * written, "spoken": spoken}

    def evaluate() -> dict[str, float]:
        adaptor.eval(), llm.eval()
        rates = {}
        for name, (exam, answers) in (held or {}).items():
            right = right_in_speech(prompts, exam, answers)
            rates[f"right_{name}"] = round(sum(right) / len(right), 4)
        adaptor.train(), llm.train()
        return rates

    train(run, losses, evaluate if held else None)
