"""Qwen2-Audio (Chu et al. 2024) in its voice chat, which answers in writing; a TTS reads the answer aloud.

The user's turn holds nothing but the sound: what is asked is asked in it. Speech longer than 30 s is cut there.
Shapes: n samples at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from omnivox.checkpoint.files import find_folder, read_json
from omnivox.checkpoint.load import pick_device, pick_dtype
from omnivox.errors import AudioError, CheckpointError
from omnivox.rates import HOP_LENGTH, SAMPLE_RATE
from omnivox.systems.parts import Part
from omnivox.systems.system import Event, Making, Parts, answered
from omnivox.systems.tts import TTS, spoken
from omnivox.systems.writer import Choosing, Writer, deltas

WEIGHTS = Part((".",), "Qwen/Qwen2-Audio-7B-Instruct", "about 17 GB")
CONVERSATION = [{"role": "user", "content": [{"type": "audio", "audio_url": "question.wav"}]}]
LEAST = 3 * HOP_LENGTH  # samples: what makes a position of the language model


class Qwen2Audio:
    """The model, its processor, and the voice of its answers."""

    name = "qwen2_audio"

    def __init__(self, model: Any, processor: Any, tts: TTS, *, choosing: Choosing, source: str = "qwen2_audio"
                 ) -> None:
        self.model, self.processor, self.tts, self.source = model.eval().requires_grad_(False), processor, tts, source
        self.writer = Writer(model, choosing, _end_ids(model, processor))

    @classmethod
    def load(cls, folder: str | Path, tts: TTS, *, temperature: float | None = None, top_p: float | None = None,
             top_k: int | None = None, repetition_penalty: float | None = None, seed: int = 0,
             max_new_tokens: int = 256, device: str = "auto", dtype: str = "auto") -> Self:
        """A folder or a name on the hub. What is None is as its generation_config.json says; temperature 0 is greedy.

        Raises CheckpointError, which says what to download; ConfigError.
        """
        place = _find(folder)
        where = pick_device(device)
        numbers = pick_dtype(dtype, where, read_json(place / "config.json"))
        model, processor = _read(place, numbers)
        asked = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "repetition_penalty": repetition_penalty}
        chosen = _published(model.generation_config) | {name: value for name, value in asked.items()
                                                        if value is not None}
        choosing = Choosing(**chosen, seed=seed, max_new_tokens=max_new_tokens)
        return cls(model.to(where), processor, tts, choosing=choosing, source=str(folder))

    @property
    def sample_rate(self) -> int:
        return self.tts.sample_rate

    def settings(self) -> Mapping[str, Any]:
        return {"model": self.source, "dtype": str(self.model.dtype).removeprefix("torch."),
                **self.writer.choosing.settings(), "tts": self.tts.settings()}

    def respond(self, question: Tensor) -> Iterator[Event]:
        """Text as it is written, Audio as the TTS speaks, then Done. Raises AudioError: too short to be heard."""
        return answered(lambda making: self._parts(question, making), self.sample_rate)

    def inputs(self, question: Tensor) -> dict[str, Any]:
        """What the model is given: the conversation's ids, with a position for each that the sound takes, and its mel
        frames."""
        if len(question) < LEAST:
            raise AudioError(f"question: lasts {len(question)} samples; this model hears {LEAST} or more at "
                             f"{SAMPLE_RATE} Hz")
        text = self.processor.apply_chat_template(CONVERSATION, add_generation_prompt=True, tokenize=False)
        made = self.processor(text=text, audio=[question.cpu().float().numpy()], sampling_rate=SAMPLE_RATE,
                              return_tensors="pt")
        return {name: value.to(self.model.device, self.model.dtype if value.is_floating_point() else None)
                for name, value in made.items()}

    def _parts(self, question: Tensor, making: Making) -> Parts:
        inputs = self.inputs(question)
        making.timings.mel = making.clock.lap()
        with self._noting_when_heard(making):
            tokens = self.writer.tokens(inputs, inputs["input_ids"][0].tolist(), making)
            yield from spoken(deltas(tokens, self.processor.tokenizer), self.tts)

    @contextmanager
    def _noting_when_heard(self, making: Making) -> Iterator[None]:
        """The encoder works inside the model's first pass: its end is noted there."""
        def note(*_: Any) -> None:
            making.timings.encode = making.clock.lap()

        hook = self.model.model.multi_modal_projector.register_forward_hook(note)
        try:
            yield
        finally:
            hook.remove()


def _find(folder: str | Path) -> Path:
    try:
        place = find_folder(folder)
        if not (place / "config.json").exists():
            raise CheckpointError(f"{place}: holds no config.json")
    except CheckpointError as error:
        raise CheckpointError(f"{error}; qwen2_audio needs\n  {WEIGHTS.wanted(Path(folder))}") from error
    return place


def _read(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """The model and its processor. Weights in anything but safetensors are refused, so no pickle is ever opened."""
    from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

    if (found := read_json(folder / "config.json").get("model_type")) != "qwen2_audio":
        raise CheckpointError(f"{folder / 'config.json'}: model_type is {found!r}; expected 'qwen2_audio'")
    try:
        loaded: Any = Qwen2AudioForConditionalGeneration.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, output_loading_info=True)
        model, told = loaded
        processor = Qwen2AudioProcessor.from_pretrained(folder)
    except Exception as error:  # transformers, safetensors and tokenizers each raise their own
        raise CheckpointError(f"{folder}: no Qwen2-Audio that can be read ({type(error).__name__}: "
                              f"{str(error).splitlines()[0] if str(error) else 'no reason given'})") from error
    for kind, what in (("missing_keys", "is missing"), ("unexpected_keys", "has no place in the model")):
        if told[kind]:
            raise CheckpointError(f"{folder}: tensor {sorted(told[kind])[0]!r} {what}")
    return model, processor


def _published(config: Any) -> dict[str, Any]:
    """How the checkpoint says that tokens are to be chosen."""
    found: dict[str, Any] = {"repetition_penalty": config.repetition_penalty or 1.0}
    if config.do_sample:
        found |= {"temperature": 1.0 if config.temperature is None else config.temperature,
                  "top_p": config.top_p or 1.0, "top_k": 50 if config.top_k is None else config.top_k}
    return found


def _end_ids(model: Any, processor: Any) -> list[int]:
    found = model.generation_config.eos_token_id
    found = processor.tokenizer.eos_token_id if found is None else found
    return [found] if isinstance(found, int) else list(found)
