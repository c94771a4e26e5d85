"""A plan's parameters are the modules' own; its memory and time move the right way and meet the paper's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from omnivox.checkpoint import load_checkpoint
from omnivox.cli import app
from omnivox.model.config import AdaptorConfig, EncoderConfig, MelConfig, OmniConfig
from omnivox.model.omni import SpokenLM
from omnivox.train import nano_plan
from omnivox.train.answer import Answering
from omnivox.train.plan import Machine, lora_parameters, parameters, plan, sizes_of, speedup_of_keeping
from omnivox.train.recipes import RECIPES, llama_omni_1b, llama_omni_3b, llama_omni_8b, nano
from omnivox.train.settings import TrainRecipe
from tests.train import families


def built(recipe: TrainRecipe) -> SpokenLM:
    """The recipe's model without memory for its weights."""
    sizes, encoder = recipe.llm_sizes, recipe.encoder_sizes
    with torch.device("meta"), patch("omnivox.model.omni.mel_filters", return_value=None):
        llm = LlamaForCausalLM(LlamaConfig(
            hidden_size=sizes.width, intermediate_size=sizes.ffn, num_hidden_layers=sizes.layers,
            head_dim=sizes.head_dim, num_attention_heads=sizes.heads, num_key_value_heads=sizes.kv_heads,
            vocab_size=sizes.vocabulary, tie_word_embeddings=sizes.tied))
        heard = EncoderConfig(128, encoder.width, encoder.layers, encoder.width // 64)
        adaptor = AdaptorConfig(recipe.k, encoder.width, recipe.adaptor_width, sizes.width)
        return SpokenLM(OmniConfig(MelConfig(128), heard, adaptor, recipe.decoder), llm)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", RECIPES)
def test_parameters_are_the_modules(name: str) -> None:
    recipe = RECIPES[name]()
    model, planned = built(recipe), parameters(recipe)
    assert planned["llm"] == count(model.llm)
    assert planned["adaptor"] == count(model.adaptor)
    assert planned["speech_decoder"] == count(model.speech_decoder)
    positions = sum(value.numel() for name, value in model.encoder.state_dict().items() if "positional" in name)
    own = positions * ("positional_embedding" not in dict(model.encoder.named_parameters()))
    assert planned["encoder"] == pytest.approx(count(model.encoder) + own, rel=1e-6)


def test_low_rank_additions_are_those_that_peft_makes() -> None:
    pytest.importorskip("peft", reason="low-rank additions need peft")
    recipe = llama_omni_3b()
    module = Answering(built(recipe), replace(recipe.stage1, tune="lora"))
    learnt = sum(p.numel() for p in module.llm.parameters() if p.requires_grad)
    assert learnt == lora_parameters(recipe.llm_sizes, recipe.stage1.lora_rank)


def test_the_papers_recipe_fits_its_machine_and_no_smaller_one() -> None:
    four = plan(llama_omni_8b(), Machine(4, 48))
    assert four.fits
    assert not plan(llama_omni_8b(), Machine(1, 48)).fits
    whole = replace(llama_omni_8b(), stage1=replace(llama_omni_8b().stage1, parallel="ddp"))
    assert not plan(whole, Machine(4, 48)).fits
    stage1, stage2 = four.stages
    assert stage1.steps == stage2.steps == 3 * 200_000 // 32
    assert stage2.learnt == pytest.approx(425e6, rel=0.05)  # the paper's figure
    assert 10 < stage1.hours + stage2.hours < 65  # the paper's, which computes states again and pads more


def test_one_gpu_is_enough_for_the_smaller_ones() -> None:
    assert plan(llama_omni_1b(), Machine(1, 40)).fits
    assert plan(replace(llama_omni_1b(), stage1=replace(llama_omni_1b().stage1, tune="lora")), Machine(1, 12)).fits
    assert plan(llama_omni_3b(), Machine(1, 24)).fits


def test_memory_and_time_move_the_right_way() -> None:
    recipe = llama_omni_8b()
    base = plan(recipe, Machine(4, 48)).stages[0]
    more = plan(replace(recipe, stage1=replace(recipe.stage1, micro_batch=4)), Machine(4, 48)).stages[0]
    remembering = plan(replace(recipe, stage1=replace(recipe.stage1, checkpointing=False)), Machine(4, 48)).stages[0]
    assert more.memory.activations == pytest.approx(4 * base.memory.activations)
    assert remembering.memory.activations > 2 * base.memory.activations
    assert remembering.hours < base.hours
    assert plan(recipe, Machine(8, 48)).stages[0].hours == pytest.approx(base.hours / 2)
    assert plan(recipe, Machine(8, 48)).stages[0].memory.total < base.memory.total


def test_keeping_states_pays_at_8b() -> None:
    assert 1.3 < speedup_of_keeping(llama_omni_8b()) < 3


def test_sizes_are_read_from_a_folder(tmp_path: Path) -> None:
    sizes = sizes_of(families.llm_folder(tmp_path / "llm", "qwen"))
    assert (sizes.layers, sizes.width, sizes.heads, sizes.kv_heads) == (2, 16, 2, 1)


def test_the_command_prints_the_plan_and_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(app, ["train", "llama-omni-8b", "--plan", "--gpus", "4", "--gpu-memory", "48"])
    assert shown.exit_code == 0, shown.output
    for part in ("llm 8,030M", "stage1", "stage2", "18,750", "hours", "GB on each GPU"):
        assert part in shown.output
    assert not list(tmp_path.iterdir())
    crowded = CliRunner().invoke(app, ["train", "llama-omni-8b", "--plan", "--gpus", "1"])
    assert "Does not fit" in crowded.output
    missing = CliRunner().invoke(app, ["train", "llama-omni-8b", "stage1"])
    assert missing.exit_code == 2
    assert "--data: is missing" in missing.stderr


def test_nanos_plan_is_of_its_own_modules_and_falls_with_the_work() -> None:
    whole, tenth = (nano_plan.plan(nano(scale=scale)) for scale in (1, 0.1))
    loaded = load_checkpoint("nano")
    parts = {name: count(getattr(loaded.model, name)) for name in ("encoder", "adaptor", "llm", "speech_decoder")}
    assert loaded.vocoder is not None
    assert whole.parameters == parts | {"vocoder": count(loaded.vocoder)}
    assert [step.name for step in whole.steps[2:]] == ["language", "encoder", "hear", "vocoder", "stage1", "stage2"]
    for long, short in zip(whole.steps, tenth.steps, strict=True):
        assert (short.learnt, short.frozen) == (long.learnt, long.frozen)
        assert short.minutes == pytest.approx(long.minutes / 10, rel=0.01)
        assert short.memory_gb <= long.memory_gb


def test_nanos_plan_is_printed_and_starts_nothing(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["train", "nano", "--plan", "--work", str(tmp_path / "work")])
    assert told.exit_code == 0
    for name in ("language", "encoder", "hear", "stage1", "stage2", "hours of two"):
        assert name in told.output
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(("given", "named"), [
    (["nano", "stage1", "--set", "stage1.lr=1e-4"], "--set: found with the recipe nano"),
    (["nano", "stage1", "--data", "somewhere"], "--data: found with the recipe nano"),
    (["llama-omni-1b", "stage1", "--scale", "0.1"], "--scale: found with the recipe llama-omni-1b")])
def test_a_flag_that_the_recipe_does_not_use_is_refused(given: list[str], named: str, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["train", *given, "--work", str(tmp_path / "work")])
    assert told.exit_code == 2
    assert named in told.output
    assert not (tmp_path / "work").exists()
