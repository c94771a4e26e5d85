"""Published unit vocoders (fairseq's `code_hifigan`): `g_00500000` and `config.json`, in both directions.

A published file is a torch file {"generator": tensors}; the same tensors in a safetensors file are read too. Weight
norm is folded when loading (weight = g · v / ‖v‖, the norm over all but the first dimension), split again when saving.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor

from omnivox.checkpoint.files import BUILD_ERRORS, first_line
from omnivox.errors import CheckpointError
from omnivox.model.config import Config, DurationConfig, HifiganConfig
from omnivox.model.hifigan import Hifigan

C = TypeVar("C", bound=Config)
_PREFIXES = (("embedding.", "dict."), ("duration.", "dur_predictor."))  # ours, published; other names are the same
_CONV = re.compile(r"(?<=dur_predictor\.)conv(\d)\.")  # published: the first member of a sequence
_SIZES = {"units": "num_embeddings", "embedding_dim": "embedding_dim", "initial_channels": "upsample_initial_channel",
          "upsample_rates": "upsample_rates", "upsample_kernels": "upsample_kernel_sizes",
          "residual_kernels": "resblock_kernel_sizes", "residual_dilations": "resblock_dilation_sizes",
          "sample_rate": "sampling_rate"}  # ours, published
_DURATION = {"embedding_dim": "encoder_embed_dim", "hidden_dim": "var_pred_hidden_dim",
             "kernel": "var_pred_kernel_size"}  # the same, under dur_predictor_params
_NORMED = ("conv_pre", "conv_post", "ups.", "resblocks.")


def published_name(ours: str) -> str:
    """The published name of one of our tensors; of a weight under weight norm, without `_g` or `_v`."""
    for prefix, published in _PREFIXES:
        if ours.startswith(prefix):
            return _CONV.sub(r"conv\1.0.", published + ours.removeprefix(prefix))
    return ours


def _is_normed(ours: str) -> bool:
    return ours.startswith(_NORMED) and ours.endswith(".weight")


def _norm(weight: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    return norms.view(-1, *[1] * (weight.ndim - 1))


def to_published(vocoder: Hifigan) -> dict[str, Tensor]:
    """Tensors under published names, weight norm split."""
    tensors = {}
    for ours, tensor in vocoder.state_dict().items():
        name = published_name(ours)
        if _is_normed(ours):
            tensors[f"{name}_g"], tensors[f"{name}_v"] = _norm(tensor), tensor.clone()
        else:
            tensors[name] = tensor.clone()
    return tensors


def from_published(tensors: Mapping[str, Tensor], vocoder: Hifigan, source: str) -> None:
    """Put published tensors into `vocoder`. Weights whose norm was folded before (no `_g`, `_v`) are taken as they are.

    Raises CheckpointError naming the tensor and `source`: missing, left over, or of another shape than the config says.
    """
    left, found = dict(tensors), {}
    for ours, target in vocoder.state_dict().items():
        name = published_name(ours)
        if _is_normed(ours) and name not in left:
            g, v = (_take(left, f"{name}_{part}", source) for part in "gv")
            _check_shape(f"{name}_v", v, tuple(target.shape), source)
            _check_shape(f"{name}_g", g, (len(target), *[1] * (target.ndim - 1)), source)
            found[ours] = g.float() * v.float() / _norm(v.float())
        else:
            found[ours] = _take(left, name, source)
            _check_shape(name, found[ours], tuple(target.shape), source)
    if left:
        raise CheckpointError(f"{source}: {len(left)} tensors have no place in this vocoder, the first {min(left)!r}; "
                              "expected a unit HiFi-GAN with a duration predictor and nothing else")
    vocoder.load_state_dict(found)


def _take(tensors: dict[str, Tensor], name: str, source: str) -> Tensor:
    if name not in tensors:
        raise CheckpointError(f"{source}: tensor {name!r} is missing; expected one as the config describes")
    return tensors.pop(name)


def _check_shape(name: str, tensor: Tensor, expected: tuple[int, ...], source: str) -> None:
    if not tensor.is_floating_point():
        raise CheckpointError(f"{source}: tensor {name!r} is {str(tensor.dtype).removeprefix('torch.')}; "
                              "expected floats")
    if tuple(tensor.shape) != expected:
        raise CheckpointError(f"{source}: tensor {name!r} is {list(tensor.shape)}; expected {list(expected)} "
                              "by the config beside it")


def hifigan_config(path: Path) -> HifiganConfig:
    """Read a published `config.json`. Raises CheckpointError naming a key that is missing or no unit vocoder's."""
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; expected the vocoder's config.json") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not JSON that can be read ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds {type(values).__name__}; expected an object")
    for key, expected in (("resblock", "1"), ("f0", False), ("multispkr", None)):
        if (value := values.get(key, expected)) != expected and value not in (None, False):
            raise CheckpointError(f"{path}: {key} is {value!r}; a unit vocoder of one voice has {expected!r}")
    duration = _renamed(DurationConfig, _object(values.get("dur_predictor_params"), path), _DURATION, path)
    config = replace(_renamed(HifiganConfig, values, _SIZES, path), duration=duration)
    if values.get("model_in_dim", config.embedding_dim) != config.embedding_dim:
        raise CheckpointError(f"{path}: model_in_dim is {values['model_in_dim']}; expected embedding_dim "
                              f"({config.embedding_dim}): nothing but units goes in")
    return config


def _object(found: Any, path: Path) -> dict[str, Any]:
    if found is None:
        raise CheckpointError(f"{path}: key 'dur_predictor_params' is missing; expected a code_hifigan config")
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: dur_predictor_params is {found!r}; expected an object")
    return found


def _renamed(kind: type[C], values: dict[str, Any], names: dict[str, str], path: Path) -> C:
    """Sizes under their published names. Raises CheckpointError naming the key that is missing or wrong."""
    try:
        return kind.from_dict({ours: values[published] for ours, published in names.items()})
    except KeyError as error:
        raise CheckpointError(f"{path}: key {error} is missing; expected a code_hifigan config") from error
    except ValueError as error:
        field, _, found = str(error).partition(": ")
        name = names.get(field.removeprefix(f"{kind.__name__}."), field)
        raise CheckpointError(f"{path}: {name}: {found}") from error


def published_config(config: HifiganConfig) -> dict[str, Any]:
    """The keys of a published `config.json` that describe the network."""
    return {
        "resblock": "1", "f0": False,
        "num_embeddings": config.units, "embedding_dim": config.embedding_dim, "model_in_dim": config.embedding_dim,
        "upsample_initial_channel": config.initial_channels,
        "upsample_rates": list(config.upsample_rates), "upsample_kernel_sizes": list(config.upsample_kernels),
        "resblock_kernel_sizes": list(config.residual_kernels),
        "resblock_dilation_sizes": [list(row) for row in config.residual_dilations],
        "sampling_rate": config.sample_rate,
        "dur_predictor_params": {"encoder_embed_dim": config.duration.embedding_dim,
                                 "var_pred_hidden_dim": config.duration.hidden_dim,
                                 "var_pred_kernel_size": config.duration.kernel, "var_pred_dropout": 0.5},
    }


def read_generator(path: Path) -> dict[str, Tensor]:
    """The tensors of a published file. Nothing in it is ever executed (`weights_only`)."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected a vocoder such as g_00500000")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: holds other things than tensors, or is damaged; none was executed") from error
    except Exception as error:  # whatever a damaged file brings about in its reader
        raise CheckpointError(f"{path}: cannot be read as tensors; it may be damaged or cut short "
                              f"({first_line(error)})") from error
    generator = saved.get("generator") if isinstance(saved, dict) else None
    if not isinstance(generator, dict) or not all(isinstance(name, str) and isinstance(tensor, Tensor)
                                                  for name, tensor in generator.items()):
        raise CheckpointError(f"{path}: found no tensors under 'generator'; expected a file such as g_00500000")
    return generator


def load_hifigan(checkpoint: Path, config: Path | None = None) -> Hifigan:
    """A published vocoder, ready to speak.

    checkpoint: the file, or a folder that holds one (g_* or *.safetensors); config: by default config.json beside it.
    """
    if not checkpoint.exists():
        raise CheckpointError(f"{checkpoint}: no such file or folder; expected a vocoder such as g_00500000, or the "
                              "folder that holds it")
    if checkpoint.is_dir():
        checkpoint = _only_generator(checkpoint)
    described = hifigan_config(config or checkpoint.with_name("config.json"))
    try:
        vocoder = Hifigan(described)
    except BUILD_ERRORS as error:
        raise CheckpointError(f"{config or checkpoint.with_name('config.json')}: {first_line(error)}") from error
    from_published(read_generator(checkpoint), vocoder, str(checkpoint))
    return vocoder.eval().requires_grad_(False)


def _only_generator(folder: Path) -> Path:
    found = sorted(folder.glob("g_*")) or sorted(folder.glob("*.safetensors"))
    if not found:
        raise CheckpointError(f"{folder}: holds no vocoder; expected g_00500000 or a .safetensors file")
    return found[-1]  # the last of several steps
