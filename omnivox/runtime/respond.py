"""One conversation turn: a spoken question in, text and speech out together (LLaMA-Omni, Algorithm 1).

    question ─► mel ─► encoder ─► adaptor ─► prompt ─► LLM ─► token ─► Text
                                                        └─► speech decoder ─► units, Ω at a time ─► vocoder ─► Audio

Shapes: T prompt positions, D LLM width, n samples.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any, Self, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from omnivox.checkpoint.load import Loaded, save_pretrained
from omnivox.checkpoint.prompt import Prompt
from omnivox.errors import AudioError, CheckpointError, ConfigError
from omnivox.model.llm import StreamingLLM
from omnivox.model.omni import SPEECH, SpokenLM
from omnivox.model.vocoder import Vocoder
from omnivox.rates import SAMPLE_RATE
from omnivox.runtime.clock import Clock
from omnivox.runtime.detokenise import Detokeniser
from omnivox.runtime.events import Audio, Done, Reply, Text, Timings
from omnivox.runtime.sampling import GREEDY, Sampler, SamplingSettings
from omnivox.runtime.voice import Voice
from omnivox.sound import read_audio
from omnivox.streaming import Chunk

__all__ = ["Audio", "Done", "Omni", "Options", "Reply", "ReplySettings", "Text", "Timings"]

Question = str | Path | np.ndarray | Tensor
Event = Text | Audio | Done


@dataclass(frozen=True)
class ReplySettings:
    """How to reply.

    chunk_units: Ω, units gathered before the vocoder speaks; lookahead: frames it waits for on the right, None for all
    that its sound depends on; max_new_tokens: of text; speak: False for text alone.
    Raises ConfigError naming the setting that is out of range.
    """

    chunk_units: int = 10
    lookahead: int | None = None
    max_new_tokens: int = 256
    speak: bool = True
    sampling: SamplingSettings = GREEDY

    def __post_init__(self) -> None:
        at_least = {"chunk_units": 1, "max_new_tokens": 1} | ({} if self.lookahead is None else {"lookahead": 0})
        for name, least in at_least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
                raise ConfigError(f"{name}: found {value!r}; expected a whole number, {least} or more")
            object.__setattr__(self, name, int(value))  # numpy's as well


class Options(TypedDict, total=False):
    """The keyword arguments of `Omni.respond`."""

    chunk_units: int
    lookahead: int | None
    temperature: float
    top_p: float
    top_k: int
    seed: int
    max_new_tokens: int
    speak: bool


class Omni:
    """A model that listens, answers in text and speaks the answer.

    vocoder: None for a model that is asked for text alone. tokenizer: None for one that gives token ids alone.
    prompt: what is said around the question, and how a reply ends.
    """

    def __init__(self, model: SpokenLM, vocoder: Vocoder | None, tokenizer: PreTrainedTokenizerBase | None,
                 prompt: Prompt) -> None:
        self.model, self.tokenizer, self.prompt = model.eval(), tokenizer, prompt
        self._vocoder = None if vocoder is None else vocoder.eval()
        self.config, self.end_ids = model.config, frozenset(prompt.end_ids)
        self.sampler = Sampler()
        self.clock: Callable[[], Clock] = Clock  # of each reply; a measurement may want another
        self.embedding = model.llm.get_input_embeddings()
        try:
            self.llm = StreamingLLM(model.llm)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    @classmethod
    def from_checkpoint(cls, loaded: Loaded) -> Self:
        """What `load_checkpoint` gave, ready to answer."""
        return cls(loaded.model, loaded.vocoder, loaded.tokenizer, loaded.prompt)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write everything in our layout (config.json, safetensors, tokenizer) into a new folder."""
        save_pretrained(Loaded(self.model, self.tokenizer, self._vocoder, self.prompt), folder)

    @property
    def can_speak(self) -> bool:
        """Whether there is a vocoder."""
        return self._vocoder is not None

    @property
    def vocoder(self) -> Vocoder:
        """Raises CheckpointError if the checkpoint came without one."""
        if self._vocoder is None:
            raise CheckpointError("vocoder: this checkpoint has none; give one (`vocoder=`, --vocoder), or ask for "
                                  "text alone (`speak=False`)")
        return self._vocoder

    @property
    def sample_rate(self) -> int:
        """Of the replies, in Hz."""
        return SAMPLE_RATE if self._vocoder is None else self._vocoder.sample_rate

    @cached_property
    def prompt_ids(self) -> list[int]:
        """Token ids of the prompt, with SPEECH where the question goes."""
        return self.prompt.ids(self.tokenizer)

    def respond(self, question: Question, *, chunk_units: int = 10, lookahead: int | None = None,
                temperature: float = 0.0, top_p: float = 1.0, top_k: int = 0, seed: int = 0,
                max_new_tokens: int = 256, speak: bool = True) -> Iterator[Event]:
        """Answer a spoken question: Text and Audio as they are made, then Done.

        question: a sound file, or mono samples [n] at 16 kHz. chunk_units: Ω, units gathered before the vocoder speaks.
        lookahead: frames of right context that it waits for; None: all that matters, so that the audio is the offline
        waveform. temperature: 0 is greedy. speak: False for text alone.
        Stop iterating (or call `close`) and the reply stops. Raises AudioError, ConfigError.
        """
        settings = ReplySettings(chunk_units, lookahead, max_new_tokens, speak,
                                 SamplingSettings(temperature, top_p, top_k, seed))
        return self._events(lambda clock, timings: self._listen(question, self.prompt_ids, clock, timings), settings)

    def respond_text(self, question: str, **options: Unpack[Options]) -> Iterator[Event]:
        """Answer a written question; the options are those of `respond`."""
        if self.tokenizer is None:
            raise CheckpointError("tokenizer: this checkpoint has none; expected tokenizer.json beside config.json")
        words = self.tokenizer.encode(self.prompt.typed(question), add_special_tokens=False)
        if not words:
            raise ConfigError(f"question: found {question!r}; expected some words")
        ids = [token for place in self.prompt_ids for token in (words if place == SPEECH else [place])]
        return self._events(lambda _, __: self._embed(ids), _settings(**options))

    def transcribe(self, question: Question, *, max_new_tokens: int = 256) -> str:
        """The words of a spoken question. Raises ConfigError if the model was not trained to give them."""
        if (prompt := self.prompt.transcribe_ids(self.tokenizer)) is None:
            raise ConfigError("transcribe: this checkpoint's config.json names no transcription prompt")
        settings = ReplySettings(max_new_tokens=max_new_tokens, speak=False)
        *_, done = self._events(lambda clock, timings: self._listen(question, prompt, clock, timings), settings)
        assert isinstance(done, Done)
        return done.reply.text

    def voice(self, tokens: int, settings: ReplySettings) -> Voice:
        """What speaks one reply of so many tokens at most."""
        return Voice(self.model.speech_decoder, self.vocoder, tokens, settings.chunk_units, settings.lookahead)

    def encode(self, mel: Tensor) -> Tensor:
        """The LLM's positions [S, D] of a question's mel [1, T, C]."""
        return self.model.encode(mel).data[0]

    def _events(self, prompt: Callable[[Clock, Timings], Tensor], settings: ReplySettings) -> Iterator[Event]:
        """The reply's events; while the caller holds one, the clock stands still."""
        clock = self.clock()
        with closing(self._reply(prompt, settings, clock)) as events:
            for event in events:
                with clock.paused():
                    yield event

    @torch.inference_mode()
    def _reply(self, prompt: Callable[[Clock, Timings], Tensor], settings: ReplySettings, clock: Clock
               ) -> Generator[Event, None, None]:
        timings, sound = Timings(), list[Tensor]()
        embeds = prompt(clock, timings)
        limit = self._room(embeds.shape[1], settings.max_new_tokens)
        writer, token_ids, text = Detokeniser(self.tokenizer), list[int](), ""
        voice = self.voice(limit, settings) if settings.speak else None

        for token, state in self._tokens(embeds, limit, settings.sampling, clock, timings):
            ended = token in self.end_ids
            if ended and not token_ids:
                voice = None  # nothing was said, so nothing is spoken
            token_ids.append(token)
            if not ended and (delta := writer.push(token)):
                text += delta
                yield Text(delta)
            if voice and voice.hear(state):
                timings.first_units = timings.first_units or clock.now()
                if len(samples := voice.speak()):
                    yield _sound(samples, sound, clock, timings)
        if delta := writer.finish():
            text += delta
            yield Text(delta)
        if voice and voice.units:
            timings.first_units = timings.first_units or clock.now()
        if voice and len(samples := voice.finish()):
            yield _sound(samples, sound, clock, timings)

        audio = timings.end(clock.now(), sound, self.sample_rate)
        units = voice.units if voice else []
        cut = token_ids[-1] not in self.end_ids
        yield Done(Reply(text, token_ids, units, audio, self.sample_rate, timings, cut=cut))

    def _tokens(self, embeds: Tensor, limit: int, sampling: SamplingSettings, clock: Clock, timings: Timings
                ) -> Iterator[tuple[int, Tensor]]:
        """Each token of the reply, the end token included, and the LLM state [1, 1, D] by which it is spoken."""
        state = self.llm.initial_state(1, capacity=embeds.shape[1] + limit)
        chance = self.sampler.initial_state(1, sampling, embeds.device) if sampling.temperature else None
        consumed = self.config.states_fed == "consumed"

        def step(x: Tensor) -> Tensor:
            return self.llm.step(Chunk.full(x), state)[0].data[:, -1:]

        hidden = step(embeds)
        timings.prefill = clock.lap()
        for count in range(1, limit + 1):
            logits = self.llm.logits(hidden)
            ids = self.sampler.step(Chunk.full(logits), chance)[0].data if chance else logits.argmax(-1)
            token = int(ids)
            timings.first_token = timings.first_token or clock.now()
            if consumed:
                hidden = step(self.embedding(ids))
            yield token, hidden
            if token in self.end_ids:
                return
            if not consumed and count < limit:
                hidden = step(self.embedding(ids))

    def _listen(self, question: Question, prompt: Sequence[int], clock: Clock, timings: Timings) -> Tensor:
        """The prompt's embeddings [1, T, D] with the question in its place."""
        wave = read_audio(question)
        if len(wave) > (longest := self.model.max_samples):
            raise AudioError(f"question: lasts {len(wave) / SAMPLE_RATE:.1f} s; "
                             f"this model hears at most {longest / SAMPLE_RATE:.1f} s")
        mel = self.model.log_mel(wave[None])
        timings.mel = clock.lap()
        speech = self.encode(mel)
        timings.encode = clock.lap()
        return self._embed(prompt, speech)

    def _embed(self, ids: Sequence[int], speech: Tensor | None = None) -> Tensor:
        """Embeddings [1, T, D] of a prompt."""
        places = torch.tensor(ids, dtype=torch.long, device=self.model.llm.device)
        return self.model.embed_prompt(places, speech)[None]

    def _room(self, positions: int, wanted: int) -> int:
        """How many new tokens fit behind a prompt: those wanted, or as many as the LLM has positions for."""
        most = self.llm.max_positions
        if most is None or positions + wanted <= most:
            return wanted
        if positions >= most:
            raise AudioError(f"question: takes {positions} positions with its prompt; this LLM has {most}")
        return int(most - positions)


def _sound(samples: Tensor, sound: list[Tensor], clock: Clock, timings: Timings) -> Audio:
    """An event of samples [n], which are noted in `sound`."""
    timings.first_audio = timings.first_audio or clock.now()
    with torch.inference_mode(False):  # the caller may do with them what he likes
        sound.append(samples.float().cpu().clone())
    return Audio(sound[-1])


def _settings(temperature: float = 0.0, top_p: float = 1.0, top_k: int = 0, seed: int = 0,
              **rest: Any) -> ReplySettings:
    return ReplySettings(**rest, sampling=SamplingSettings(temperature, top_p, top_k, seed))
