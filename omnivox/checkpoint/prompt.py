"""What is said to the LLM around a question's speech, and how it says that its answer ends."""

from __future__ import annotations

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
    the question, for models trained so. end_ids: tokens that end a reply."""

    before: Piece = ()
    after: Piece = ()
    end_ids: tuple[int, ...] = ()
    transcribe: Piece | None = None

    def ids(self, tokenizer: PreTrainedTokenizerBase | None = None) -> list[int]:
        """Token ids with SPEECH where the question goes. Raises CheckpointError: text, and no tokenizer to read it."""
        return [*_ids(self.before, tokenizer), SPEECH, *_ids(self.after, tokenizer)]

    def transcribe_ids(self, tokenizer: PreTrainedTokenizerBase | None = None) -> list[int] | None:
        """The same, asking for the words of the question; None for a model that was not trained to give them."""
        if self.transcribe is None:
            return None
        return [*_ids(self.before, tokenizer), SPEECH, *_ids(self.transcribe, tokenizer)]


def _ids(piece: Piece, tokenizer: PreTrainedTokenizerBase | None) -> list[int]:
    if not isinstance(piece, str):
        return list(piece)
    if tokenizer is None:
        raise CheckpointError(f"prompt: is the text {piece[:40]!r}..., and the checkpoint has no tokenizer; "
                              "expected tokenizer.json beside config.json")
    ids: list[int] = tokenizer.encode(piece, add_special_tokens=False)  # the template writes its own: no second <bos>
    return ids
