"""Run by accelerate with DeepSpeed, two processes on gloo: stage 1 under ZeRO 1, 2 and 3, whatever befalls it.

    accelerate launch --use_deepspeed --deepspeed_config_file zero2.json --num_processes 2 \
        tests/train/zero_processes.py PARTS OUT
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from omnivox.train.parallel import whole_weights
from omnivox.train.settings import TrainRecipe
from omnivox.train.trainer import Task
from tests.train import spoken
from tests.train.processes import STOP, refused, run, undisturbed_and_broken


class Boundless(torch.autograd.Function):
    """The same forth, infinite back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * torch.inf


def from_micro(task: Task, number: int, spoil: Any) -> None:
    """Let a process's losses from a micro-batch on pass through `spoil`."""
    forward, seen = task.module.forward, []

    def spoilt(*args: Any, **kwargs: Any) -> dict[str, Tensor]:
        found = forward(*args, **kwargs)
        seen.append(1)
        if task.module.training and len(seen) > number and "loss" in found:
            found["loss"] = spoil(found["loss"])
        return found

    task.module.forward = spoilt  # type: ignore[method-assign]


def nan(task: Task) -> None:
    """Step STOP has no loss on one process."""
    if os.environ["RANK"] == "1":
        from_micro(task, 2 * STOP, lambda loss: loss * torch.nan)


def boundless(task: Task) -> None:
    """Step STOP has a loss but no gradient on one process."""
    if os.environ["RANK"] == "1":
        from_micro(task, 2 * STOP, Boundless.apply)


def full(recipe: TrainRecipe, folder: Path) -> None:
    """A run that has no room for its second state on one process."""
    run(recipe, folder, steps=STOP)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    if os.environ["RANK"] == "1":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
    try:
        run(recipe, folder)
    except OSError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        (folder / f"refused-{os.environ['RANK']}.txt").write_text(str(error))
    else:
        raise AssertionError(f"{folder}: had room")
    run(recipe, folder)


def main(folder: Path, out: Path) -> None:
    recipe = replace(spoken.recipe_of(folder), seed=3)
    for stage in (1, 2, 3):
        place = out / f"zero{stage}"
        os.environ["ACCELERATE_DEEPSPEED_CONFIG_FILE"] = f"{place}.json"
        module = run(recipe, place / "bfloat16", precision="bfloat16", checkpointing=True, dtype=None)
        found = {str(value.dtype) for value in whole_weights(module).values()}
        if os.environ["RANK"] == "0":
            (place / "bfloat16" / "dtypes.json").write_text(json.dumps(sorted(found)))
        if stage == 1:
            run(recipe, place / "whole")
            continue
        undisturbed_and_broken(recipe, place, parallel="deepspeed", dtype=None)
        for name, change in (("nan", nan), ("boundless", boundless)):
            refused(recipe, place / name, change=change)
            run(recipe, place / name, skip=(STOP,))
    full(recipe, out / "full")
    run(recipe, out / "lora", tune="lora", lora_rank=2, checkpointing=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
