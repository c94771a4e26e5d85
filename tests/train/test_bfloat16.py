"""Training in bfloat16, the recipes' own precision, against float32."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from omnivox.train.settings import TrainRecipe
from omnivox.train.steps import OmniTraining
from tests.train import spoken


def recipe_of(folder: Path, tune: str = "full", steps: int = 4, precision: str = "bfloat16") -> TrainRecipe:
    recipe = spoken.recipe(folder)
    common = {"precision": precision, "steps": steps, "epochs": 1, "evaluate_every": 4, "save_every": 1}
    return replace(recipe, stage1=replace(recipe.stage1, tune=tune, lora_rank=2, **common),
                   stage2=replace(recipe.stage2, **common))


def losses(run: Path) -> list[float]:
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in log if "loss" in line]


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # torch: a slower norm, no other result
@pytest.mark.parametrize("tune", ["full", "lora"])
def test_both_stages_follow_float32_and_are_stored_in_bfloat16(tune: str, tmp_path: Path) -> None:
    data, found = spoken.write(tmp_path / "data"), {}
    for precision in ("float32", "bfloat16"):
        training = OmniTraining(tmp_path / precision, recipe_of(tmp_path, tune, precision=precision), data)
        training.stage1()
        model = training.stage2()
        found[precision] = [losses(tmp_path / precision / stage) for stage in ("stage1", "stage2")]
    for exact, rounded in zip(*found.values(), strict=True):
        assert rounded == pytest.approx(exact, rel=0.03)
        assert rounded != exact
    stored = {value.dtype for value in load_file(model / "model.safetensors").values()}
    assert stored == {torch.bfloat16}
