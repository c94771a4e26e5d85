"""BEATs against a slow account of it in loops, and the files that it cannot be read from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from omnivox.errors import CheckpointError
from omnivox.systems.beats import buckets, filterbank, load_beats
from tests.systems import hearing, writers

pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")


def kaldi(wave: Tensor) -> Tensor:
    """Kaldi's filterbank by transformers."""
    filters = mel_filter_bank(num_frequency_bins=257, num_mel_filters=128, min_frequency=20, max_frequency=8000,
                              sampling_rate=16000, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True)
    found = spectrogram(wave.double().numpy() * 2**15, window_function(400, "povey", periodic=False), 400, 160, 512,
                        power=2.0, center=False, preemphasis=0.97, mel_filters=filters, log_mel="log",
                        mel_floor=1.192092955078125e-07, remove_dc_offset=True)
    return torch.from_numpy(np.asarray(found).T.astype(np.float64))


@pytest.mark.parametrize("samples", [400, 559, 560, 8000])
def test_the_filterbank_is_kaldi_s(samples: int) -> None:
    wave = writers.speech(1.0)[:samples]
    found = filterbank(wave[None])[0]
    assert found.shape == ((samples - 400) // 160 + 1, 128)
    assert torch.allclose(found * 2 * 6.55582 + 15.41663, kaldi(wave).float(), atol=2e-3)


def test_silence_has_a_floor() -> None:
    assert torch.isfinite(filterbank(torch.zeros(1, 800))).all()


def slow_bucket(query: int, key: int, count: int, furthest: int) -> int:
    half = count // 2
    distance = abs(key - query)
    start = half if key > query else 0
    if distance < half // 2:
        return start + distance
    grown = half // 2 + int(math.log(distance / (half // 2)) / math.log(furthest / (half // 2)) * (half - half // 2))
    return start + min(grown, half - 1)


@pytest.mark.parametrize(("length", "count", "furthest"), [(30, 16, 20), (1000, 320, 800), (1, 16, 20)])
def test_distances_fall_into_buckets(length: int, count: int, furthest: int) -> None:
    found = buckets(length, count, furthest)
    places = range(0, length, max(1, length // 60))
    different = [(q, k) for q in places for k in places
                 if int(found[q, k]) != slow_bucket(q, k, count, furthest)]
    assert not different
    assert int(found.max()) <= count - 1


def slow_attention(x_PD: Tensor, named: Any, config: dict[str, Any]) -> Tensor:
    """One query and one head at a time."""
    heads = config["encoder_attention_heads"]
    width = x_PD.shape[1] // heads
    q, k, v = (F.linear(x_PD, named(f"{part}_proj.weight"), named(f"{part}_proj.bias")) for part in "qkv")
    table, mixed = named("relative_attention_bias.weight"), torch.zeros_like(x_PD)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for i in range(len(x_PD)):
            eight = F.linear(q[i, part], named("grep_linear.weight"), named("grep_linear.bias"))
            first, second = torch.sigmoid(eight[:4].sum()), torch.sigmoid(eight[4:].sum())
            gate = first * (second * named("grep_a")[0, head, 0, 0] - 1) + 2
            scores = torch.stack([
                q[i, part] @ k[j, part] / math.sqrt(width)
                + gate * table[slow_bucket(i, j, config["num_buckets"], config["max_distance"]), head]
                for j in range(len(x_PD))])
            mixed[i, part] = scores.softmax(0) @ v[:, part]
    return F.linear(mixed, named("out_proj.weight"), named("out_proj.bias"))


def slow_beats(wave: Tensor, tensors: dict[str, Tensor], config: dict[str, Any]) -> Tensor:
    """In double precision, from the description and the published names alone."""
    def named(name: str) -> Tensor:
        return tensors[name].double()

    def norm(x: Tensor, name: str) -> Tensor:
        mean, spread = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
        return (x - mean) / (spread + 1e-5).sqrt() * named(f"{name}.weight") + named(f"{name}.bias")

    bank = (kaldi(wave) - 15.41663) / (2 * 6.55582)
    patches = [(named("patch_embedding.weight")[:, 0] * bank[t:t + 16, c:c + 16]).sum((1, 2))
               for t in range(0, len(bank) - 15, 16) for c in range(0, 128, 16)]
    x = F.linear(norm(torch.stack(patches), "layer_norm"), named("post_extract_proj.weight"),
                 named("post_extract_proj.bias"))
    g, v, kernel = named("encoder.pos_conv.0.weight_g"), named("encoder.pos_conv.0.weight_v"), config["conv_pos"]
    weight = torch.stack([g[0, 0, i] * v[..., i] / v[..., i].square().sum().sqrt() for i in range(kernel)], -1)
    padded = F.pad(x.T[None], (kernel // 2, kernel // 2 - 1))  # the last column of an even kernel is dropped
    place = F.conv1d(padded, weight, named("encoder.pos_conv.0.bias"), groups=config["conv_pos_groups"])[0].T
    x = norm(x + F.gelu(place), "encoder.layer_norm")
    alpha = (2 * config["encoder_layers"]) ** 0.25
    for i in range(config["encoder_layers"]):
        layer = f"encoder.layers.{i}"
        attended = slow_attention(x, lambda name, layer=layer: named(f"{layer}.self_attn.{name}"), config)
        x = norm(alpha * x + attended, f"{layer}.self_attn_layer_norm")
        inner = F.gelu(F.linear(x, named(f"{layer}.fc1.weight"), named(f"{layer}.fc1.bias")))
        x = norm(alpha * x + F.linear(inner, named(f"{layer}.fc2.weight"), named(f"{layer}.fc2.bias")),
                 f"{layer}.final_layer_norm")
    return x


def test_it_is_what_the_description_says(tmp_path: Path) -> None:
    tensors, wave = hearing.beats_tensors(), writers.speech(0.6)
    model = load_beats(hearing.beats_file(tmp_path / "beats.pt", tensors))
    found = model(wave[None])[0]
    assert found.shape == ((len(wave) - 400) // 160 // 16 * 8, 32)
    assert torch.allclose(found.double(), slow_beats(wave, tensors, hearing.BEATS), atol=2e-4)


def test_a_batch_gives_what_its_rows_give(tmp_path: Path) -> None:
    model = load_beats(hearing.beats_file(tmp_path / "beats.pt"))
    waves = torch.stack([writers.speech(0.5), writers.speech(0.5, seed=1)])
    assert torch.allclose(model(waves)[1], model(waves[1:])[0], atol=1e-5)


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "message"), [
    ({"deep_norm": False}, "cfg: deep_norm is False; expected True"),
    ({"num_buckets": None}, "cfg: num_buckets is None; expected a whole number"),
    ({"encoder_embed_dim": 48}, r"post_extract_proj\.(weight|bias)' is \[32.*expected \[48"),
    ({"encoder_layers": 3}, r"tensors 'encoder\.layers\.2\..* are missing"),
    ({"conv_pos": 6}, r"expected \[32, 8, 6\]"),
])
def test_a_cfg_that_does_not_fit(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_beats(hearing.beats_file(tmp_path / "beats.pt", **changes))


def test_a_tensor_that_is_missing_goes_by_its_published_name(tmp_path: Path) -> None:
    tensors = hearing.beats_tensors()
    for name in ("encoder.pos_conv.0.weight_g", "encoder.layers.0.self_attn.relative_attention_bias.weight"):
        rest = {other: value for other, value in tensors.items() if other != name}
        with pytest.raises(CheckpointError, match=f"{name}' is missing"):
            load_beats(hearing.beats_file(tmp_path / "beats.pt", rest))


def test_a_hostile_file_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"cfg": hearing.BEATS, "model": {}, "more": writers.Hostile(tmp_path / "mark")}, tmp_path / "beats.pt")
    with pytest.raises(CheckpointError, match="was not executed"):
        load_beats(tmp_path / "beats.pt")
    assert not (tmp_path / "mark").exists()


def test_another_file_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": {}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="has no 'cfg' and 'model'"):
        load_beats(tmp_path / "other.pt")
