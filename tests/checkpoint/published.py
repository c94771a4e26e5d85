"""Tiny published checkpoints, written from random models: the folder, its Whisper file, its unit vocoder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from omnivox.checkpoint.files import write_tensors
from omnivox.checkpoint.hifigan import published_config, to_published
from omnivox.checkpoint.llama_omni import MODEL_TYPE, published_name
from omnivox.checkpoint.whisper import OPENAI_DIMS, openai_name
from omnivox.model.config import (
    AdaptorConfig,
    DurationConfig,
    EncoderConfig,
    HifiganConfig,
    MelConfig,
    OmniConfig,
    SpeechDecoderConfig,
)
from omnivox.model.hifigan import Hifigan
from omnivox.model.omni import SpokenLM

VOCABULARY, UNITS, LLAMA_WIDTH = 24, 7, 16
CONFIG = OmniConfig(
    mel=MelConfig(6),
    encoder=EncoderConfig(6, width=8, layers=2, heads=2, positions=1500),
    adaptor=AdaptorConfig(k=3, encoder_width=8, inner_width=10, llm_width=LLAMA_WIDTH),
    speech_decoder=SpeechDecoderConfig(LLAMA_WIDTH, width=12, layers=3, heads=1, ffn=20, upsample=4, units=UNITS,
                                       rope_theta=5000.0, norm_eps=1e-6),
)
CONFIG_JSON: dict[str, Any] = {
    "model_type": MODEL_TYPE, "torch_dtype": "bfloat16", "vocab_size": VOCABULARY, "hidden_size": LLAMA_WIDTH,
    "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
    "rms_norm_eps": 1e-6, "rope_theta": 5000.0, "rope_scaling": None, "eos_token_id": 3, "tie_word_embeddings": False,
    "speech_encoder": "models/speech_encoder/large-v3.pt", "speech_encoder_type": "whisper",
    "speech_encoder_hidden_size": 8, "speech_encoder_ds_rate": 3, "speech_projector_type": "linear",
    "speech_generator_type": "ctc", "ctc_decoder_config": "(3,12,1,20)", "ctc_upsample_factor": 4,
    "unit_vocab_size": UNITS,
}


def model(seed: int = 0) -> SpokenLM:
    torch.manual_seed(seed)
    keys = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "rms_norm_eps", "rope_theta", "eos_token_id")
    return SpokenLM(CONFIG, LlamaForCausalLM(LlamaConfig(**{key: CONFIG_JSON[key] for key in keys})))


def tensors(spoken: SpokenLM, encoder: bool = True) -> dict[str, Tensor]:
    """Under published names."""
    return {published_name(name): value.clone() for name, value in spoken.state_dict().items()
            if encoder or not name.startswith("encoder.")}


def write(folder: Path, values: dict[str, Tensor], form: str = "safetensors", **changes: Any) -> Path:
    """A published folder. form: safetensors, shards or bin; `changes` are to config.json, None takes a key away."""
    folder.mkdir()
    config = {key: value for key, value in (CONFIG_JSON | changes).items() if value is not None or key not in changes}
    (folder / "config.json").write_text(json.dumps(config))
    if form == "bin":
        torch.save(values, folder / "pytorch_model.bin")
    else:
        write_tensors(folder, values, shard_bytes=2000 if form == "shards" else 10**9)
    return folder


def whisper_file(folder: Path, spoken: SpokenLM, form: str = "pt") -> Path:
    """The model's encoder as OpenAI's file (with a tensor of the decoder beside, as there), or as safetensors."""
    folder.mkdir(exist_ok=True)
    values = {openai_name(name): value.clone() for name, value in spoken.encoder.state_dict().items()}
    dims = {theirs: asdict(CONFIG.encoder)[ours] for ours, theirs in OPENAI_DIMS.items()} | {"n_vocab": 9}
    if form == "pt":
        values["decoder.ln.weight"] = torch.ones(8)
        torch.save({"dims": dims, "model_state_dict": values}, folder / "tiny.pt")
        return folder / "tiny.pt"
    (folder / "whisper_dims.json").write_text(json.dumps(dims))
    save_file(values, folder / "whisper_encoder.safetensors")
    return folder / "whisper_encoder.safetensors"


def unit_vocoder(folder: Path, units: int = UNITS) -> Path:
    """A published unit vocoder's folder."""
    config = HifiganConfig(units, 4, 8, (5, 4), (11, 8), (3,), ((1, 3, 5),), duration=DurationConfig(4, 4, 3))
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(published_config(config)))
    torch.save({"generator": to_published(Hifigan(config))}, folder / "g_00500000")
    return folder
