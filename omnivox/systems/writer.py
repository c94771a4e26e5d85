"""A language model of transformers that writes an answer token by token: it can be heard meanwhile, and stopped.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from omnivox.errors import ConfigError
from omnivox.runtime.detokenise import Detokeniser
from omnivox.runtime.sampling import Sampler, SamplerState, SamplingSettings
from omnivox.streaming import Chunk
from omnivox.systems.system import Making


@dataclass(frozen=True)
class Choosing:
    """How the next token is chosen, in transformers' words and in its order: repetition_penalty on what the prompt and
    the answer hold, no end before min_new_tokens, temperature (0: greedy), top_k (0: all), top_p.

    Raises ConfigError naming the setting that is out of range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    min_new_tokens: int = 0
    max_new_tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        self.sampling  # noqa: B018  # checks its own
        for name, least in (("min_new_tokens", 0), ("max_new_tokens", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{name}: found {value!r}; expected a whole number, {least} or more")
        if not 0 < self.repetition_penalty < float("inf"):
            raise ConfigError(f"repetition_penalty: found {self.repetition_penalty}; expected more than 0 (1: none)")

    @property
    def sampling(self) -> SamplingSettings:
        """What is left to the sampler once the best top_k are picked."""
        return SamplingSettings(self.temperature, self.top_p, self.top_k, self.seed)

    def settings(self) -> dict[str, Any]:
        """As JSON; those that say nothing about a greedy choice left out."""
        unused = set() if self.temperature else {"top_p", "top_k", "seed"}
        return {name: value for name, value in asdict(self).items() if name not in unused}


class Decoder(Protocol):
    """The part of a tokenizer that turns ids into text."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str: ...


class Writer:
    """A causal language model, how it chooses, and the tokens that end an answer."""

    def __init__(self, model: Any, choosing: Choosing, end_ids: Sequence[int]) -> None:
        self.model, self.choosing, self.end_ids = model, choosing, tuple(end_ids)
        self._sampler = Sampler()

    def tokens(self, inputs: Mapping[str, Any], prompt: Sequence[int], making: Making) -> Iterator[int]:
        """The answer's tokens without the end token; `making` is told of all of them.

        inputs: of the model's first pass. prompt: the ids in it, for the penalty on repetition.
        """
        chance = self._sampler.initial_state(1, self.choosing.sampling, self.model.device)
        logits, memory = self._step(inputs)
        making.timings.prefill = making.clock.lap()
        for count in range(1, self.choosing.max_new_tokens + 1):
            token = self._choose(logits, [*prompt, *making.token_ids], len(making.token_ids), chance)
            making.timings.first_token = making.timings.first_token or making.clock.now()
            making.token_ids.append(token)
            if token in self.end_ids:
                return
            yield token
            if count < self.choosing.max_new_tokens:
                ids = torch.tensor([[token]], device=self.model.device)
                logits, memory = self._step({"input_ids": ids, "past_key_values": memory})
        making.cut = True

    @torch.no_grad()
    def _step(self, inputs: Mapping[str, Any]) -> tuple[Tensor, Any]:
        """Logits [1, V] of what comes next, and the model's memory."""
        out = self.model(**inputs, use_cache=True)
        return out.logits[:, -1].float(), out.past_key_values

    def _choose(self, logits_1V: Tensor, seen: Sequence[int], count: int, chance: SamplerState) -> int:
        choosing = self.choosing
        logits_1V = logits_1V.clone()
        if choosing.repetition_penalty != 1 and seen:
            places = torch.tensor(sorted(set(seen)), device=logits_1V.device)
            value = logits_1V[:, places]
            logits_1V[:, places] = torch.where(value < 0, value * choosing.repetition_penalty,
                                               value / choosing.repetition_penalty)
        if count < choosing.min_new_tokens:
            logits_1V[:, list(self.end_ids)] = -torch.inf
        if not choosing.temperature:
            return int(logits_1V.argmax(-1))
        if 0 < choosing.top_k < logits_1V.shape[1]:  # before the nucleus, which is then one of these alone
            least = logits_1V.topk(choosing.top_k).values[:, -1:]
            logits_1V = logits_1V.masked_fill(logits_1V < least, -torch.inf)
        return int(self._sampler.step(Chunk.full(logits_1V[:, None]), chance)[0].data)


def deltas(tokens: Iterator[int], decoder: Decoder) -> Iterator[str]:
    """The text of tokens as they come, never half a character."""
    text = Detokeniser(cast(Any, decoder))
    for token in tokens:
        if delta := text.push(token):
            yield delta
    if delta := text.finish():
        yield delta
