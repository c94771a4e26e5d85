"""Our layout of a checkpoint's folder.

    config.json                 {"model_type": "omnivox", "dtype", "omni", "llm", "vocoder", "prompt"}
    model.safetensors           encoder, adaptor, LLM and speech decoder (or shards of it, with an index)
    vocoder.safetensors
    tokenizer.json, ...         as transformers saves them
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import AutoConfig, PretrainedConfig

from omnivox.checkpoint.files import BUILD_ERRORS, Tensors, first_line, open_tensors, read_json
from omnivox.checkpoint.int8 import dequantised
from omnivox.checkpoint.prompt import Prompt
from omnivox.errors import ConfigError
from omnivox.model.config import Config, HifiganConfig, OmniConfig, SourceFilterConfig
from omnivox.model.hifigan import Hifigan
from omnivox.model.source_filter import SourceFilter
from omnivox.model.vocoder import Vocoder

C = TypeVar("C", bound=Config)
MODEL_TYPE = "omnivox"
VOCODER_FILE = "vocoder.safetensors"
_KEYS = ("model_type", "dtype", "omni", "llm", "vocoder", "prompt")
_NOT_SIZES = ("transformers_version", "dtype")  # of an LLM's config
_VOCODERS: dict[str, tuple[type[Config], type[Vocoder]]] = {
    "hifigan": (HifiganConfig, Hifigan), "source_filter": (SourceFilterConfig, SourceFilter)}


def read_layout(folder: Path) -> tuple[OmniConfig, PretrainedConfig, Prompt, Tensors]:
    """Configurations, prompt and the model's tensors. Raises ConfigError naming a key that is wrong or missing."""
    path = folder / "config.json"
    values = read_json(path)
    if unknown := sorted(set(values) - set(_KEYS)):
        raise ConfigError(f"{path}: unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}")
    return (from_dict(OmniConfig, values, "omni", path), _llm_config(_object(values, "llm", path), path),
            from_dict(Prompt, values, "prompt", path), dequantised(open_tensors(folder)))


def read_vocoder(folder: Path) -> tuple[Vocoder, Tensors] | None:
    """A vocoder of the right size, its weights not yet read, and its tensors; None if the checkpoint has none."""
    path = folder / "config.json"
    values = read_json(path)
    if values.get("vocoder") is None:
        return None
    kind = _object(values, "vocoder", path).get("kind")
    if not isinstance(kind, str) or kind not in _VOCODERS:
        raise ConfigError(f"{path}: vocoder.kind is {kind!r}; expected {' or '.join(_VOCODERS)}")
    config_type, vocoder_type = _VOCODERS[kind]
    sizes = {"vocoder": {key: value for key, value in values["vocoder"].items() if key != "kind"}}
    config = from_dict(config_type, sizes, "vocoder", path)
    tensors = open_tensors(folder / VOCODER_FILE)
    try:
        return vocoder_type(config), tensors
    except BUILD_ERRORS as error:
        raise ConfigError(f"{path}: vocoder: {first_line(error)}") from error


def write_config(folder: Path, omni: OmniConfig, llm: PretrainedConfig, vocoder: Vocoder | None, prompt: Prompt,
                 dtype: torch.dtype) -> None:
    """Write config.json. dtype: what the weights are meant to be used in, whatever they are stored in."""
    described: dict[str, Any] | None = None
    if vocoder is not None:
        kind = next(kind for kind, (_, vocoder_type) in _VOCODERS.items() if isinstance(vocoder, vocoder_type))
        described = {"kind": kind, **vocoder.config.to_dict()}  # type: ignore[operator, union-attr]
    llm_values = {key: value for key, value in llm.to_diff_dict().items() if key not in _NOT_SIZES}
    values = {"model_type": MODEL_TYPE, "dtype": str(dtype).removeprefix("torch."), "omni": omni.to_dict(),
              "llm": {"model_type": llm.model_type, **llm_values}, "vocoder": described, "prompt": prompt.to_dict()}
    (folder / "config.json").write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def from_dict(config: type[C], values: dict[str, Any], key: str, path: Path) -> C:
    """One of our configurations from `values[key]`. Raises ConfigError naming file and key."""
    try:
        return config.from_dict(_object(values, key, path))
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path}: {key}: {error}") from error


def _object(values: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    if not isinstance(value := values.get(key), dict):
        raise ConfigError(f"{path}: {key} is {value!r}; expected an object")
    return value


def _llm_config(values: dict[str, Any], path: Path) -> PretrainedConfig:
    values = dict(values)
    if not isinstance(kind := values.get("model_type"), str):
        found = "missing" if kind is None else repr(kind)
        raise ConfigError(f"{path}: llm.model_type is {found}; expected one that transformers knows")
    try:
        return AutoConfig.for_model(values.pop("model_type"), **values)
    except Exception as error:  # whatever transformers makes of a wrong value
        raise ConfigError(f"{path}: llm: {first_line(error)}") from error
