"""Run by torchrun, two processes on gloo: stage 1 under DDP and under FSDP2, undisturbed, and stopped and gone on with.

    torchrun --nproc-per-node 2 tests/train/processes.py PARTS OUT
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from omnivox.errors import DataError
from omnivox.train.answer import answering_task
from omnivox.train.conversations import InMemory, SpokenConversation
from omnivox.train.examples import Examples
from omnivox.train.parallel import whole_weights
from omnivox.train.settings import TrainRecipe
from omnivox.train.start import start
from omnivox.train.trainer import Stopped, Task, train
from tests.train import spoken

STEPS, STOP = 4, 2  # two epochs
ROWS, BAD = 8, (1, 4, 6)
ROUNDED: dict[str, Any] = {"tune": "lora", "lora_rank": 2, "precision": "bfloat16", "dtype": torch.bfloat16,
                           "checkpointing": True}


def settings_of(recipe: TrainRecipe, parallel: str = "auto", **changes: Any) -> Any:
    return replace(recipe.stage1, **{
        "steps": STEPS, "batch": 4, "micro_batch": 1, "parallel": parallel, "lr": 1e-2, "samples": 1, "clip": 0.2,
        "evaluate_every": STEPS, "save_every": STEPS, "sample_tokens": 2, "checkpointing": False} | changes)


def parts(folder: Path) -> Path:
    """An LLM in bfloat16, as they are published, and an encoder."""
    llm = spoken.recipe(folder).llm
    AutoModelForCausalLM.from_pretrained(llm, dtype=torch.bfloat16).save_pretrained(llm)
    return folder


def spoilt() -> InMemory:
    """Rows of which those in BAD have no answer."""
    rows = [SpokenConversation(row.id, tuple(replace(turn, answer=" ") for turn in row.turns)) if number in BAD else row
            for number, row in enumerate(spoken.data(ROWS, 2).rows)]
    return InMemory(rows)


class Disturbed:
    """Batches, and a SIGTERM for one process while it reads for step STOP."""

    def __init__(self, examples: Examples, per_step: int) -> None:
        self.examples, self.left = examples, per_step * STOP + 1

    def __call__(self, rows: Sequence[int]) -> Any:
        self.left -= 1
        if self.left == 0 and os.environ.get("RANK", "0") == "1":
            os.kill(os.getpid(), signal.SIGTERM)
        return self.examples.batch(rows)


def run(recipe: TrainRecipe, folder: Path, parallel: str = "auto", disturbed: bool = False,
        data: InMemory | None = None, dtype: torch.dtype | None = torch.float32,
        change: Callable[[Task], None] = lambda task: None, **changes: Any) -> torch.nn.Module:
    """Stage 1. dtype: to read the LLM in; change: of what is learnt."""
    loaded = start(recipe, dtype)
    assert loaded.tokenizer is not None
    examples = Examples(data or spoken.data(ROWS, 2), loaded.tokenizer, loaded.prompt, loaded.model.config)
    settings = settings_of(recipe, parallel, **changes)
    task = answering_task(loaded, examples, examples, settings)
    if disturbed:
        task.batch_of = Disturbed(examples, settings.batch // 2)
    change(task)
    return train(task, settings, folder)


def undisturbed_and_broken(recipe: TrainRecipe, out: Path, **settings: Any) -> None:
    """Runs named whole, broken and stopped: undisturbed, stopped and gone on with, and stopped."""
    for name in ("whole", "broken"):
        folder = out / name
        if name == "broken":
            try:
                run(recipe, folder, disturbed=True, **settings)
            except Stopped:
                pass
            else:
                raise AssertionError("was not stopped")
            if os.environ["RANK"] == "0":
                assert (folder / f"step-{STOP:08}").exists(), sorted(folder.iterdir())
                shutil.copytree(folder, out / "stopped")
        weights = whole_weights(run(recipe, folder, **settings))
        if os.environ["RANK"] == "0":
            torch.save(weights, folder / "weights.pt")


def refused(recipe: TrainRecipe, folder: Path, **settings: Any) -> None:
    """A run that ends with a DataError in every process, its message kept."""
    try:
        run(recipe, folder, **settings)
    except DataError as error:
        (folder / f"refused-{os.environ.get('RANK', '0')}.txt").write_text(str(error))
    else:
        raise AssertionError(f"{folder}: went well")


def main(folder: Path, out: Path) -> None:
    recipe = replace(spoken.recipe_of(folder), seed=3)
    trackers = ("tensorboard",) if find_spec("tensorboard") else ()
    undisturbed_and_broken(recipe, out / "ddp", parallel="ddp", trackers=trackers)
    undisturbed_and_broken(recipe, out / "fsdp2", parallel="fsdp2", dtype=None)
    run(recipe, out / "lora", parallel="fsdp2", **ROUNDED)
    run(recipe, out / "bad", data=spoilt(), max_bad=len(BAD))
    refused(recipe, out / "worse", data=spoilt(), max_bad=len(BAD) - 1)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
