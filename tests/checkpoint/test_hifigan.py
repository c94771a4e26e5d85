"""Published unit vocoders: what cannot be read, and how it is said."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from omnivox.checkpoint.hifigan import load_hifigan, published_config, published_name, to_published
from omnivox.errors import CheckpointError
from omnivox.model.config import DurationConfig, HifiganConfig
from omnivox.model.hifigan import Hifigan

TINY = HifiganConfig(units=5, embedding_dim=4, initial_channels=4, upsample_rates=(2,), upsample_kernels=(4,),
                     residual_kernels=(3,), residual_dilations=((1, 2),), sample_rate=8000,
                     duration=DurationConfig(4, 3))


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return to_published(Hifigan(TINY))


def write(folder: Path, tensors: dict[str, Any], **changes: Any) -> Path:
    config = {**published_config(TINY), **changes}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))
    torch.save({"generator": tensors}, folder / "g_00500000")
    return folder / "g_00500000"


def test_names() -> None:
    assert published_name("embedding.weight") == "dict.weight"
    assert published_name("duration.conv2.bias") == "dur_predictor.conv2.0.bias"
    assert published_name("duration.ln1.weight") == "dur_predictor.ln1.weight"
    assert published_name("resblocks.0.convs1.1.weight") == "resblocks.0.convs1.1.weight"


def test_a_file_a_folder_and_safetensors_load_alike(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = write(tmp_path, tensors)
    save_file(tensors, tmp_path / "generator.safetensors")
    vocoders = [load_hifigan(path), load_hifigan(tmp_path), load_hifigan(tmp_path / "generator.safetensors")]
    units = torch.tensor([[0, 4, 2]])
    sounds = [vocoder(units, torch.tensor([3])).row(0) for vocoder in vocoders]
    assert torch.equal(sounds[0], sounds[1])
    assert torch.equal(sounds[0], sounds[2])
    assert vocoders[0].sample_rate == 8000
    assert vocoders[0].frame_samples == 2


def test_weights_whose_norm_was_folded_before_load_too(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    whole = load_hifigan(write(tmp_path, tensors))
    folded = {name: tensor for name, tensor in tensors.items() if not name.endswith(("_g", "_v"))}
    folded |= {published_name(k): v for k, v in whole.state_dict().items() if f"{published_name(k)}_g" in tensors}
    again = load_hifigan(write(tmp_path, folded))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


@pytest.mark.parametrize(("name", "tensor", "said"), [
    ("ups.0.weight_v", None, "'ups.0.weight_v' is missing"),
    ("dur_predictor.proj.bias", None, "'dur_predictor.proj.bias' is missing"),
    ("speaker.weight", torch.zeros(3), "the first 'speaker.weight'"),
    ("dict.weight", torch.zeros(6, 4), r"'dict.weight' is \[6, 4\]; expected \[5, 4\]"),
    ("conv_pre.weight_g", torch.ones(1, 4, 1), r"'conv_pre.weight_g' is \[1, 4, 1\]; expected \[4, 1, 1\]"),
])
def test_wrong_tensors_are_named(tensors: dict[str, Tensor], tmp_path: Path, name: str, tensor: Tensor | None,
                                 said: str) -> None:
    tensors.pop(name, None)
    if tensor is not None:
        tensors[name] = tensor
    with pytest.raises(CheckpointError, match=f"g_00500000: .*{said}"):
        load_hifigan(write(tmp_path, tensors))


@pytest.mark.parametrize(("changes", "said"), [
    ({"num_embeddings": ...}, "'num_embeddings' is missing"),
    ({"dur_predictor_params": ...}, "'dur_predictor_params' is missing"),
    ({"upsample_rates": 5}, "upsample_rates: found 5; expected a list"),
    ({"upsample_rates": [2, "2"]}, r"upsample_rates: found \(2, '2'\)"),
    ({"num_embeddings": 1.5}, "num_embeddings: found 1.5; expected a whole number, 1 or more"),
    ({"sampling_rate": 0}, "sampling_rate: found 0"),
    ({"sampling_rate": -16000}, "sampling_rate: found -16000"),
    ({"dur_predictor_params": {"encoder_embed_dim": True, "var_pred_hidden_dim": 3, "var_pred_kernel_size": 3}},
     "encoder_embed_dim: found True"),
    ({"dur_predictor_params": 3}, "dur_predictor_params is 3"),
    ({"resblock_kernel_sizes": [], "resblock_dilation_sizes": []}, "residual_kernels"),
    ({"resblock": "2"}, "resblock is '2'"),
    ({"f0": True}, "f0 is True"),
    ({"model_in_dim": 7}, "model_in_dim is 7"),
    ({"upsample_kernel_sizes": [5]}, "upsample_kernels: found 5 at rate 2"),
])
def test_wrong_config_keys_are_named(tensors: dict[str, Tensor], tmp_path: Path, changes: dict[str, Any],
                                     said: str) -> None:
    with pytest.raises(CheckpointError, match=f"config.json: .*{said}"):
        load_hifigan(write(tmp_path, tensors, **changes))


class Hostile:
    """What a pickle can do when it is executed."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["OMNIVOX_TEST_TRAP"],)


def test_a_hostile_pickle_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trap = tmp_path / "trap"
    monkeypatch.setenv("OMNIVOX_TEST_TRAP", str(trap))
    path = write(tmp_path, {"conv_pre.bias": Hostile()})
    with pytest.raises(CheckpointError, match="none was executed"):
        load_hifigan(path)
    assert not trap.exists()


def test_damaged_files_are_named(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = write(tmp_path, tensors)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not a torch file"):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="g_00500000"):
            load_hifigan(path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json: not JSON"):
        load_hifigan(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_flipped_and_cut_bytes_are_one_clear_error(tensors: dict[str, Tensor], tmp_path: Path, zipped: bool) -> None:
    path = write(tmp_path, tensors)
    torch.save({"generator": tensors}, path, _use_new_zipfile_serialization=zipped)
    whole, chance = path.read_bytes(), random.Random(0)
    refused = 0
    for i in range(120):
        damaged = bytearray(whole[: chance.randrange(len(whole))] if i % 2 else whole)
        for _ in range(3 * (1 - i % 2)):
            damaged[chance.randrange(min(len(damaged), 3000))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            load_hifigan(path)
        except CheckpointError as error:
            refused += 1
            assert "g_00500000: " in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
    assert refused > 60


def test_numbers_that_are_no_floats_are_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    tensors["conv_post.bias"] = tensors["conv_post.bias"].to(torch.int8)
    with pytest.raises(CheckpointError, match=r"'conv_post\.bias' is int8; expected floats"):
        load_hifigan(write(tmp_path, tensors))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no vocoder"):
        load_hifigan(tmp_path)
    with pytest.raises(CheckpointError, match="g_1: no such file or folder"):
        load_hifigan(tmp_path / "g_1")
    (tmp_path / "g_1").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"config\.json: no such file"):
        load_hifigan(tmp_path / "g_1")


def test_a_torch_file_of_something_else(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    path = write(tmp_path, tensors)
    torch.save({"state_dict": tensors}, path)
    with pytest.raises(CheckpointError, match="no tensors under 'generator'"):
        load_hifigan(path)
