"""Stage 1 with any LLM: what it learns, what stays, and that it equals the model's own loss."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from omnivox.model.omni import SpokenBatch
from omnivox.train.answer import Answering, answering_task
from omnivox.train.examples import Examples
from omnivox.train.start import start
from omnivox.train.trainer import train
from tests.train import families, spoken


def examples(loaded, rows: int = 8, turns: int = 1) -> Examples:  # type: ignore[no-untyped-def]
    assert loaded.tokenizer is not None
    return Examples(spoken.data(rows, turns), loaded.tokenizer, loaded.prompt, loaded.config)


def test_the_loss_is_the_models_own(tmp_path: Path) -> None:
    recipe = spoken.recipe(tmp_path)
    loaded = start(recipe)
    batch = examples(loaded).batch([0, 1, 2])
    own = SpokenBatch(batch.ids, batch.labels, batch.length, batch.mel, batch.mel_length)
    with torch.no_grad():
        expected = loaded.model.eval().stage1_loss(own)
        found = Answering(loaded.model, recipe.stage1).eval()(batch)
    torch.testing.assert_close(found["loss"] / batch.count, expected)


def test_a_second_turn_hears_both_questions(tmp_path: Path) -> None:
    recipe = spoken.recipe(tmp_path)
    loaded = start(recipe)
    batch = examples(loaded, turns=2).batch([1])
    module = Answering(loaded.model, recipe.stage1).eval()
    with torch.no_grad():
        before = module(batch)["loss"]
        for question in range(2):
            other = replace(batch, mel=batch.mel.clone())
            other.mel[question] = 0.3
            assert not torch.equal(module(other)["loss"], before), question
    assert len(batch.mel) == 2


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_family_learns(family: str, tmp_path: Path) -> None:
    recipe = spoken.recipe(tmp_path, family)
    loaded = start(recipe)
    rows = examples(loaded, 2, turns=2)
    settings = replace(recipe.stage1, lr=2e-2, steps=8, evaluate_every=8, batch=2)
    encoder = {name: value.clone() for name, value in loaded.model.encoder.state_dict().items()}
    train(answering_task(loaded, rows, rows, settings), settings, tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in log if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]
    assert log[-1]["held_loss"] < losses[0]
    assert (tmp_path / "run" / "samples" / "step-00000008" / "0.txt").exists()
    for name, value in loaded.model.encoder.state_dict().items():
        assert torch.equal(value, encoder[name]), name


def test_lora_leaves_the_llm_and_is_added_up_at_the_end(tmp_path: Path) -> None:
    recipe = spoken.recipe(tmp_path)
    loaded = start(recipe)
    rows = examples(loaded)
    before = {name: value.clone() for name, value in loaded.model.llm.state_dict().items()}
    settings = replace(recipe.stage1, tune="lora", lora_rank=2, lr=1e-2, steps=4, evaluate_every=4)
    task = answering_task(loaded, rows, rows, settings)
    learnt = {name for name, p in task.module.named_parameters() if p.requires_grad}
    assert all("lora_" in name or name.startswith("adaptor.") for name in learnt)
    module = train(task, settings, tmp_path / "run")
    base = {name.replace(".base_layer", "").removeprefix("base_model.model."): value
            for name, value in module.llm.state_dict().items() if "lora_" not in name}
    for name, value in base.items():
        assert torch.equal(value, before[name]), name
    batch = rows.batch([0, 1])
    with torch.no_grad():
        expected = module.eval()(batch)["loss"]
        _, module.llm = module.merged()  # type: ignore[operator]
        torch.testing.assert_close(module(batch)["loss"], expected)
    assert not torch.equal(module.llm.state_dict()["model.layers.0.self_attn.q_proj.weight"],
                           before["model.layers.0.self_attn.q_proj.weight"])
