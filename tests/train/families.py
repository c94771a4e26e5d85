"""Tiny LLMs of the families people train on, with tokenizers and chat templates such as theirs; and a tiny Whisper."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from omnivox.checkpoint.whisper import OPENAI_DIMS, openai_name
from omnivox.model.config import EncoderConfig
from omnivox.model.encoder import Encoder

CHATML = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
          "'<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
TEMPLATES = {
    "llama": ("{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + "
              "'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"),
    "qwen": ("{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are Qwen.<|im_end|>\n' }}{% endif %}"
             + CHATML),
    "qwen3": CHATML.replace("assistant\n' }}", "assistant\n' }}{% if enable_thinking is defined and not "
                            "enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"),
    "smollm": CHATML,
    "mistral": ("{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\n\n' %}"
                "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
                "{{ bos_token }}{% for message in turns %}{% if message['role'] == 'user' %}"
                "{{ '[INST] ' + (system if loop.last else '') + message['content'] + '[/INST]' }}"
                "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"),
    "gemma": ("{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
              "{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}"
              "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
              "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"),
}
SPECIAL = {
    "llama": ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "qwen": ["<|im_start|>", "<|im_end|>", "<|endoftext|>"], "smollm": ["<|im_start|>", "<|im_end|>"],
    "qwen3": ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>"],
    "mistral": ["<s>", "</s>", "[INST]", "[/INST]"],
    "gemma": ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
}
BOS_EOS = {"llama": ("<|begin_of_text|>", "<|eot_id|>"), "qwen": (None, "<|im_end|>"), "smollm": (None, "<|im_end|>"),
           "qwen3": (None, "<|im_end|>"), "mistral": ("<s>", "</s>"), "gemma": ("<bos>", "<eos>")}
KINDS: dict[str, tuple[type[Any], type[Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM), "qwen": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM), "smollm": (SmolLM3Config, SmolLM3ForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM), "gemma": (Gemma2Config, Gemma2ForCausalLM),
}
FAMILIES = tuple(KINDS)
WHISPER = EncoderConfig(n_mels=8, width=16, layers=1, heads=2, positions=1500)


def tokenizer(family: str) -> PreTrainedTokenizerFast:
    """One token a byte, and the family's special tokens and template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    table = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    table.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    table.decoder = decoders.ByteLevel()
    bos, eos = BOS_EOS[family]
    made = PreTrainedTokenizerFast(tokenizer_object=table, bos_token=bos, eos_token=eos, pad_token=eos)
    made.add_special_tokens({"additional_special_tokens": SPECIAL[family]})
    made.chat_template = TEMPLATES[family]
    return made


def llm(family: str, width: int = 16, **changes: Any) -> PreTrainedModel:
    """Random weights."""
    config_type, model_type = KINDS[family]
    words = tokenizer(family)
    settings = {"hidden_size": width, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                "num_key_value_heads": 1, "head_dim": 8, "vocab_size": len(words), "max_position_embeddings": 2048,
                "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id,
                "pad_token_id": words.pad_token_id} | changes
    model: PreTrainedModel = model_type(config_type(**settings))
    return model


def llm_folder(folder: Path, family: str, seed: int = 0, **changes: Any) -> Path:
    """As the hub would give it."""
    torch.manual_seed(seed)
    llm(family, **changes).save_pretrained(folder)
    tokenizer(family).save_pretrained(folder)
    return folder


def whisper_folder(folder: Path, seed: int = 1, config: EncoderConfig = WHISPER) -> Path:
    """An encoder in OpenAI's form; gives its file."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    values = {openai_name(name): value.clone() for name, value in Encoder(config).state_dict().items()}
    dims = {theirs: asdict(config)[ours] for ours, theirs in OPENAI_DIMS.items()}
    torch.save({"dims": json.loads(json.dumps(dims)), "model_state_dict": values}, folder / "tiny.pt")
    return folder / "tiny.pt"
