"""Matrices kept in int8, with a scale for each row: half the size of float16, and floats again once they are read.

    w[r] ≈ scale[r] · q[r],  scale[r] = max |w[r]| / 127,  q in −127 … 127

The scales of `weight` are the tensor `weight_scale` beside it, as in compressed-tensors' files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from omnivox.checkpoint.files import Tensors, read
from omnivox.errors import CheckpointError

_MATRIX, _SCALE = ".weight", "_scale"
_LARGEST = 127


def quantised(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices (and filters, by their output channel) in int8, each followed by its scales; all else in float32."""
    out: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if not value.is_floating_point():
            out[name] = value
        elif name.endswith(_MATRIX) and value.ndim > 1:
            rows = value.detach().float()
            scale = rows.abs().flatten(1).amax(1) / _LARGEST
            out[name] = (rows / _spread(scale.clamp_min(torch.finfo(torch.float32).tiny), rows)).round().to(torch.int8)
            out[name + _SCALE] = scale
        else:
            out[name] = value.detach().float()
    return out


def dequantised(tensors: Tensors) -> Tensors:
    """The same tensors, those in int8 as float32 and without their scales."""
    scales = {name + _SCALE for name in tensors if name.endswith(_MATRIX)}
    readers: dict[str, Callable[[], Tensor]] = {
        name: partial(_floats, tensors, name) for name in tensors if name not in scales}
    return Tensors(tensors.source, readers, tensors.original)


def _floats(tensors: Tensors, name: str) -> Tensor:
    value, scales = read(tensors, name), name + _SCALE
    if not name.endswith(_MATRIX) or scales not in tensors:
        if value.dtype == torch.int8:
            raise CheckpointError(f"{tensors.source}: tensor {tensors.original(name)!r} is int8; expected floats, or a "
                                  f"matrix with its scales beside it ({tensors.original(scales)!r})")
        return value
    scale = read(tensors, scales)
    if value.dtype != torch.int8 or not scale.is_floating_point() or scale.shape != value.shape[:1]:
        raise CheckpointError(
            f"{tensors.source}: tensor {tensors.original(scales)!r} is {list(scale.shape)} of {_plain(scale)} "
            f"beside {list(value.shape)} of {_plain(value)}; expected one float for each row of a matrix in int8")
    return value.float() * _spread(scale.float(), value)


def _spread(scale: Tensor, rows: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (rows.ndim - 1))


def _plain(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
