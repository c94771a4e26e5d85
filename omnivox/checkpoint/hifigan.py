"""Published unit vocoders (fairseq's `code_hifigan`): `g_00500000` and `config.json`, in both directions.

A published file is a torch file {"generator": tensors}; the same tensors in a safetensors file are read too. Weight
norm is folded when loading (weight = g · v / ‖v‖, the norm over all but the first dimension), split again when saving.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from omnivox.errors import CheckpointError
from omnivox.model.config import DurationConfig, HifiganConfig
from omnivox.model.hifigan import Hifigan

_PREFIXES = (("embedding.", "dict."), ("duration.", "dur_predictor."))  # ours, published; other names are the same
_CONV = re.compile(r"(?<=dur_predictor\.)conv(\d)\.")  # published: the first member of a sequence
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
    try:
        duration = values["dur_predictor_params"]
        config = HifiganConfig(
            units=int(values["num_embeddings"]),
            embedding_dim=int(values["embedding_dim"]),
            initial_channels=int(values["upsample_initial_channel"]),
            upsample_rates=tuple(int(rate) for rate in values["upsample_rates"]),
            upsample_kernels=tuple(int(size) for size in values["upsample_kernel_sizes"]),
            residual_kernels=tuple(int(size) for size in values["resblock_kernel_sizes"]),
            residual_dilations=tuple(tuple(int(d) for d in row) for row in values["resblock_dilation_sizes"]),
            sample_rate=int(values["sampling_rate"]),
            duration=DurationConfig(int(duration["encoder_embed_dim"]), int(duration["var_pred_hidden_dim"]),
                                    int(duration["var_pred_kernel_size"])),
        )
    except KeyError as error:
        raise CheckpointError(f"{path}: key {error} is missing; expected a code_hifigan config "
                              "with dur_predictor_params") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: a value is of the wrong kind ({error})") from error
    if values.get("model_in_dim", config.embedding_dim) != config.embedding_dim:
        raise CheckpointError(f"{path}: model_in_dim is {values['model_in_dim']}; expected embedding_dim "
                              f"({config.embedding_dim}): nothing but units goes in")
    return config


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
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: cannot be read as tensors; it may be cut short ({error})") from error
    generator = saved.get("generator") if isinstance(saved, dict) else None
    if not isinstance(generator, dict) or not all(isinstance(tensor, Tensor) for tensor in generator.values()):
        raise CheckpointError(f"{path}: found no tensors under 'generator'; expected a file such as g_00500000")
    return generator


def load_hifigan(checkpoint: Path, config: Path | None = None) -> Hifigan:
    """A published vocoder, ready to speak.

    checkpoint: the file, or a folder that holds one (g_* or *.safetensors); config: by default config.json beside it.
    """
    if checkpoint.is_dir():
        checkpoint = _only_generator(checkpoint)
    described = hifigan_config(config or checkpoint.with_name("config.json"))
    try:
        vocoder = Hifigan(described)
    except ValueError as error:
        raise CheckpointError(f"{config or checkpoint.with_name('config.json')}: {error}") from error
    from_published(read_generator(checkpoint), vocoder, str(checkpoint))
    return vocoder.eval().requires_grad_(False)


def _only_generator(folder: Path) -> Path:
    found = sorted(folder.glob("g_*")) or sorted(folder.glob("*.safetensors"))
    if not found:
        raise CheckpointError(f"{folder}: holds no vocoder; expected g_00500000 or a .safetensors file")
    return found[-1]  # the last of several steps
