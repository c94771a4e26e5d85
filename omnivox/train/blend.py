"""Half-way between the model that training began with and what it became (model soups; Wortsman et al. 2022).

Where both lie in one basin, their mean is often better than either.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from omnivox.checkpoint.load import load_checkpoint, save_pretrained
from omnivox.errors import ConfigError
from omnivox.train.begin import copy_units


def blend(begun: str | Path, trained: Path, out: Path) -> None:
    """Write the mean of two models to the folder `out`; what is no weight comes from `trained`.

    Raises ConfigError where they are not of one shape.
    """
    first, second = load_checkpoint(begun), load_checkpoint(trained)
    if first.vocoder is None or second.vocoder is None:
        raise ConfigError(f"{begun} or {trained}: has no vocoder; expected two whole models")
    _into(second.model, first.model, trained)
    _into(second.vocoder, first.vocoder, trained)
    save_pretrained(second, out, stored=torch.int8)
    copy_units(trained, out)


@torch.no_grad()
def _into(module: nn.Module, other: nn.Module, name: Path) -> None:
    values, others = dict(module.named_parameters()), dict(other.named_parameters())
    shapes, wanted = ({key: tuple(value.shape) for key, value in found.items()} for found in (values, others))
    if shapes != wanted:
        wrong = min(key for key in shapes.keys() | wanted.keys() if shapes.get(key) != wanted.get(key))
        raise ConfigError(f"{name}: {wrong} is {shapes.get(wrong, 'missing')}; the model that it is to be blended with "
                          f"has {wanted.get(wrong, 'no such tensor')}")
    for key, value in values.items():
        value.lerp_(others[key], 0.5)
