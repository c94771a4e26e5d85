"""nano's tokenizer: whole words and punctuation marks, in a `tokenizers` file that transformers loads."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, ANSWER, TRANSCRIBE, UNKNOWN, BLANK = SPECIAL = (
    "<pad>", "<bos>", "<eos>", "<answer>", "<transcribe>", "<unk>", "<blank>")
"""Prompts are `<bos> question <answer>` and `<bos> question <transcribe>`, the question spoken or written.

BLANK is a position of speech at which no word ends: the blank of the encoder's CTC over words.
"""


def build_tokenizer(vocabulary: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer over the special tokens and the given words; text is split at spaces and around punctuation."""
    words = [*SPECIAL, *sorted(set(vocabulary))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(),
        pre_tokenizers.Split(Regex(r"[.,?!]"), behavior="isolated"),
    ])
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS,
                                   unk_token=UNKNOWN, additional_special_tokens=[ANSWER, TRANSCRIBE, BLANK],
                                   clean_up_tokenization_spaces=False)
