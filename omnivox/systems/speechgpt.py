"""SpeechGPT (Zhang et al. 2023): one language model whose vocabulary holds units of speech beside pieces of text.

    question ─► mHuBERT ─► units ─► LLM ─► transcript; [ta] answer; [ua] units ─► unit HiFi-GAN ─► Audio
                                                      └─► Text

It writes what it heard, then its answer, then the answer's units: a chain of modality. The published files, in one
folder: the language model, its LoRA, mHuBERT with its k-means centres, and the vocoder. Shapes: n samples.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from omnivox.checkpoint.files import read_json
from omnivox.checkpoint.hifigan import load_hifigan
from omnivox.checkpoint.load import pick_device, pick_dtype
from omnivox.data.hubert import LAYER, HubertKmeans
from omnivox.errors import AudioError, CheckpointError, ConfigError
from omnivox.model.units import Quantiser, merge_repeats
from omnivox.model.vocoder import Vocoder
from omnivox.runtime.detokenise import Detokeniser
from omnivox.runtime.events import Audio, Text
from omnivox.runtime.speaking import Mouth, Speaking
from omnivox.systems.llama import load_llama, merge_adapter
from omnivox.systems.parts import Part, find_parts
from omnivox.systems.slow_tokenizer import SlowTokenizer
from omnivox.systems.system import Event, Making, Parts, answered
from omnivox.systems.tts import TTS, spoken
from omnivox.systems.writer import Choosing, Writer

META = ("You are an AI assistant whose name is SpeechGPT.\n- SpeechGPT is a intrinsic cross-modal conversational "
        "language model that is developed by Fudan University.  SpeechGPT can understand and communicate fluently with "
        "human through speech or text chosen by the user.\n- It can perceive cross-modal inputs and generate "
        "cross-modal outputs.\n")
PUBLISHED = Choosing(temperature=0.7, top_p=0.8, top_k=50, min_new_tokens=10, max_new_tokens=2048)
ALL = 2**62
"""Ω as large as any answer."""
_FILES = "https://dl.fbaipublicfiles.com"
PARTS = (
    Part(("SpeechGPT-7B-cm",), "fnlp/SpeechGPT-7B-cm", "about 13.5 GB in float16"),
    Part(("SpeechGPT-7B-com",), "fnlp/SpeechGPT-7B-com", "about 20 MB"),
    Part(("mhubert_base_vp_en_es_fr_it3.pt",), f"{_FILES}/hubert/mhubert_base_vp_en_es_fr_it3.pt", "about 1.1 GB"),
    Part(("mhubert_base_vp_en_es_fr_it3_L11_km1000.bin",),
         f"{_FILES}/hubert/mhubert_base_vp_en_es_fr_it3_L11_km1000.bin", "about 3 MB"),
    Part(("vocoder/g_00500000", "vocoder/vocoder.pt"),
         f"{_FILES}/fairseq/speech_to_speech/vocoder/code_hifigan/mhubert_vp_en_es_fr_it3_400k_layer11_km1000_lj/"
         "g_00500000", "about 60 MB, and config.json beside it"),
)
_ANSWER = re.compile(r"\[ta\]\s*")
_END = re.compile(r"\s*;?\s*\[ua\]|\s*<eoa>")
_MAYBE_END = re.compile(r"\s*;?\s*(\[u?a?|<e?o?a?)?$")  # what may turn out to begin `_END`


@dataclass(frozen=True)
class Voicing:
    """How its units are spoken. omega: Ω, gathered before the vocoder speaks, None for all; lookahead: frames that it
    waits for, None for all that matter. Raises ConfigError."""

    omega: int | None = 10
    lookahead: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("omega", 1), ("lookahead", 0)):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise ConfigError(f"{name}: found {value!r}; expected a whole number, {least} or more, or none")


class SpeechGPT:
    """tts: reads its text aloud in place of its own units, which are then never written."""

    name = "speechgpt"

    def __init__(self, model: LlamaForCausalLM, tokenizer: SlowTokenizer, quantiser: Quantiser, vocoder: Vocoder,
                 tts: TTS | None = None, *, choosing: Choosing = PUBLISHED, voicing: Voicing | None = None,
                 source: str = "speechgpt") -> None:
        self.model, self.tokenizer, self.quantiser, self.vocoder, self.tts = model, tokenizer, quantiser, vocoder, tts
        self.voicing, self.source = voicing or Voicing(), source
        self.writer = Writer(model, choosing, [tokenizer.eos])
        self._unit_of = _units(tokenizer, model, quantiser, vocoder, source)
        self._marks = frozenset(tokenizer.added.values()) - self._unit_of.keys()
        self._speaking = Speaking(vocoder)

    @classmethod
    def load(cls, folder: str | Path, tts: TTS | None = None, *, temperature: float = 0.7, top_p: float = 0.8,
             top_k: int = 50, seed: int = 0, max_new_tokens: int = 2048, omega: int | None = 10,
             lookahead: int | None = None, device: str = "auto", dtype: str = "auto") -> Self:
        """The published files in `folder`, by the names in `PARTS`; sampling as published unless told otherwise.

        temperature: 0 is greedy. Raises CheckpointError, which says what to download; ConfigError.
        """
        choosing = Choosing(temperature, top_p, top_k, PUBLISHED.repetition_penalty, PUBLISHED.min_new_tokens,
                            max_new_tokens, seed)
        voicing = Voicing(omega, lookahead)
        llm, lora, hubert, centres, generator = find_parts("speechgpt", folder, PARTS)
        place = pick_device(device)
        numbers = pick_dtype(dtype, place, read_json(llm / "config.json"))
        tokenizer = SlowTokenizer(llm)
        quantiser = HubertKmeans.load(hubert, centres, LAYER, str(place))
        vocoder = load_hifigan(generator)
        model = load_llama(llm, numbers)
        merge_adapter(model, lora)
        return cls(model.to(place), tokenizer, quantiser, vocoder.to(place), tts,  # type: ignore[arg-type]
                   choosing=choosing, voicing=voicing, source=str(folder))

    @property
    def sample_rate(self) -> int:
        return self.tts.sample_rate if self.tts else self.vocoder.sample_rate

    def settings(self) -> Mapping[str, Any]:
        voice = ({"tts": self.tts.settings()} if self.tts else
                 {"omega": self.voicing.omega, "lookahead": self.voicing.lookahead})
        return {"model": self.source, "dtype": str(self.model.dtype).removeprefix("torch."),
                **self.writer.choosing.settings(), **voice}

    def respond(self, question: Tensor) -> Iterator[Event]:
        """Text and Audio as they are made, then Done, whose units are the answer's.

        Raises AudioError: the question is too short for a unit.
        """
        return answered(lambda making: self._parts(question, making), self.sample_rate)

    def prompt(self, units: list[int]) -> list[int]:
        """Token ids that ask a question of these units."""
        said = "".join(f"<{unit}>" for unit in units)
        return [self.tokenizer.bos,
                *self.tokenizer.encode(f"{META}[Human]: <sosp>{said}<eosp> <eoh>. [SpeechGPT]: ")]

    def _parts(self, question: Tensor, making: Making) -> Parts:
        units = merge_repeats(self.quantiser.encode(question))[0].tolist()
        if not units:
            raise AudioError(f"question: {len(question)} samples are too short for a unit; expected some speech")
        making.timings.encode = making.clock.lap()
        prompt = self.prompt(units)
        tokens = self.writer.tokens({"input_ids": torch.tensor([prompt], device=self.model.device)}, prompt, making)
        if self.tts:
            yield from spoken(self._words(tokens), self.tts)
        else:
            yield from self._own_voice(tokens, making)

    def _words(self, tokens: Iterator[int]) -> Iterator[str]:
        """The text of the answer, until the first of its units."""
        answer = Answer(self.tokenizer)
        for token in tokens:
            if token in self._unit_of or answer.over:
                break
            if delta := self._read(token, answer):
                yield delta
        if delta := answer.finish():
            yield delta

    def _own_voice(self, tokens: Iterator[int], making: Making) -> Parts:
        answer = Answer(self.tokenizer)
        mouth = self._speaking.mouth(self.voicing.omega or ALL, self.voicing.lookahead)
        for token in tokens:
            unit = self._unit_of.get(token)
            if delta := self._read(token, answer) if unit is None else answer.finish():
                yield Text(delta)
            if unit is not None:
                making.units.append(unit)
                mouth.hear([unit])
                if mouth.due:
                    yield self._spoken(mouth, making, False)
        if delta := answer.finish():
            yield Text(delta)
        if making.units:
            yield self._spoken(mouth, making, True)

    def _read(self, token: int, answer: Answer) -> str:
        """What a token that is no unit adds to the text."""
        return answer.finish() if token in self._marks else answer.push(token)

    @torch.no_grad()
    def _spoken(self, mouth: Mouth, making: Making, ending: bool) -> Audio:
        making.timings.first_units = making.timings.first_units or making.clock.now()
        return Audio(self._speaking.speak([(mouth, ending)])[0])


class Answer:
    """The text answer in what the model writes: what stands between `[ta]` and `; [ua]`, or before its first unit.

    Without `[ta]` all that it wrote counts, once it has ended. transcript: what it heard, where it tells.
    """

    def __init__(self, tokenizer: SlowTokenizer) -> None:
        self._text, self._written, self._given = Detokeniser(tokenizer), "", 0  # type: ignore[arg-type]
        self._start: int | None = None
        self.transcript, self.over = "", False

    def push(self, token: int) -> str:
        """What one more piece of text adds, without what may turn out to be the end."""
        if self.over:
            return ""
        self._written += self._text.push(token)
        return self._more()

    def finish(self) -> str:
        """What was held back; nothing more will come."""
        if self.over:
            return ""
        self._written += self._text.finish()
        delta = self._more()
        if self._start is None:
            self._start = 0
            delta = self._more()
        return delta if self.over else delta + self._give(len(self._written.rstrip()), last=True)

    def _more(self) -> str:
        if self._start is None:
            if (found := _ANSWER.search(self._written)) is None:
                return ""
            self.transcript = self._written[:found.start()].strip().removesuffix(";")
            self._start = found.end()
        if end := _END.search(self._written, self._start):
            return self._give(end.start(), last=True)
        if maybe := _MAYBE_END.search(self._written, self._start):
            return self._give(maybe.start(), last=False)
        return ""

    def _give(self, until: int, last: bool) -> str:
        """What has not been given of the text before place `until`."""
        self.over = last
        begin = max(self._start or 0, self._given)
        delta = self._written[begin:until]
        if not self._given:
            delta = delta.lstrip()
        self._given = max(self._given, until) if delta else self._given
        return delta


def _units(tokenizer: SlowTokenizer, model: LlamaForCausalLM, quantiser: Quantiser, vocoder: Vocoder, source: str
           ) -> dict[int, int]:
    """The unit that each token of one stands for. Raises CheckpointError where the parts do not fit together."""
    if quantiser.units != vocoder.units:
        raise CheckpointError(f"{source}: its k-means has {quantiser.units} centres, its vocoder knows {vocoder.units} "
                              "units; expected the same number")
    for token in ("<sosp>", "<eosp>", "<eoh>", "[Human]", "[SpeechGPT]", *(f"<{i}>" for i in range(quantiser.units))):
        place = tokenizer.added.get(token)
        if place is None or place >= model.config.vocab_size:
            raise CheckpointError(f"{source}: added_tokens.json: token {token!r} is {place}; expected an id below "
                                  f"{model.config.vocab_size}, the model's vocab_size")
    return {tokenizer.added[f"<{unit}>"]: unit for unit in range(quantiser.units)}
