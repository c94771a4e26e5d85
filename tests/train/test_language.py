"""What the LLM is shown in writing: questions as a listener may have heard them, with the answers that they deserve."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from omnivox.nano import dialogues
from omnivox.nano.dialogues import Dialogue
from omnivox.nano.rephrase import GLUE
from omnivox.nano.topics import decline
from omnivox.nano.words import ANSWER, BLANK, TRANSCRIBE, UNKNOWN, build_tokenizer
from omnivox.train.language import (
    LanguageConfig,
    Reader,
    build_llm,
    overheard,
    spread,
    train_language,
    written_batch,
)
from omnivox.train.loop import Schedule

QUESTION = "what is the capital of france"
DIALOGUE = Dialogue("capitals", QUESTION, "The capital of France is Paris.")
PLAIN = LanguageConfig(Schedule(steps=3, lr=1e-2), width=32, layers=1, heads=2, ffn=32, batch=4, transcribe=0, spread=0,
                       drop=0, glue=0, unheard=0, strange=0, exam=2)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    answers = ["The", "France", "Paris", ".", ",", "Sorry", "I", "don't", "know"]
    return build_tokenizer([*QUESTION.split(), *GLUE, *answers])


def batch(tokenizer: PreTrainedTokenizerFast, **settings: float) -> tuple[list[str], list[str]]:
    """Tokens of one example's prompt and of what is to be learned."""
    ids, labels = written_batch([DIALOGUE], tokenizer, replace(PLAIN, **settings), random.Random(5))
    learnt = labels[0] != -100
    return (tokenizer.convert_ids_to_tokens(ids[0][~learnt].tolist()),
            tokenizer.convert_ids_to_tokens(labels[0][learnt].tolist()))


def test_a_plain_example_is_the_question_and_its_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt, target = batch(tokenizer)
    assert prompt == ["<bos>", *QUESTION.split(), ANSWER]
    assert target == ["The", "capital", "of", "France", "is", "Paris", ".", "<eos>"]


def test_spread_words_keep_their_order_among_blanks(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt, _ = batch(tokenizer, spread=1.0)
    words = [word for word in prompt[1:-1] if word != BLANK]
    assert [word for i, word in enumerate(words) if i == 0 or word != words[i - 1]] == QUESTION.split()
    rows = [spread([7, 8], 0, random.Random(seed)) for seed in range(200)]
    assert all([x for x in dict.fromkeys(row) if x] == [7, 8] for row in rows)
    assert 4 < sum(map(len, rows)) / 200 < 16


def test_a_word_that_was_not_understood_is_declined(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt, target = batch(tokenizer, unheard=1.0)
    assert prompt.count(UNKNOWN) == 1
    assert prompt[1:4] == ["what", "is", "the"]  # the rarest word is lost, not these
    assert target[:-1] == ["Sorry", ",", "I", "don't", "know", "that", "."]
    _, target = batch(tokenizer, strange=1.0)
    assert tokenizer.decode(tokenizer.convert_tokens_to_ids(target[:-1])) == decline.ANSWER


def test_a_question_to_be_repeated_is_repeated_as_it_was(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt, target = batch(tokenizer, transcribe=1.0, glue=1.0, drop=1.0)
    assert prompt[-1] == TRANSCRIBE
    assert prompt[1:-1] == target[:-1] == QUESTION.split()


def test_an_overheard_question_keeps_what_is_asked_about() -> None:
    config = replace(PLAIN, glue=0.5, drop=1.0)
    heard = [overheard(QUESTION.split(), config, random.Random(seed), {"france"}) for seed in range(300)]
    assert all("france" in words for words in heard)
    assert 0 < sum("capital" not in words for words in heard) < 150


def test_the_embeddings_that_the_llm_reads_stay(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    table = torch.randn(len(tokenizer), PLAIN.width)
    torch.manual_seed(PLAIN.seed)
    before = {name: value.clone() for name, value in build_llm(PLAIN, tokenizer, table).state_dict().items()}
    llm = train_language(tokenizer, lambda rng, split: DIALOGUE, tmp_path / "on", PLAIN, table)
    moved = {name for name, value in llm.state_dict().items() if not torch.equal(value, before[name])}
    assert torch.equal(llm.get_input_embeddings().weight, table)
    assert {"lm_head.weight", "model.layers.0.self_attn.q_proj.weight"} <= moved


def test_words_that_are_no_tokens_are_read_by_their_sounds(tokenizer: PreTrainedTokenizerFast,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    llm = build_llm(PLAIN, tokenizer, torch.randn(len(tokenizer), PLAIN.width))
    sounds = torch.randn(len(dialogues.strange_words()), PLAIN.width)
    reader = Reader(llm, tokenizer, sounds)
    strange, other = dialogues.strange_words()[:2]
    asked = [Dialogue("strange", f"what is the capital of {word}", decline.ANSWER) for word in (strange, other)]
    losses = [reader.loss([one], PLAIN, random.Random(5)) for one in asked]
    assert not torch.equal(*losses)  # each by its own sound, where the tokenizer has one <unk> for both
    plain = [Reader(llm, tokenizer).loss([one], PLAIN, random.Random(5)) for one in asked]
    assert torch.equal(*plain)
    seen: list[Tensor] = []
    monkeypatch.setattr("omnivox.train.language.next_token_loss",
                        lambda llm, inputs, labels: seen.append(inputs["inputs_embeds"]) or torch.zeros(()))
    reader.loss(asked[:1], PLAIN, random.Random(5))
    assert torch.equal(seen[0][0, 6], sounds[0])  # <bos> what is the capital of …
    assert torch.equal(seen[0][0, 5], llm.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("of")])
