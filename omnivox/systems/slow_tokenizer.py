"""Text as the slow Llama tokenizers of 2023 cut it: first at added tokens, then each stretch between by SentencePiece.

Spaces beside an added token are lost, and each stretch gets SentencePiece's own space in front; today's tokenizers do
neither, and a prompt cut in their way is not what SpeechGPT (transformers 4.33) and SALMONN were trained on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omnivox.checkpoint.files import read_json
from omnivox.errors import CheckpointError, ConfigError


class SlowTokenizer:
    """tokenizer.model and added_tokens.json of a folder. `added`: ids of added tokens; `bos`, `eos`: of the edges."""

    def __init__(self, folder: Path) -> None:
        self._model = _sentencepiece(folder / "tokenizer.model")
        self.bos, self.eos = int(self._model.bos_id()), int(self._model.eos_id())
        self.added = _added(folder)
        for token, place in self.added.items():
            if place < len(self._model):
                raise CheckpointError(f"{folder / 'added_tokens.json'}: {token!r} is {place}; expected "
                                      f"{len(self._model)} or more, behind the pieces of tokenizer.model")
        longest = sorted(self.added, key=len, reverse=True)
        self._cut = re.compile("(" + "|".join(map(re.escape, longest)) + ")") if longest else None

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without those of the edges."""
        stretches = self._cut.split(text) if self._cut else [text]
        ids = list[int]()
        for place, stretch in enumerate(stretches):
            if place % 2:
                ids.append(self.added[stretch])
                continue
            stretch = stretch if place == 0 else stretch.lstrip()
            stretch = stretch if place == len(stretches) - 1 else stretch.rstrip()
            ids += self._model.encode(stretch) if stretch else []
        return ids

    def decode(self, token_ids: Iterable[int], *, skip_special_tokens: bool = True,
               clean_up_tokenization_spaces: bool = False) -> str:
        """The text of pieces; added tokens have none."""
        return str(self._model.decode([token for token in token_ids if token < len(self._model)]))


def _sentencepiece(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected the SentencePiece model of its publisher")
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise ConfigError("Python package sentencepiece is missing; install it with: "
                          "pip install 'omnivox[evaluate]'") from error
    try:
        return SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise CheckpointError(f"{path}: no SentencePiece model, or one cut short "
                              f"({str(error).splitlines()[0]})") from error


def _added(folder: Path) -> dict[str, int]:
    path = folder / "added_tokens.json"
    if not path.exists():
        return {}
    found = read_json(path)
    for token, place in found.items():
        if isinstance(place, bool) or not isinstance(place, int):
            raise CheckpointError(f"{path}: {token!r} is {place!r}; expected a token's id")
    return found
