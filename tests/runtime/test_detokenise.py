"""Text as it comes equals the text of all tokens, and never shows half a character."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from omnivox.runtime.detokenise import Detokeniser
from tests import tiny

BYTES, WORDS = tiny.byte_tokenizer(), tiny.tokenizer()


def deltas(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> list[str]:
    writer = Detokeniser(tokenizer)
    return [*(writer.push(token) for token in ids), writer.finish()]


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=12))
def test_bytes_of_any_text(text: str) -> None:
    found = deltas(BYTES, BYTES.encode(text, add_special_tokens=False))
    assert "".join(found) == text
    assert found[-1] == "" or "\N{REPLACEMENT CHARACTER}" in text


def test_no_half_character_is_shown() -> None:
    ids = BYTES.encode("né 🙂!", add_special_tokens=False)
    assert [delta for delta in deltas(BYTES, ids) if delta] == ["n", "é", " ", "🙂", "!"]


def test_a_reply_cut_within_a_character_shows_it_at_the_end() -> None:
    ids = BYTES.encode("a🙂", add_special_tokens=False)[:-1]
    assert deltas(BYTES, ids)[:-1] == ["a", "", "", ""]
    assert "".join(deltas(BYTES, ids)) == BYTES.decode(ids)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, len(tiny.WORDS) - 1), max_size=20))
def test_words_and_special_tokens(ids: list[int]) -> None:
    """Spaces between words survive special tokens in between, which are not shown."""
    assert "".join(deltas(WORDS, ids)) == WORDS.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("n", [10, 400])
def test_the_cost_of_a_token_does_not_grow(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    longest, decode = 0, WORDS.decode

    def watch(ids: list[int], **options: bool) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return str(decode(ids, **options))

    monkeypatch.setattr(WORDS, "decode", watch)
    deltas(WORDS, [10] * n)
    assert longest <= 3
