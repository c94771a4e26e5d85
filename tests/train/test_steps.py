"""From an LLM's folder and a Whisper encoder to a model that answers in speech, as a user would run it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import omnivox
from omnivox.errors import CheckpointError, ConfigError, DataError
from omnivox.train.recipes import RECIPES
from omnivox.train.steps import OmniTraining
from tests.checkpoint import published
from tests.train import families, spoken


def answer(folder: Path, speak: bool) -> omnivox.Reply:
    omni = omnivox.load(folder)
    *_, done = omni.respond(spoken.conversation(0).turns[0].question, max_new_tokens=4, speak=speak)
    assert isinstance(done, omnivox.Done)
    return done.reply


@pytest.mark.parametrize("family", families.FAMILIES)
def test_both_stages_and_an_answer(family: str, tmp_path: Path) -> None:
    recipe = spoken.recipe(tmp_path / "parts", family)
    recipe = replace(recipe, stage1=replace(recipe.stage1, steps=2, batch=2), stage2=replace(recipe.stage2, steps=2))
    vocoder = published.unit_vocoder(tmp_path / "vocoder", spoken.UNITS)
    training = OmniTraining(tmp_path / "run", recipe, spoken.write(tmp_path / "data", 6, turns=2), vocoder=vocoder)
    written = answer(training.stage1(), speak=False)
    finished = training.stage2()
    spoke = answer(finished, speak=True)
    assert spoke.token_ids == written.token_ids  # stage 2 leaves the text alone
    assert spoke.sample_rate == 16_000
    assert json.loads((tmp_path / "run" / "stage2" / "config.json").read_text())["llm"] == recipe.llm
    assert omnivox.load(finished).config.states_fed == "predicting"


def test_a_finished_step_is_not_done_again(tmp_path: Path) -> None:
    recipe = spoken.recipe(tmp_path / "parts")
    recipe = replace(recipe, stage1=replace(recipe.stage1, steps=2, tune="lora", lora_rank=2))
    training = OmniTraining(tmp_path / "run", recipe, spoken.write(tmp_path / "data", 4))
    model = training.stage1() / "model.safetensors"
    made = model.stat().st_mtime_ns
    training.stage1()
    assert model.stat().st_mtime_ns == made


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    recipe = spoken.recipe(tmp_path / "parts")
    data = spoken.write(tmp_path / "data", 4)
    with pytest.raises(CheckpointError, match="run the step 'stage1' first, or name a checkpoint with --model"):
        OmniTraining(tmp_path / "run", recipe, data).run("stage2")
    with pytest.raises(ConfigError, match="found 'stage3'; expected stage1 or stage2"):
        OmniTraining(tmp_path / "run", recipe, data).run("stage3")
    with pytest.raises(DataError, match="no such file or folder"):
        OmniTraining(tmp_path / "run", recipe, tmp_path / "none").run("stage1")
    with pytest.raises(CheckpointError, match="no causal LM that transformers can read"):
        OmniTraining(tmp_path / "run", replace(recipe, llm=str(published.unit_vocoder(tmp_path / "v"))), data
                     ).run("stage1")
    other = published.unit_vocoder(tmp_path / "other", spoken.UNITS + 1)
    with pytest.raises(ConfigError, match=r"knows 8 units, the speech decoder gives 7; .*--set decoder.units=8"):
        OmniTraining(tmp_path / "run", recipe, data, vocoder=other).run("stage2")


def test_rows_in_files_that_cannot_be_used_are_left_out(tmp_path: Path) -> None:
    data = spoken.write(tmp_path / "data", 6)
    (data / "row-3-0.wav").write_bytes(b"no sound")
    recipe = spoken.recipe(tmp_path / "parts")
    recipe = replace(recipe, stage1=replace(recipe.stage1, steps=4, held_rows=0, max_bad=1))
    OmniTraining(tmp_path / "run", recipe, data).stage1()
    lines = (tmp_path / "run" / "stage1" / "log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["bad_rows"] == 1


def test_parquet_shards_are_learnt_from_too(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="shards need pyarrow (extra data)")
    from tests.data.speaking import rows
    from tests.data.test_write import built

    data = built(tmp_path / "built", rows(6, turns=2)) / "write"
    recipe = spoken.recipe(tmp_path / "parts")
    recipe = replace(recipe, stage1=replace(recipe.stage1, steps=2), stage2=replace(recipe.stage2, steps=2))
    OmniTraining(tmp_path / "run", recipe, data).stage1()
    with pytest.raises(ConfigError, match=r"are made of 9 units, the speech decoder gives 7; --set decoder.units=9"):
        OmniTraining(tmp_path / "run", recipe, data).stage2()
    recipe = replace(recipe, decoder=replace(recipe.decoder, units=9))
    assert (OmniTraining(tmp_path / "run", recipe, data).stage2() / "model.safetensors").exists()
    shard = next(data.rglob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:200])
    with pytest.raises(DataError, match=shard.name):
        OmniTraining(tmp_path / "again", replace(recipe, stage1=replace(recipe.stage1, max_bad=0)), data).stage1()


def test_recipes_are_whole_and_build(tmp_path: Path) -> None:
    for name, made in RECIPES.items():
        recipe = made()
        assert recipe.name == name
        assert recipe.decoder.units == 1000
        with torch.device("meta"):
            from omnivox.model.speech_decoder import SpeechDecoder

            SpeechDecoder(recipe.decoder)
