"""Wrong values in a configuration: each is named, with what was found and what would be right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnivox.checkpoint.load import load_checkpoint
from omnivox.errors import CheckpointError, ConfigError, OmnivoxError
from omnivox.model.config import Config, HifiganConfig, OmniConfig, SourceFilterConfig
from tests import tiny
from tests.checkpoint import published

WRONG: list[Any] = [-1, "x", None, 1.5, [], {}, True]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "model"
    tiny.omni().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads((folder / "config.json").read_text())
    change(values)
    (folder / "config.json").write_text(json.dumps(values))


def sizes_of(values: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Every leaf of a configuration, with the object that holds it."""
    found = []
    for key, value in values.items():
        found += sizes_of(value) if isinstance(value, dict) else [(values, key)]
    return found


@pytest.mark.parametrize("config", [tiny.CONFIG, HifiganConfig(), SourceFilterConfig()],
                         ids=lambda config: type(config).__name__)
def test_every_leaf_of_another_kind_is_named(config: Config) -> None:
    for i in range(len(sizes_of(config.to_dict()))):
        for wrong in WRONG:
            values = json.loads(json.dumps(config.to_dict()))
            holder, key = sizes_of(values)[i]
            if type(wrong) is type(holder[key]) or (key, wrong) in [("rope_scaling", None), ("rope_scaling", {}),
                                                                    ("rope_theta", True)]:
                continue
            if isinstance(holder[key], float) and wrong == 1.5:
                continue
            holder[key] = wrong
            with pytest.raises(ValueError, match=rf"\.{key}: found .*; expected "):
                type(config).from_dict(values)


def test_numbers_are_positive_where_they_are_sizes() -> None:
    for section, key, wrong, said in [
            ("encoder", "heads", 0, "a whole number, 1 or more"),
            ("encoder", "conv_kernel", -1, "a whole number, 0 or more"),
            ("encoder", "strides", [1, 0], "a list, each of it a whole number, 1 or more"),
            ("speech_decoder", "norm_eps", 0, "a number above 0"),
            ("speech_decoder", "rope_theta", float("nan"), "a number above 0"),
            ("mel", "pad_to_chunk", 1, "true or false")]:
        with pytest.raises(ValueError, match=rf"\.{key}: found .*; expected {said}"):
            OmniConfig.from_dict({section: {key: wrong}})
    assert SourceFilterConfig.from_dict({"filter_right": [0], "pitch_hz": 100}).filter_right == (0,)


def test_states_are_fed_as_the_paper_or_the_trainer_does() -> None:
    with pytest.raises(ValueError, match=r"states_fed: found 'consumd'; expected 'predicting' or 'consumed'"):
        OmniConfig.from_dict({"states_fed": "consumd"})


@pytest.mark.parametrize(("change", "said"), [
    (lambda v: v["omni"]["encoder"].update(heads=3), "encoder.heads: found 3; expected a divisor"),
    (lambda v: v["omni"]["mel"].update(pad_to_chunk=True), "encoder.positions: found 200; expected 750 or more"),
    (lambda v: v["omni"]["encoder"].update(positions=10**12), "config.json: "),
    (lambda v: v["omni"]["speech_decoder"].update(rope_scaling={"rope_type": "llama3"}), "config.json: "),
    (lambda v: v["llm"].update(num_attention_heads=0), "llm: "),
    (lambda v: v["llm"].update(hidden_size="wide"), "llm: .*hidden_size"),
    (lambda v: v["llm"].update(hidden_size=-1), "llm: "),
    (lambda v: v["llm"].update(hidden_act="x"), "llm: "),
    (lambda v: v["llm"].update(initializer_range=None), "llm: .*initializer_range"),
    (lambda v: v["llm"].update(tie_word_embeddings="x"), "llm: .*tie_word_embeddings"),
    (lambda v: v["llm"].update(rope_parameters=3), "llm: .*rope_parameters"),
    (lambda v: v["llm"].update(model_type=["llama"]), r"llm.model_type is \['llama'\]"),
    (lambda v: v["vocoder"].update(kind=["hifigan"]), "vocoder.kind is"),
    (lambda v: v["vocoder"].update(hop=7), "vocoder: "),
    (lambda v: v["vocoder"].update(sample_rate=-16_000), "vocoder: SourceFilterConfig.sample_rate: found -16000"),
    (lambda v: v["prompt"].update(end_ids=3), "prompt: Prompt.end_ids: found 3"),
    (lambda v: v["prompt"].update(before=[1.5]), "prompt: Prompt.before: found"),
])
def test_what_cannot_be_built_is_one_line(folder: Path, change: Callable[[dict[str, Any]], object], said: str) -> None:
    edit(folder, change)
    with pytest.raises(ConfigError, match=said) as caught:
        load_checkpoint(folder, device="cpu")
    assert str(folder / "config.json") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("key", "wrong"), [
    ("rms_norm_eps", "x"), ("rms_norm_eps", None), ("tie_word_embeddings", 3), ("eos_token_id", True),
    ("rope_scaling", 1.5), ("ctc_upsample_factor", True), ("ctc_decoder_config", "(0,16,2,24)"),
    ("ctc_decoder_config", "(1,16,3,24)"), ("hidden_act", "x"), ("num_attention_heads", -1)])
def test_wrong_values_of_a_published_config(tmp_path: Path, key: str, wrong: Any) -> None:
    folder = published.write(tmp_path / "omni", published.tensors(published.model()))
    edit(folder, lambda values: values.update({key: wrong}))
    with pytest.raises(OmnivoxError, match=r"config\.json") as caught:
        load_checkpoint(folder, device="cpu")
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_floats_are_refused(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    name = "llm.model.layers.0.mlp.up_proj.weight"
    tensors[name] = (127 * tensors[name]).char()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"tensor '{name}' is int8; expected floats"):
        load_checkpoint(folder, device="cpu")
