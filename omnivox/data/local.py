"""A language model of this process, from transformers, as the one who rewrites and answers.

Requests that wait together are generated together. The first attempt at a request is greedy; later ones are sampled
alone, from a seed of the request's own. In float32 the answers do not depend on the batch but for rounding; whatever
came first is kept in the cache and stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnivox.data.cache import Reply, ReplyCache, digest
from omnivox.data.llm import LLM, Conversation, Request
from omnivox.data.records import Rejected, Row
from omnivox.errors import CheckpointError


@dataclass(frozen=True)
class LocalSettings:
    """model: a folder or a hub name of any causal LM with a chat template. batch, device and dtype are speed alone."""

    model: str
    temperature: float = 0.7
    max_tokens: int = 256
    batch: int = 8
    device: str = "cpu"
    dtype: str = "auto"


class LocalLLM(LLM):
    """A causal LM from transformers."""

    def __init__(self, settings: LocalSettings) -> None:
        self.local = settings
        self._loaded: tuple[Any, Any] | None = None

    def __getstate__(self) -> LocalSettings:
        return self.local

    def __setstate__(self, settings: LocalSettings) -> None:
        self.__init__(settings)  # type: ignore[misc]

    def settings(self) -> Mapping[str, Any]:
        return {"model": self.local.model, "temperature": self.local.temperature, "max_tokens": self.local.max_tokens}

    def close(self) -> None:
        self._loaded = None

    def converse(self, conversations: Sequence[Conversation], cache: Path) -> Iterator[Row | Rejected]:
        """Batch after batch of conversations, each to its end, so that outcomes come in order."""
        with ReplyCache(cache) as replies:
            for start in range(0, len(conversations), self.local.batch):
                yield from self._together(conversations[start:start + self.local.batch], replies)

    def _together(self, conversations: Sequence[Conversation], replies: ReplyCache) -> list[Row | Rejected]:
        outcomes: dict[int, Row | Rejected] = {}
        waiting: dict[int, Request] = {}

        def go_on(index: int, text: str | None) -> None:
            try:
                waiting[index] = conversations[index].send(text) if text is not None else next(conversations[index])
            except StopIteration as end:
                waiting.pop(index, None)
                outcomes[index] = end.value

        for index in range(len(conversations)):
            go_on(index, None)
        while waiting:
            texts = self._answers(list(waiting.values()), replies)
            for index, text in zip(list(waiting), texts, strict=True):
                go_on(index, text)
        return [outcomes[index] for index in range(len(conversations))]

    def _answers(self, requests: Sequence[Request], replies: ReplyCache) -> list[str]:
        keys = [digest({**self.settings(), **request.asked()}) for request in requests]
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in replies}
        first = {key: request for key, request in missing.items() if request.attempt == 0}
        if first:
            for key, reply in zip(first, self._generate([request.prompt for request in first.values()]), strict=True):
                replies.put(key, reply)
        for key, request in missing.items():
            if request.attempt:
                replies.put(key, *self._generate([request.prompt], seed=int(key[:8], 16)))
        return [found.text for key in keys if (found := replies.get(key))]

    def _generate(self, prompts: Sequence[str], seed: int | None = None) -> list[Reply]:
        """One reply for each prompt: greedy, or sampled from `seed`."""
        import torch

        model, tokenizer = self._load()
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        batch = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_tensors="pt", padding=True,
                                              return_dict=True).to(model.device)
        sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if seed is not None and self.local.temperature > 0:
            sampling = {"do_sample": True, "temperature": self.local.temperature, "top_p": 0.95, "top_k": 0}
            torch.manual_seed(seed)
        with torch.inference_mode():
            made = model.generate(**batch, **sampling, max_new_tokens=self.local.max_tokens,
                                  pad_token_id=tokenizer.pad_token_id)
        new = made[:, batch["input_ids"].shape[1]:]
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        read = batch["attention_mask"].sum(1).tolist()
        written = (new != tokenizer.pad_token_id).sum(1).tolist()
        return [Reply(*one) for one in zip(texts, read, written, strict=True)]

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            self._loaded = load_chat(self.local.model, self.local.device, self.local.dtype)
        return self._loaded


def load_chat(name: str, device: str = "cpu", dtype: str = "auto") -> tuple[Any, Any]:
    """A causal LM and its tokenizer, by folder or hub name.

    Raises CheckpointError: no such model, or one without a chat template.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left")
        model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{name}: no causal LM that can be loaded ({error})") from error
    if tokenizer.chat_template is None:
        raise CheckpointError(f"{name}: its tokenizer has no chat template; expected an instruction-tuned model")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.to(device).eval(), tokenizer
