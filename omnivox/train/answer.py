"""Stage 1 of any model (LLaMA-Omni, §2.5): adaptor and LLM by cross-entropy on the answers, the encoder frozen.

Shapes: P positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnivox.checkpoint.load import Loaded
from omnivox.errors import ConfigError
from omnivox.model.adaptor import Adaptor
from omnivox.model.omni import IGNORED, SpokenLM
from omnivox.train.examples import Examples, SpokenRows, insert
from omnivox.train.settings import Stage1Settings
from omnivox.train.trainer import Task
from omnivox.writing import atomic


class Answering(nn.Module):
    """What learns to answer in text: an adaptor and an LLM. The encoder stays outside: it is the same everywhere."""

    def __init__(self, model: SpokenLM, settings: Stage1Settings) -> None:
        super().__init__()
        self.adaptor: Adaptor = model.adaptor.float().requires_grad_(True)
        self.llm = _tuned(model.llm, settings)
        self._frozen = (model.encoder.eval().requires_grad_(False),)
        self._padded = model.config.mel.pad_to_chunk

    def forward(self, batch: SpokenRows, states: bool = False) -> dict[str, Tensor]:
        """Σ −log p of the answers' tokens, and how many were the likeliest. states: the logits [B, V] that follow each
        row's last position instead, as "next"."""
        embeds, labels, mask = self._read(batch)
        if states:
            logits = self._logits(embeds, mask, torch.arange(embeds.shape[1], device=embeds.device))
            return {"next": logits[torch.arange(len(logits)), mask.sum(1) - 1]}
        columns = (labels[:, 1:] != IGNORED).any(0).nonzero()[:, 0]
        logits, target = self._logits(embeds, mask, columns), labels[:, columns + 1]
        wanted = target != IGNORED
        found, target = logits[wanted].float(), target[wanted]
        return {"loss": F.cross_entropy(found, target, reduction="sum"),
                "accuracy": (found.detach().argmax(-1) == target).sum().float()}

    def _read(self, batch: SpokenRows) -> tuple[Tensor, Tensor, Tensor]:
        encoder = self._encoder(batch.mel.device)
        with torch.no_grad():
            frames, _ = encoder(batch.mel.to(encoder.conv1.weight), None if self._padded else batch.mel_length)
        speech, length = self.adaptor(frames.float(), encoder.output_length(batch.mel_length))
        spliced = insert(self.llm.get_input_embeddings(), batch, speech, length)
        return spliced.embeds, spliced.labels, spliced.mask

    def _logits(self, embeds: Tensor, mask: Tensor, columns: Tensor) -> Tensor:
        logits: Tensor = self.llm(inputs_embeds=embeds, attention_mask=mask, use_cache=False,
                                  logits_to_keep=columns).logits
        return logits

    def _encoder(self, device: torch.device) -> Any:
        encoder = self._frozen[0]
        if encoder.conv1.weight.device != device:
            encoder.to(device)
        return encoder

    def merged(self) -> tuple[Adaptor, Any]:
        """Adaptor and LLM, low-rank additions added up."""
        llm = self.llm.merge_and_unload() if hasattr(self.llm, "merge_and_unload") else self.llm
        return self.adaptor, llm


def _tuned(llm: Any, settings: Stage1Settings) -> Any:
    """The LLM with what learns marked; the trainer casts it."""
    if settings.checkpointing:
        llm.gradient_checkpointing_enable({"use_reentrant": False})
    if settings.tune == "full":
        return llm.requires_grad_(True)
    llm.requires_grad_(False)
    if settings.tune == "adaptor":
        return llm
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ConfigError("stage1.tune: 'lora' needs peft; pip install 'omnivox[train]'") from error
    targets: str | list[str] = list(settings.lora_targets)
    if settings.lora_targets == ("all-linear",):
        targets = "all-linear"
    try:
        return get_peft_model(llm, LoraConfig(r=settings.lora_rank, lora_alpha=settings.lora_alpha,
                                              lora_dropout=settings.lora_dropout, target_modules=targets,
                                              task_type="CAUSAL_LM"))
    except ValueError as error:
        raise ConfigError(f"stage1.lora_targets: {error}") from error


def answering_task(loaded: Loaded, examples: Examples, held: Examples, settings: Stage1Settings) -> Task:
    """Stage 1 as the trainer wants it."""
    module = Answering(loaded.model, settings)
    micro = settings.micro_batch

    def held_batches() -> Iterator[SpokenRows]:
        for start in range(0, len(held.data), micro):
            yield held.batch(range(start, min(start + micro, len(held.data))))

    def show(folder: Path) -> None:
        write_answers(task.module, held, range(min(settings.samples, len(held.data))), settings.sample_tokens, folder)

    task = Task(module, examples.batch, examples.lengths, held_batches if len(held.data) else None,
                layer_kinds(loaded.model.llm), show if len(held.data) else None)
    return task


def layer_kinds(llm: Any) -> tuple[type[nn.Module], ...]:
    """The kinds of an LLM's repeated layers."""
    names = set(getattr(llm, "_no_split_modules", None) or ())
    return tuple({type(module) for module in llm.modules() if type(module).__name__ in names})


@torch.no_grad()
def write_answers(module: nn.Module, held: Examples, rows: Sequence[int], most: int, folder: Path) -> None:
    """What the model answers to held-out questions, greedily, into a file each. Without a cache: few and short, and the
    same whatever the layers are shared among."""
    assert held.prompt.end_ids
    device = next(module.parameters()).device
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        batch = held.batch([row])
        asked = int((batch.turns[0] == int(batch.turns.max())).nonzero()[0])
        batch = replace(batch, ids=batch.ids[:, :asked], labels=batch.labels[:, :asked], turns=batch.turns[:, :asked],
                        length=torch.tensor([asked])).to(device)
        said: list[int] = []
        while len(said) < most and (not said or said[-1] not in held.prompt.end_ids):
            token = module(batch, states=True)["next"].argmax(-1, keepdim=True)
            said.append(int(token))
            batch = replace(batch, ids=torch.cat([batch.ids, token], 1), length=batch.length + 1,
                            labels=F.pad(batch.labels, (0, 1), value=IGNORED),
                            turns=F.pad(batch.turns, (0, 1), value=IGNORED))
        with atomic(folder / f"{row}.txt") as path:
            path.write_text(f"{held.tokenizer.decode(said, skip_special_tokens=True)}\n", encoding="utf-8")
