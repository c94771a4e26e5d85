"""What is said to the LLM around a question's speech, and how it says that its answer ends."""

from __future__ import annotations

import re
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from omnivox.errors import CheckpointError
from omnivox.model.config import Config
from omnivox.model.omni import SPEECH

Piece = str | tuple[int, ...]
"""A part of a prompt: text, special tokens and all, or token ids."""


@dataclass(frozen=True)
class Prompt(Config):
    """before, after: what surrounds the speech. transcribe: what stands in the place of `after` to ask for the words of
    the question, for models trained so. end_ids: tokens that end a reply.

    again: what stands in the place of `before` from a conversation's second turn on; None: a model that knows no
    earlier turns and hears each question alone. system: the part of `before`, a text, whose place a conversation's own
    instructions take; None: a model that takes no instructions.

    spoken: the model knows questions only as they are spoken, so typed ones lose capitals and punctuation."""

    before: Piece = ()
    after: Piece = ()
    end_ids: tuple[int, ...] = ()
    transcribe: Piece | None = None
    again: Piece | None = None
    system: str | None = None
    spoken: bool = False

    def __post_init__(self) -> None:
        if self.system is not None and (not isinstance(self.before, str) or self.system not in self.before):
            raise CheckpointError(f"prompt.system: found {self.system[:40]!r}; expected a part of prompt.before")

    def instructed(self, instructions: str | None) -> Piece:
        """`before` with these instructions in the place of the checkpoint's own, where it takes any."""
        if instructions is None or self.system is None or not isinstance(self.before, str):
            return self.before
        return self.before.replace(self.system, instructions, 1)

    def typed(self, question: str) -> str:
        """A typed question as the model knows it."""
        if not self.spoken:
            return question
        return re.sub(r"(?<![.,?!;:])[.,?!;:]+(?=\s|$)", "", question.lower())  # looked at once from where stops begin

    def ids(self, tokenizer: PreTrainedTokenizerBase | None = None) -> list[int]:
        """Token ids with SPEECH where the question goes. Raises CheckpointError: text, and no tokenizer to read it."""
        return [*piece_ids(self.before, tokenizer), SPEECH, *piece_ids(self.after, tokenizer)]

    def transcribe_ids(self, tokenizer: PreTrainedTokenizerBase | None = None) -> list[int] | None:
        """The same, asking for the words of the question; None for a model that was not trained to give them."""
        if self.transcribe is None:
            return None
        return [*piece_ids(self.before, tokenizer), SPEECH, *piece_ids(self.transcribe, tokenizer)]


def piece_ids(piece: Piece, tokenizer: PreTrainedTokenizerBase | None) -> list[int]:
    """Token ids of a part of a prompt."""
    if not isinstance(piece, str):
        return list(piece)
    if tokenizer is None:
        raise CheckpointError(f"prompt: is the text {piece[:40]!r}..., and the checkpoint has no tokenizer; "
                              "expected tokenizer.json beside config.json")
    ids: list[int] = tokenizer.encode(piece, add_special_tokens=False)  # the template writes its own: no second <bos>
    return ids
