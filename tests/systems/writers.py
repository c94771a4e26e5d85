"""Writers of tiny published checkpoints, and a voice that turns words into tones."""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import pickle
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

SENTENCES = ["who are you; [ta] My name is Ada Lovelace; [ua] <eoa>", "USER: <Speech></Speech> ASSISTANT:",
             "Please answer the question in detail.", "You are an AI assistant whose name is SpeechGPT.",
             "It can perceive cross-modal inputs and generate cross-modal outputs."]


class Tone:
    """A TTS: a tone for each piece that it is given, whose length tells of the piece's."""

    sample_rate = 8000

    def settings(self) -> Mapping[str, Any]:
        return {"engine": "tone"}

    def speak(self, words: Iterator[str]) -> Iterator[Tensor]:
        for some in words:
            yield torch.empty(0)
            yield 0.2 * torch.sin(torch.arange(10 * len(some)) / 5)


@cache
def sentencepiece_model(size: int) -> bytes:
    """With the settings of Llama's own: BPE, bytes for what is unknown, spaces kept."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20), model_writer=model, model_type="bpe", vocab_size=size,
        byte_fallback=True, split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        hard_vocab_limit=False, minloglevel=2)
    return model.getvalue()


def sentencepiece_file(folder: Path, size: int = 440) -> None:
    """tokenizer.model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(size))


def without_repeats(pieces: SentencePieceProcessor, ids: Sequence[int]) -> list[int]:
    """The same text, bytes standing for pieces that were there before."""
    line = list[int]()
    for token in ids:
        text = pieces.id_to_piece(token).replace("▁", " ").encode() if token in line else b""
        line += [pieces.piece_to_id(f"<0x{byte:02X}>") for byte in text] or [token]
    return line


def llama(vocabulary: int, seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    settings = {"vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
                "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 2048,
                "initializer_range": 0.3, "pad_token_id": 0} | changes
    return LlamaForCausalLM(LlamaConfig(**settings)).eval()


@torch.no_grad()
def recite(model: LlamaForCausalLM, line: Sequence[int]) -> None:
    """Make the model say each token of `line` after the one before it, whatever else it knows; none occurs twice."""
    assert len(set(line)) == len(line)
    for layer in model.model.layers:
        nn.init.zeros_(layer.self_attn.o_proj.weight)
        nn.init.zeros_(layer.mlp.down_proj.weight)
    nn.init.orthogonal_(model.model.embed_tokens.weight)
    nn.init.zeros_(model.lm_head.weight)
    for before, after in itertools.pairwise(line):
        model.lm_head.weight[after] = 20 * model.model.embed_tokens.weight[before]


def llama_folder(folder: Path, model: LlamaForCausalLM, without: str = "") -> Path:
    """As it was saved in 2023: one pytorch_model.bin, the angles of the positions in it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float16", "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 0, "hidden_act": "silu", "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": False, "use_cache": True, "transformers_version": "4.29.0",
        "initializer_range": config.initializer_range, **{name: getattr(config, name) for name in (
            "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "max_position_embeddings")}}))
    values = {name: value.clone() for name, value in model.state_dict().items() if name != without}
    for layer in range(config.num_hidden_layers):
        values[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.zeros(8)
    torch.save(values, folder / "pytorch_model.bin")
    return folder


def lora(model: LlamaForCausalLM, rank: int = 4, form: str = "{}", seed: int = 3) -> dict[str, Tensor]:
    """Halves for q_proj and v_proj of every layer. form: of the name, around `model.layers.N...lora_A`."""
    made, chance = {}, torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        if name.endswith(("q_proj.weight", "v_proj.weight")):
            out, into = value.shape
            for half, shape in (("A", (rank, into)), ("B", (out, rank))):
                made[form.format(f"{name.removesuffix('.weight')}.lora_{half}")] = 0.3 * torch.randn(
                    shape, generator=chance)
    return made


def lora_folder(folder: Path, model: LlamaForCausalLM, rank: int = 4, alpha: int = 8, **changes: Any) -> Path:
    """As peft saved it in 2023."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({
        "base_model_name_or_path": "SpeechGPT-7B-cm", "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
        "init_lora_weights": True, "lora_alpha": alpha, "lora_dropout": 0.05, "modules_to_save": None,
        "peft_type": "LORA", "r": rank, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"} | changes))
    torch.save(lora(model, rank, "base_model.model.{}.weight"), folder / "adapter_model.bin")
    return folder


def kmeans_file(path: Path, centres: Tensor) -> None:
    """scikit-learn's model, pickled, without scikit-learn."""
    name = "sklearn.cluster._kmeans"
    kind = type("MiniBatchKMeans", (), {"__module__": name})
    kind.__qualname__ = "MiniBatchKMeans"
    module = types.ModuleType(name)
    module.MiniBatchKMeans = kind  # type: ignore[attr-defined]
    model = kind()
    model.__dict__.update(n_clusters=len(centres), cluster_centers_=np.asarray(centres), tol=0.0)
    before = sys.modules.copy()
    try:
        sys.modules[name] = module
        sys.modules.setdefault("sklearn", types.ModuleType("sklearn"))
        sys.modules.setdefault("sklearn.cluster", types.ModuleType("sklearn.cluster"))
        path.write_bytes(pickle.dumps(model))
    finally:
        for added in set(sys.modules) - set(before):
            del sys.modules[added]


def speech(seconds: float, seed: int = 0) -> Tensor:
    """Something with a voice's ups and downs [n] at 16 kHz."""
    time = torch.arange(round(16_000 * seconds)) / 16_000
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(seed))
    return (0.3 * torch.sin(2 * math.pi * (150 + 40 * torch.sin(9 * time)) * time) + 0.03 * noise) * torch.sin(
        7 * time).abs()


class Hostile:
    """Unpickled, it would make a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)
