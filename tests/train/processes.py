"""Run by torchrun, two processes on gloo: stage 1 under DDP and under FSDP2, undisturbed, and stopped and gone on with.

    torchrun --nproc-per-node 2 tests/train/processes.py PARTS OUT
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from omnivox.train.answer import answering_task
from omnivox.train.examples import Examples
from omnivox.train.parallel import whole_weights
from omnivox.train.settings import TrainRecipe
from omnivox.train.start import start
from omnivox.train.trainer import Stopped, train
from tests.train import spoken

STEPS, STOP = 4, 2
ROWS = 8


def settings_of(recipe: TrainRecipe, parallel: str = "auto") -> Any:
    return replace(recipe.stage1, steps=STEPS, batch=4, micro_batch=1, parallel=parallel, lr=1e-2, samples=1,
                   evaluate_every=STEPS, save_every=STEPS, sample_tokens=2, checkpointing=False)


class Disturbed:
    """Batches, and a SIGTERM for one process while it reads for step STOP."""

    def __init__(self, examples: Examples, per_step: int) -> None:
        self.examples, self.left = examples, per_step * STOP + 1

    def __call__(self, rows: Sequence[int]) -> Any:
        self.left -= 1
        if self.left == 0 and os.environ.get("RANK", "0") == "1":
            os.kill(os.getpid(), signal.SIGTERM)
        return self.examples.batch(rows)


def run(recipe: TrainRecipe, folder: Path, parallel: str = "auto", disturbed: bool = False) -> torch.nn.Module:
    loaded = start(recipe)
    assert loaded.tokenizer is not None
    examples = Examples(spoken.data(ROWS, 2), loaded.tokenizer, loaded.prompt, loaded.model.config)
    settings = settings_of(recipe, parallel)
    task = answering_task(loaded, examples, examples, settings)
    if disturbed:
        task.batch_of = Disturbed(examples, settings.batch // 2)
    return train(task, settings, folder)


def main(parts: Path, out: Path) -> None:
    recipe = replace(spoken.recipe_of(parts), seed=3)
    for parallel in ("ddp", "fsdp2"):
        for name in ("whole", "broken"):
            folder = out / parallel / name
            if name == "broken":
                try:
                    run(recipe, folder, parallel, disturbed=True)
                except Stopped:
                    pass
                else:
                    raise AssertionError("was not stopped")
                if os.environ["RANK"] == "0":
                    assert (folder / f"step-{STOP:08}").exists(), sorted(folder.iterdir())
                    shutil.copytree(folder, out / parallel / "stopped")
            module = run(recipe, folder, parallel)
            weights = whole_weights(module)
            if os.environ["RANK"] == "0":
                torch.save(weights, folder / "weights.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
