"""Whisper's encoder (Radford et al. 2022) in both of its published forms, OpenAI's and Hugging Face's.

Our names are OpenAI's without the leading `encoder.`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from omnivox.checkpoint.files import Tensors, open_tensors, read_json, read_torch, tensors_of
from omnivox.errors import CheckpointError
from omnivox.model.config import EncoderConfig

DIMS = "whisper_dims.json"
_HF = (  # ours, Hugging Face's
    ("positional_embedding", "embed_positions.weight"),
    ("ln_post.", "layer_norm."),
    ("blocks.", "layers."),
    (".attn_ln.", ".self_attn_layer_norm."),
    (".attn.query.", ".self_attn.q_proj."),
    (".attn.key.", ".self_attn.k_proj."),
    (".attn.value.", ".self_attn.v_proj."),
    (".attn.out.", ".self_attn.out_proj."),
    (".mlp_ln.", ".final_layer_norm."),
    (".mlp.0.", ".fc1."),
    (".mlp.2.", ".fc2."),
)
OPENAI_DIMS = {"n_mels": "n_mels", "width": "n_audio_state", "layers": "n_audio_layer", "heads": "n_audio_head",
                "positions": "n_audio_ctx"}
_HF_DIMS = {"n_mels": "num_mel_bins", "width": "d_model", "layers": "encoder_layers",
            "heads": "encoder_attention_heads", "positions": "max_source_positions"}


def openai_name(ours: str) -> str:
    """OpenAI's name of one of our tensors."""
    return f"encoder.{ours}"


def name_from_openai(name: str) -> str | None:
    """Our name; None for what is not the encoder's."""
    return name.removeprefix("encoder.") if name.startswith("encoder.") else None


def hf_name(ours: str) -> str:
    """Hugging Face's name (of `WhisperForConditionalGeneration`) of one of our tensors."""
    return f"model.encoder.{_replaced(ours, _HF)}"


def name_from_hf(name: str) -> str | None:
    """Our name; None for what is not the encoder's."""
    inner = re.sub(r"^(model\.)?encoder\.", "", name)
    return None if inner == name else _replaced(inner, tuple((theirs, ours) for ours, theirs in _HF))


def _replaced(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for old, new in pairs:
        if old.startswith(".") and old in name:
            name = name.replace(old, new)
        elif not old.startswith(".") and name.startswith(old):
            name = new + name.removeprefix(old)
    return name


def load_whisper(path: Path) -> tuple[EncoderConfig, Tensors]:
    """An encoder's sizes and its tensors under our names.

    path: OpenAI's `.pt`; the same names in safetensors, with `whisper_dims.json` beside; a Hugging Face folder.
    """
    if path.is_dir() and (path / DIMS).exists():
        path = _only_safetensors(path)
    if path.is_dir():
        config = read_json(path / "config.json")
        if config.get("model_type") != "whisper":
            raise CheckpointError(f"{path / 'config.json'}: model_type is {config.get('model_type')!r}; "
                                  "expected 'whisper'")
        return encoder_config(config, _HF_DIMS, path / "config.json"), open_tensors(path).renamed(name_from_hf, hf_name)
    if path.suffix == ".safetensors":
        dims, tensors = read_json(path.with_name(DIMS)), open_tensors(path)
        return encoder_config(dims, OPENAI_DIMS, path.with_name(DIMS)), tensors.renamed(name_from_openai, openai_name)
    saved = read_torch(path)
    sizes, state = saved.get("dims"), saved.get("model_state_dict")
    if not isinstance(sizes, dict) or not isinstance(state, dict):
        raise CheckpointError(f"{path}: has no 'dims' and 'model_state_dict'; expected OpenAI's file, as large-v3.pt")
    tensors = tensors_of({name: value for name, value in state.items() if isinstance(value, Tensor)}, str(path))
    return encoder_config(sizes, OPENAI_DIMS, path), tensors.renamed(name_from_openai, openai_name)


def encoder_config(dims: dict[str, Any], keys: dict[str, str], source: Path) -> EncoderConfig:
    """Our configuration from published sizes under the names that `keys` gives them."""
    for key in keys.values():
        value = dims.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(f"{source}: {key} is {value!r}; expected a whole number")
    return EncoderConfig(**{ours: dims[theirs] for ours, theirs in keys.items()})


def config_from_tensors(tensors: Tensors) -> EncoderConfig:
    """The sizes of an encoder that came without them. Heads leave no trace: 64 wide each, as in every Whisper."""
    convolution, positions = tensors.required("conv1.weight"), tensors.required("positional_embedding")
    layers = {name.split(".")[1] for name in tensors if name.startswith("blocks.")}
    width, n_mels = convolution.shape[:2]
    return EncoderConfig(n_mels=n_mels, width=width, layers=len(layers), heads=max(1, width // 64),
                         positions=positions.shape[0])


def _only_safetensors(folder: Path) -> Path:
    found = sorted(folder.glob("*whisper*.safetensors")) or sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        raise CheckpointError(f"{folder}: holds {len(found)} safetensors files beside {DIMS}; expected one, "
                              "called whisper_encoder.safetensors if there are others")
    return found[0]
