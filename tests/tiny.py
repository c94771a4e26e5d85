"""Tiny random models, built in a moment, that reply at length with varied words and units."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from omnivox.checkpoint.prompt import Prompt
from omnivox.model.config import (
    AdaptorConfig,
    EncoderConfig,
    MelConfig,
    OmniConfig,
    SourceFilterConfig,
    SpeechDecoderConfig,
)
from omnivox.model.omni import SpokenLM
from omnivox.model.source_filter import SourceFilter
from omnivox.runtime.respond import Omni
from omnivox.runtime.sampling import SamplingSettings

WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", "<answer>", "<words>", *(f"word{i}" for i in range(58))]
UNITS = 12
GREEDY = SamplingSettings()
CONFIG = OmniConfig(
    mel=MelConfig(n_mels=8, pad_to_chunk=False),
    encoder=EncoderConfig(n_mels=8, width=16, layers=1, heads=2, positions=200, strides=(2, 2)),
    adaptor=AdaptorConfig(k=2, encoder_width=16, inner_width=16, llm_width=16),
    speech_decoder=SpeechDecoderConfig(llm_width=16, width=16, layers=1, heads=2, ffn=24, upsample=5, units=UNITS,
                                       position_embedding=True),
)


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>",
                                   unk_token="<unk>", additional_special_tokens=["<answer>", "<words>"])


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte: most characters outside ASCII need several."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    table = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    table.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    table.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=table)


def llm(**changes: Any) -> LlamaForCausalLM:
    settings = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                "num_key_value_heads": 1, "vocab_size": len(WORDS), "max_position_embeddings": 256, "bos_token_id": 1,
                "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.5} | changes
    return LlamaForCausalLM(LlamaConfig(**settings))


def vocoder(units: int = UNITS) -> SourceFilter:
    return SourceFilter(SourceFilterConfig(units=units, width=8, pitch_width=8, duration_width=8)).eval()


def omni(seed: int = 0, *, end_ids: tuple[int, ...] = (2,), llm_changes: dict[str, Any] | None = None,
         **changes: Any) -> Omni:
    """An `Omni` of random weights. `changes` are to `CONFIG`; `end_ids` decide where its replies end."""
    torch.manual_seed(seed)
    model = SpokenLM(replace(CONFIG, **changes), llm(**(llm_changes or {})))
    with torch.no_grad():
        model.speech_decoder.output_proj.weight.mul_(8)  # varied units instead of one for ever
        model.speech_decoder.position_embedding.mul_(5)
        model.adaptor.linear2.weight.mul_(8)
    return Omni(model, vocoder(), tokenizer(), Prompt(before=(1,), after=(4,), end_ids=end_ids, transcribe=(5,)))


def question(seconds: float = 1.0, seed: int = 0) -> Tensor:
    """Noise [n] at 16 kHz."""
    return 0.1 * torch.randn(int(16000 * seconds), generator=torch.Generator().manual_seed(seed))
