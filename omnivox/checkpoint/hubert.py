"""HuBERT (Hsu et al. 2021) and its k-means centres: from the hub, or as fairseq published them.

Names are those of transformers' `HubertModel`. No pickle is executed: see `pickles`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import HubertConfig, HubertModel

from omnivox.checkpoint.files import NoInit, Tensors, fill, find_folder, open_tensors, read_json, tensors_of
from omnivox.checkpoint.pickles import read_array, read_fairseq
from omnivox.errors import CheckpointError

HEAD_WIDTH = 64  # of every published HuBERT; heads leave no trace in the tensors
_FAIRSEQ = (  # transformers', fairseq's; the first that fits
    ("feature_extractor.conv_layers.N.conv", "feature_extractor.conv_layers.N.0"),
    ("feature_extractor.conv_layers.N.layer_norm", "feature_extractor.conv_layers.N.2"),
    ("feature_projection.layer_norm", "layer_norm"),
    ("feature_projection.projection", "post_extract_proj"),
    ("masked_spec_embed", "mask_emb"),
    ("encoder.pos_conv_embed.conv.parametrizations.weight.original0", "encoder.pos_conv.0.weight_g"),
    ("encoder.pos_conv_embed.conv.parametrizations.weight.original1", "encoder.pos_conv.0.weight_v"),
    ("encoder.pos_conv_embed.conv", "encoder.pos_conv.0"),
    ("encoder.layers.N.layer_norm", "encoder.layers.N.self_attn_layer_norm"),
    ("encoder.layers.N.attention", "encoder.layers.N.self_attn"),
    ("encoder.layers.N.feed_forward.intermediate_dense", "encoder.layers.N.fc1"),
    ("encoder.layers.N.feed_forward.output_dense", "encoder.layers.N.fc2"),
)
_UNUSED = ("final_proj.", "label_embs_concat")  # of pre-training
_WEIGHT_NORM = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}


def fairseq_name(ours: str) -> str:
    """fairseq's name of one of transformers' tensors."""
    return _renamed(ours, _FAIRSEQ)


def name_from_fairseq(name: str) -> str | None:
    """Transformers' name; None for what only pre-training needs."""
    return None if name.startswith(_UNUSED) else _renamed(name, tuple((theirs, ours) for ours, theirs in _FAIRSEQ))


def _renamed(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for old, new in pairs:
        found = re.match(re.escape(old).replace(r"\.N\.", r"\.(\d+)\.") + r"(?=\.|$)", name)
        if found:
            return (new.replace(".N.", f".{found[1]}.") if found.groups() else new) + name[found.end():]
    return name


def _name_from_hub(name: str) -> str | None:
    """The name in a bare `HubertModel` of the present transformers; older files hold weight_g and weight_v, and files
    of models with a head a prefix."""
    inner = name.removeprefix("hubert.")
    if inner.split(".")[0] not in ("feature_extractor", "feature_projection", "encoder", "masked_spec_embed"):
        return None  # a head
    for old, new in _WEIGHT_NORM.items():
        inner = inner.replace(f"pos_conv_embed.conv.{old}", f"pos_conv_embed.conv.{new}")
    return inner


def load_hubert(name: str | Path) -> HubertModel:
    """A HuBERT in float32, frozen: a folder or a name of the hub in transformers' layout, or fairseq's file (.pt).

    Raises CheckpointError: missing, damaged, hostile, or not a HuBERT.
    """
    if Path(name).suffix == ".pt":
        config, tensors = _from_fairseq(Path(name))
    else:
        folder = find_folder(name)
        described = read_json(folder / "config.json")
        if described.get("model_type") != "hubert":
            raise CheckpointError(f"{folder / 'config.json'}: model_type is {described.get('model_type')!r}; "
                                  "expected 'hubert'")
        config = HubertConfig.from_pretrained(folder)
        tensors = open_tensors(folder).renamed(_name_from_hub, str)
    config.mask_time_prob = config.mask_feature_prob = 0.0  # so that there is no tensor to mask with
    with NoInit():
        model = HubertModel(config)
    fill(model, tensors.outside("masked_spec_embed"), torch.float32)
    model.eval().requires_grad_(False)
    return model


def _from_fairseq(path: Path) -> tuple[HubertConfig, Tensors]:
    values = read_fairseq(path).get("model")
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: has no 'model'; expected fairseq's checkpoint of HuBERT")
    named = {name: value for name, value in values.items() if isinstance(name, str) and isinstance(value, Tensor)}
    tensors = tensors_of(named, str(path)).renamed(name_from_fairseq, fairseq_name)
    return _config(tensors), tensors


def _config(tensors: Tensors) -> HubertConfig:
    if "feature_extractor.conv_layers.1.layer_norm.weight" in tensors or any(
            re.search(r"conv_layers\.[1-6]\.2\.", name) for name in tensors):
        raise CheckpointError(f"{tensors.source}: is a HuBERT of the large kind; expected the base kind; "
                              "use its conversion on the hub")
    return HubertConfig(**base_sizes(tensors))


def base_sizes(tensors: Tensors) -> dict[str, Any]:
    """The sizes of a HuBERT or wav2vec 2.0 of the base kind from its tensors, as its configuration calls them; its
    strides are those of every published one. Raises CheckpointError: a tensor is missing."""
    convolutions = [tensors.required(f"feature_extractor.conv_layers.{i}.conv.weight") for i in range(7)]
    layers = {name.split(".")[2] for name in tensors if name.startswith("encoder.layers.")}
    first = tensors.required("encoder.layers.0.feed_forward.intermediate_dense.weight")
    position = tensors.required("encoder.pos_conv_embed.conv.parametrizations.weight.original1")
    width = first.shape[1]
    return {"hidden_size": width, "intermediate_size": first.shape[0], "num_hidden_layers": len(layers),
            "num_attention_heads": max(1, width // HEAD_WIDTH),
            "conv_dim": [weight.shape[0] for weight in convolutions],
            "conv_kernel": [weight.shape[2] for weight in convolutions], "conv_bias": False,
            "num_conv_pos_embeddings": position.shape[2], "num_conv_pos_embedding_groups": width // position.shape[1]}


# -- k-means ----------------------------------------------------------------------------------------------------------


def load_centres(path: Path) -> Tensor:
    """K-means centres [K, D] float32: safetensors or .npy with one table, or a scikit-learn model (joblib or pickle)
    whose code is never run. Raises CheckpointError."""
    if path.suffix == ".safetensors":
        tensors = open_tensors(path)
        if len(tensors) != 1:
            raise CheckpointError(f"{path}: holds {len(tensors)} tensors; expected one, the centres")
        centres: Any = next(iter(tensors.values())).float().numpy()
    elif path.suffix == ".npy":
        try:
            centres = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise CheckpointError(f"{path}: no table of numbers that can be read ({error})") from error
    else:
        centres = read_array(path, "cluster_centers_")
    if not isinstance(centres, np.ndarray) or centres.ndim != 2 or not np.isfinite(centres).all():
        found = "none" if not isinstance(centres, np.ndarray) else f"an array {list(centres.shape)}"
        raise CheckpointError(f"{path}: k-means centres: found {found}; expected a table [K, D] of finite numbers")
    return torch.from_numpy(np.array(centres, dtype=np.float32, order="C"))
