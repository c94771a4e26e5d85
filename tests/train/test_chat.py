"""Every family's own chat template becomes pieces around speech, and training reads what the model will read in use."""

from __future__ import annotations

import pytest
import torch

from omnivox.checkpoint.prompt import piece_ids
from omnivox.errors import ConfigError
from omnivox.model.omni import IGNORED, SPEECH
from omnivox.train.chat import INSTRUCTION, chat_prompt, conversation_ids
from tests.train import families

SYSTEM = "Be brief."
BEFORE = {
    "llama": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
             "<|start_header_id|>user<|end_header_id|>\n\n",
    "qwen": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n",
    "qwen3": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n",
    "smollm": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n",
    "mistral": "<s>[INST] Be brief.\n\n",
    "gemma": "<bos><start_of_turn>user\nBe brief.\n\n",
}
AFTER = {
    "llama": "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "qwen": "<|im_end|>\n<|im_start|>assistant\n", "smollm": "<|im_end|>\n<|im_start|>assistant\n",
    "qwen3": "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "mistral": "[/INST]", "gemma": "<end_of_turn>\n<start_of_turn>model\n",
}
END_AGAIN = {
    "llama": ("<|eot_id|>", "<|start_header_id|>user<|end_header_id|>\n\n"),
    "qwen": ("<|im_end|>", "\n<|im_start|>user\n"), "smollm": ("<|im_end|>", "\n<|im_start|>user\n"),
    "qwen3": ("<|im_end|>", "\n<|im_start|>user\n"),
    "mistral": ("</s>", "[INST] "), "gemma": ("<end_of_turn>", "\n<start_of_turn>user\n"),
}


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_template_becomes_pieces_around_speech(family: str) -> None:
    tokenizer = families.tokenizer(family)
    prompt = chat_prompt(tokenizer, system=SYSTEM)
    assert prompt.before == BEFORE[family]
    assert prompt.after == INSTRUCTION + AFTER[family]
    end, again = END_AGAIN[family]
    assert (tokenizer.convert_ids_to_tokens(prompt.end_ids[0]), prompt.again) == (end, again)
    assert prompt.system == SYSTEM
    assert SYSTEM not in str(chat_prompt(tokenizer, system=None).before)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_several_turns_are_labelled_on_answers_and_their_ends_alone(family: str) -> None:
    tokenizer = families.tokenizer(family)
    prompt = chat_prompt(tokenizer, system=SYSTEM)
    ids, labels, turns = conversation_ids(prompt, tokenizer, ["It is Paris.", "It is Rome."])
    assert ids.count(SPEECH) == 2
    learnt = [label for label in labels if label != IGNORED]
    end = END_AGAIN[family][0]
    assert tokenizer.decode(learnt) == f"It is Paris.{end}It is Rome.{end}"
    assert all(label in (IGNORED, token) for token, label in zip(ids, labels, strict=True))
    assert [turn for turn in turns if turn != IGNORED] == sorted(turn for turn in turns if turn != IGNORED)
    assert {turn for turn, label in zip(turns, labels, strict=True) if label != IGNORED} == {0, 1}
    written = tokenizer.decode([token for token in ids if token != SPEECH])
    assert written == (BEFORE[family] + str(prompt.after) + "It is Paris." + end + END_AGAIN[family][1]
                       + str(prompt.after) + "It is Rome." + end)


def test_training_reads_what_a_conversation_reads_in_use() -> None:
    from omnivox.runtime.history import History, Speech
    from tests import tiny

    omni = tiny.omni(llm_changes={"vocab_size": 300})
    omni.tokenizer = families.tokenizer("qwen")
    omni.prompt = chat_prompt(omni.tokenizer, system=SYSTEM)
    omni.end_ids = frozenset(omni.prompt.end_ids)
    history = History(omni, context=4000)
    for answer in ("It is Paris.", None):
        history.add(history.speech(torch.zeros(1600)))
        if answer:
            history.add(history.text("assistant", answer))
    read: list[int] = []
    for segment in history.prompt():
        read += [SPEECH] if isinstance(segment, Speech) else list(segment)
    ids, _, _ = conversation_ids(omni.prompt, omni.tokenizer, ["It is Paris.", "x"])
    learnt = [*omni.tokenizer.encode("x", add_special_tokens=False), omni.prompt.end_ids[0]]
    assert read == ids[: -len(learnt)]


def test_more_tokens_that_end_a_reply_come_from_the_llm() -> None:
    tokenizer = families.tokenizer("gemma")
    prompt = chat_prompt(tokenizer, families.llm("gemma", eos_token_id=[3, 9]).config)
    assert prompt.end_ids == (tokenizer.convert_tokens_to_ids("<end_of_turn>"), 3, 9, tokenizer.eos_token_id)


def test_a_template_that_cannot_be_used_says_why() -> None:
    tokenizer = families.tokenizer("llama")
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="no chat template; expected an instruct model's"):
        chat_prompt(tokenizer)
    tokenizer.chat_template = "{{ messages[0]['content'] | upper }}<|eot_id|>"
    with pytest.raises(ConfigError, match="does not repeat what is said"):
        chat_prompt(tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + '\n' }}{% endfor %}"
    with pytest.raises(ConfigError, match="expected a special token that ends it"):
        chat_prompt(tokenizer)


def test_special_tokens_of_a_prompt_are_single_tokens() -> None:
    for family in families.FAMILIES:
        tokenizer = families.tokenizer(family)
        ids = piece_ids(chat_prompt(tokenizer, system=None).after, tokenizer)
        special = [tokenizer.convert_tokens_to_ids(token) for token in families.SPECIAL[family]]
        assert any(token in special for token in ids), family
