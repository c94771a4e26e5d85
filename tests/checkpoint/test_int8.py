"""Matrices in int8: what is written, what comes back, and files that are not whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from omnivox.checkpoint import Loaded, convert, load_checkpoint, save_pretrained
from omnivox.checkpoint.files import tensors_of
from omnivox.checkpoint.int8 import dequantised, quantised
from omnivox.errors import CheckpointError


@pytest.fixture
def folder(tmp_path: Path, loaded: Loaded) -> Path:
    save_pretrained(loaded, tmp_path / "model", stored=torch.int8)
    return tmp_path / "model"


def rewrite(folder: Path, **changed: Tensor | None) -> None:
    tensors = load_file(folder / "model.safetensors")
    for name, value in changed.items():
        name = name.replace("__", ".")
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    save_file(tensors, folder / "model.safetensors")


def test_each_row_is_within_half_a_step(folder: Path, loaded: Loaded) -> None:
    found = load_checkpoint(folder).model
    changed = 0
    for name, value in found.named_parameters():
        wanted = loaded.model.get_parameter(name)
        assert value.dtype == torch.float32
        if value.ndim > 1 and name.endswith(".weight"):
            step = wanted.abs().flatten(1).amax(1) / 127
            assert ((value - wanted).abs().flatten(1).amax(1) <= 0.501 * step).all(), name
            changed += not torch.equal(value, wanted)
        else:
            assert torch.equal(value, wanted), name
    assert changed > 10


def test_the_file_holds_int8_and_the_vocoder_floats(folder: Path, loaded: Loaded) -> None:
    tensors = load_file(folder / "model.safetensors")
    weight = loaded.model.adaptor.linear1.weight
    assert tensors["adaptor.linear1.weight"].dtype == torch.int8
    assert tensors["adaptor.linear1.weight_scale"].shape == weight.shape[:1]
    assert tensors["adaptor.linear1.bias"].dtype == torch.float32
    assert {value.dtype for value in load_file(folder / "vocoder.safetensors").values()} == {torch.float16}


def test_written_again_it_is_the_same(folder: Path, tmp_path: Path) -> None:
    """A row's largest is 127 of its steps, so what has been rounded once does not move."""
    save_pretrained(load_checkpoint(folder), tmp_path / "again", stored=torch.int8)
    first, second = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "again"))
    assert first.keys() == second.keys()
    for name, value in first.items():
        if value.dtype == torch.int8:
            assert torch.equal(value, second[name]), name


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=4, max_size=4))
def test_any_row_comes_back(values: list[float]) -> None:
    """Rows of zeros, of one large value, and of values too small for a float16."""
    table = torch.tensor([values, [0.0] * 4, [1e-30, 0.0, 0.0, -1e-30]])
    back = dequantised(tensors_of(quantised({"x.weight": table}), "here"))["x.weight"]
    step = table.abs().amax(1, keepdim=True) / 127
    assert ((back - table).abs() <= 0.501 * step).all()
    assert torch.equal(back[1], table[1])


def test_names_that_only_look_like_scales() -> None:
    plain = {"layer.gamma_scale": torch.ones(3), "other.weight": torch.ones(2, 2)}
    assert set(dequantised(tensors_of(plain, "here"))) == set(plain)


def test_converted(tmp_path: Path, loaded: Loaded) -> None:
    save_pretrained(loaded, tmp_path / "floats", dtype=torch.bfloat16)
    convert(tmp_path / "floats", tmp_path / "small", dtype="int8")
    assert '"dtype": "bfloat16"' in (tmp_path / "small" / "config.json").read_text()  # that in which it is to be used
    size = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("floats", "small")]
    assert size[1] < 0.6 * size[0]


def test_scales_that_are_missing(folder: Path) -> None:
    rewrite(folder, adaptor__linear1__weight_scale=None)
    with pytest.raises(CheckpointError, match=r"'adaptor\.linear1\.weight' is int8.*'adaptor\.linear1\.weight_scale'"):
        load_checkpoint(folder)


@pytest.mark.parametrize("scale", [torch.ones(3), torch.ones(1), torch.ones(64, dtype=torch.int32)])
def test_scales_of_another_shape_or_type(folder: Path, scale: Tensor) -> None:
    rewrite(folder, adaptor__linear1__weight_scale=scale)
    with pytest.raises(CheckpointError, match=r"'adaptor\.linear1\.weight_scale' is \[\d+\] of .*one float for each"):
        load_checkpoint(folder)


def test_scales_beside_floats(folder: Path) -> None:
    rewrite(folder, adaptor__linear1__weight=torch.ones(2, 2))
    with pytest.raises(CheckpointError, match="of a matrix in int8"):
        load_checkpoint(folder)


def test_scales_of_nothing(folder: Path) -> None:
    rewrite(folder, adaptor__linear1__weight=None)
    with pytest.raises(CheckpointError, match=r"'adaptor\.linear1\.weight' is missing"):
        load_checkpoint(folder)
