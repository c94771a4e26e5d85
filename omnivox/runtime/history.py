"""What has been said in one conversation, as the LLM will read it.

    items ─► prompt: pieces of token ids and of speech, in order
             ├── a model of many turns:   before question after answer end, again question after answer end, ...
             └── a model of single turns: before question after

Lives in the thread of whoever holds the conversation; what it gives to the engine is a snapshot.
Shapes: n samples, P positions, D LLM width.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from omnivox.checkpoint.prompt import Piece, piece_ids
from omnivox.errors import AudioError, CheckpointError, ConfigError
from omnivox.rates import SAMPLE_RATE
from omnivox.runtime.events import Reply
from omnivox.runtime.respond import Omni

Role = Literal["user", "assistant"]
LETTERS = 16  # of a text for each position of the context: a longer one cannot fit, and need not be tokenized to know
PIECES = 16  # parts of prompts whose token ids are kept; only instructions are ever others
_numbers = itertools.count()


@dataclass(eq=False)
class Speech:
    """Somebody's spoken words: samples [n] at 16 kHz. The engine encodes them once, into `positions` [P, D]."""

    samples: Tensor
    positions: Tensor | None = None
    number: int = field(default_factory=lambda: next(_numbers))


Segment = tuple[int, ...] | Speech
"""A stretch of a prompt: token ids, or speech."""


@dataclass(eq=False)
class Item:
    """One thing said: text as token ids, or speech. whole, ends: all token ids of an answer that was spoken, and where
    each one's sound ends (samples at the reply's rate). ended: the content has the end token."""

    role: Role
    content: Segment
    whole: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    ended: bool = False

    def heard(self, samples: int) -> tuple[int, ...]:
        """The token ids whose sound began within the first `samples` of an answer."""
        starts = (0, *self.ends)
        return tuple(token for token, start in zip(self.whole, starts, strict=False) if start < samples)


class History:
    """The items of one conversation, oldest first; those that no longer fit leave at the front.

    context: positions that prompt and reply may take together; None: as many as the LLM has, 2048 at most.
    instructions: in the place of the checkpoint's own, where its prompt says what that place is.
    """

    def __init__(self, omni: Omni, instructions: str | None = None, context: int | None = None) -> None:
        self.omni = omni
        self.instructions = instructions
        self.context = context or min(2048, getattr(omni.llm.config, "max_position_embeddings", 2048))
        self.items: list[Item] = []
        self._pieces: dict[Piece, tuple[int, ...]] = {}

    # -- what is said -------------------------------------------------------------------------------------------------

    def speech(self, samples: Tensor) -> Item:
        """A spoken item of samples [n] at 16 kHz. Raises AudioError: empty, or longer than the model hears."""
        if not len(samples):
            raise AudioError("speech: holds no samples; expected some")
        if len(samples) > (longest := self.omni.model.max_samples):
            raise AudioError(f"speech: lasts {len(samples) / SAMPLE_RATE:.1f} s; "
                             f"this model hears at most {longest / SAMPLE_RATE:.1f} s")
        return Item("user", Speech(samples))

    def text(self, role: Role, text: str) -> Item:
        """A written item. Raises ConfigError where it has no words, CheckpointError without a tokenizer."""
        if self.omni.tokenizer is None:
            raise CheckpointError("tokenizer: this checkpoint has none; expected tokenizer.json beside config.json")
        typed = self.omni.prompt.typed(text) if role == "user" else text
        ids = self.omni.tokenizer.encode(typed, add_special_tokens=False)
        if not ids:
            raise ConfigError(f"text: found {text!r}; expected some words")
        return Item(role, tuple(ids))

    def answer(self, reply: Reply) -> Item:
        """What the model said, as far as it was made."""
        ids = tuple(reply.token_ids)
        return Item("assistant", ids, ids, tuple(reply.token_ends), self._ended(ids))

    def add(self, item: Item, place: int | None = None) -> None:
        """Put an item at the end, or at another place."""
        self.items.insert(len(self.items) if place is None else place, item)

    @property
    def full(self) -> bool:
        """Whether the items alone exceed the context."""
        return self._length(item.content for item in self.items) > self.context

    def trim(self) -> None:
        """Forget the oldest of what exceeds the context."""
        while self.full and self._forget():
            pass

    def remove(self, item: Item) -> None:
        """Forget an item, if it is still known."""
        if item in self.items:
            self.items.remove(item)

    def truncate(self, item: Item, samples: int) -> str:
        """Keep of an answer what was heard in its first `samples`; gives the text that is left.

        May be said again with more of it, when better is known.
        """
        ids = item.heard(samples)
        item.content, item.ended = ids, self._ended(ids)
        return self.words(ids)

    def _ended(self, ids: tuple[int, ...]) -> bool:
        return bool(ids) and ids[-1] in self.omni.end_ids

    def words(self, ids: Iterable[int]) -> str:
        """The text of token ids."""
        if self.omni.tokenizer is None:
            return ""
        text = self.omni.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    # -- what the LLM reads -------------------------------------------------------------------------------------------

    def prompt(self, room: int = 0) -> tuple[Segment, ...]:
        """Everything that the next answer depends on. `room`: positions to be left for it.

        Where the context is full the oldest turns are forgotten for good, until half of it is free: so that what is
        kept is read again once in a while and not at every turn. Of a last turn that alone is too long the oldest items
        are. Raises AudioError: the last question alone is too long.
        """
        while (size := self._length(remembered := self._remembered())) + room > self.context:
            if not self._forget():
                raise AudioError(f"question: takes {size} positions with its prompt and {room} for the answer; "
                                 f"this conversation has {self.context}")
        if self.omni.prompt.again is None:
            return remembered[0], *self._question(), remembered[-1]
        return remembered

    def transcription(self, item: Item) -> tuple[Segment, ...] | None:
        """A prompt that asks for the words of a spoken item; None for a model that cannot give them."""
        prompt = self.omni.prompt
        if prompt.transcribe is None:
            return None
        return self._ids(prompt.before), item.content, self._ids(prompt.transcribe)

    def _ids(self, piece: Piece) -> tuple[int, ...]:
        """Token ids of a part of the prompt; a text is read by the tokenizer once."""
        if piece not in self._pieces:
            if len(self._pieces) >= PIECES:
                self._pieces.clear()
            self._pieces[piece] = tuple(piece_ids(piece, self.omni.tokenizer))
        return self._pieces[piece]

    def _remembered(self) -> tuple[Segment, ...]:
        """All that is remembered: to a model of many turns its prompt."""
        prompt = self.omni.prompt
        before, after = self._ids(prompt.instructed(self.instructions)), self._ids(prompt.after)
        if prompt.again is None:
            return before, *(item.content for item in self.items), after
        again, segments, role = self._ids(prompt.again), list[Segment]([before]), "user"
        for item in self.items:
            if item.role != role:
                segments.append(after if item.role == "assistant" else again)
                role = item.role
            segments.append(item.content)
            if item.role == "assistant" and not item.ended:
                segments.append(self.omni.prompt.end_ids[:1])
        if role == "assistant":  # to go on without a new question
            segments.append(again)
        return *segments, after

    def _question(self) -> list[Segment]:
        """What was said since the last answer; where nothing was, the question before it."""
        said: list[Segment] = []
        for item in reversed(self.items):
            if item.role == "user":
                said.append(item.content)
            elif said:
                break
        return said[::-1]

    def _length(self, segments: Iterable[Segment]) -> int:
        return sum(self.omni.model.speech_positions(len(part.samples)) if isinstance(part, Speech) else len(part)
                   for part in segments)

    def _forget(self) -> bool:
        """Drop whole turns at the front, up to the half of the context; of the only turn its oldest items, but for the
        last question. False where nothing else is left."""
        asked = [i for i, item in enumerate(self.items) if i > 0 and item.role == "user"]
        starts = [i for i in asked if self.items[i - 1].role == "assistant"] or asked
        if not starts:  # a question, or none, and what was answered
            if len(self.items) < 2:
                return False
            del self.items[1 if self.items[0].role == "user" else 0]
            return True
        left, before = self._length(item.content for item in self.items), 0
        for start in starts:
            left -= self._length(item.content for item in self.items[before:start])
            before = start
            if left <= self.context // 2:
                break
        del self.items[:before]
        return True
