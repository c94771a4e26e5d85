"""Token ids to text as they come, never half a character."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

_HALF = "\N{REPLACEMENT CHARACTER}"  # what a byte-level tokenizer shows for bytes that are no character yet


class Detokeniser:
    """Gives each token's text once it is whole; a constant cost for each token, however long the reply.

    A token's text depends on its left neighbour (spaces, joined bytes), so each is read together with those given last.
    Without a tokenizer there is no text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self.start = self.read = 0  # ids[start:read] were given last; ids[read:] have not been given
        self.shown = ""  # the text of ids[start:read]

    def push(self, token: int) -> str:
        """What `token` adds to the text; empty while a character is not whole."""
        self.ids.append(token)
        text = self._decode()
        if text.endswith(_HALF):
            return ""
        return self._give(text)

    def finish(self) -> str:
        """What is left at the end, half a character included: as decoding all tokens at once shows it."""
        return self._give(self._decode())

    def _decode(self) -> str:
        if self.tokenizer is None:
            return ""
        text = self.tokenizer.decode(self.ids[self.start :], skip_special_tokens=True,
                                     clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def _give(self, text: str) -> str:
        delta = text[len(self.shown) :]
        if delta:  # a token without text (a special one) is no left neighbour: wait for the next
            self.start, self.read = self.read, len(self.ids)
            self.shown = self._decode()
        return delta
