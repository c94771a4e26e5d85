"""A Llama of the published systems, with a LoRA put into its weights."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from omnivox.checkpoint.files import NoInit, Tensors, fill, open_tensors, read, read_json
from omnivox.errors import CheckpointError

_HALF = re.compile(r"(.+)\.lora_(A|B)\.weight")


def load_llama(folder: Path, dtype: torch.dtype) -> LlamaForCausalLM:
    """A folder of transformers' layout on the CPU, frozen. No pickle in it is executed. Raises CheckpointError."""
    described = read_json(folder / "config.json")
    if (found := described.get("model_type")) != "llama":
        raise CheckpointError(f"{folder / 'config.json'}: model_type is {found!r}; expected 'llama'")
    try:
        with NoInit():
            model = LlamaForCausalLM(LlamaConfig.from_pretrained(folder))
    except Exception as error:  # transformers and the hub's client each raise their own
        raise CheckpointError(f"{folder / 'config.json'}: no configuration of a Llama ({error})") from error
    fill(model, open_tensors(folder).renamed(_without_buffers, str), dtype)
    model.eval().requires_grad_(False)
    return model


def _without_buffers(name: str) -> str | None:
    """Old versions saved the angles of the positions."""
    return None if name.endswith("rotary_emb.inv_freq") else name


@torch.no_grad()
def merge_lora(model: torch.nn.Module, tensors: Tensors, scale: float) -> int:
    """W += scale · B · A for each pair `NAME.lora_A.weight` [r, in], `NAME.lora_B.weight` [out, r] of `tensors`.

    scale: alpha / r. Returns how many matrices were changed.
    Raises CheckpointError: half of a pair, a name that the model does not have, another shape, or no pair at all.
    """
    names = dict[str, None]()  # in order, each once
    for name in tensors:
        if (found := _HALF.fullmatch(name)) is None:
            raise CheckpointError(f"{tensors.source}: tensor {tensors.original(name)!r} is no part of a LoRA; "
                                  "expected names that end in lora_A.weight and lora_B.weight")
        names[found[1]] = None
    if not names:
        raise CheckpointError(f"{tensors.source}: holds no LoRA")
    weights = dict(model.named_parameters())
    for name in names:
        first, second = (tensors.required(f"{name}.lora_{half}.weight") for half in "AB")
        weight = weights.get(f"{name}.weight")
        if weight is None:
            raise CheckpointError(f"{tensors.source}: tensor {tensors.original(name + '.lora_A.weight')!r} is there, "
                                  "with no place in this model")
        _check(tensors, name, first, second, weight)
        change = second.to(weight.device).float() @ first.to(weight.device).float()
        weight.copy_(weight.float() + scale * change)
    return len(names)


def _check(tensors: Tensors, name: str, first: Tensor, second: Tensor, weight: Tensor) -> None:
    expected = {"A": (first.shape[0], weight.shape[1]), "B": (weight.shape[0], first.shape[0])}
    for half, found in (("A", first), ("B", second)):
        if tuple(found.shape) != expected[half]:
            raise CheckpointError(f"{tensors.source}: tensor {tensors.original(f'{name}.lora_{half}.weight')!r} is "
                                  f"{list(found.shape)}; expected {list(expected[half])} by the model it changes")


def merge_adapter(model: torch.nn.Module, folder: Path) -> None:
    """Merge a peft folder (adapter_config.json and adapter_model) into `model`. Raises CheckpointError."""
    path = folder / "adapter_config.json"
    described = read_json(path)
    rank, alpha = described.get("r"), described.get("lora_alpha")
    if described.get("peft_type") != "LORA" or not isinstance(rank, int) or rank < 1 or not isinstance(
            alpha, int | float):
        raise CheckpointError(f"{path}: peft_type, r and lora_alpha are {described.get('peft_type')!r}, {rank!r}, "
                              f"{alpha!r}; expected 'LORA' and two numbers")
    if described.get("use_rslora") or described.get("use_dora") or described.get("fan_in_fan_out"):
        raise CheckpointError(f"{path}: describes a kind of LoRA that is not merged here; expected a plain one")
    file = next((folder / name for name in ("adapter_model.safetensors", "adapter_model.bin")
                 if (folder / name).exists()), None)
    if file is None:
        raise CheckpointError(f"{folder}: holds no adapter_model.bin or adapter_model.safetensors")
    tensors = open_tensors(file).under("base_model.model.")
    for name in tensors:
        if name.endswith("lora_A.weight") and (found := read(tensors, name).shape[0]) != rank:
            raise CheckpointError(f"{file}: tensor {tensors.original(name)!r} has {found} rows; expected r ({rank}) "
                                  f"of {path.name}")
    merge_lora(model, tensors, alpha / rank)
