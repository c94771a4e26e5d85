"""Units of a HuBERT: a batch against its members, any length, and the arithmetic of frames."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import HubertConfig, HubertModel

from omnivox.data import hubert as module
from omnivox.data.hubert import HubertKmeans
from omnivox.errors import CheckpointError, ConfigError

CONFIG = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
          "conv_dim": [8] * 7, "num_conv_pos_embeddings": 6, "num_conv_pos_embedding_groups": 4}


def tiny(seed: int = 0, **changes: object) -> HubertModel:
    torch.manual_seed(seed)
    return HubertModel(HubertConfig(**CONFIG, **changes)).eval().requires_grad_(False)


def noise(samples: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    loudness = torch.rand(samples // 800 + 1, generator=generator).repeat_interleave(800)[:samples]
    return 0.3 * loudness * torch.randn(samples, generator=generator)


@pytest.fixture
def quantiser() -> HubertKmeans:
    model = tiny()
    rows = HubertKmeans(tiny(), torch.zeros(1, 16), layer=2).features([noise(30_000, 9)])[0]
    return HubertKmeans(model, rows[::10], layer=2)


@pytest.mark.parametrize("stable", [False, True])
def test_features_are_those_of_the_layer(stable: bool) -> None:
    model, wave = tiny(do_stable_layer_norm=stable), noise(8000)
    expected = model(wave[None], output_hidden_states=True).hidden_states[2][0]
    found = HubertKmeans(model, torch.zeros(4, 16), layer=2).features([wave])[0]
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_batch_gives_what_its_members_give_alone(quantiser: HubertKmeans) -> None:
    waves = [noise(n, i) for i, n in enumerate((16_000, 5000, 401, 100, 0, 12_345))]
    alone = [quantiser.features([wave])[0] for wave in waves]
    for together, single in zip(quantiser.features(waves), alone, strict=True):
        assert torch.allclose(together, single, atol=1e-5)
    units = quantiser.encode_many(waves)
    assert [len(one) for one in units] == [(n - 400) // 320 + 1 if n >= 400 else 0 for n in map(len, waves)]
    assert all(torch.equal(one, quantiser.encode(wave)) for one, wave in zip(units, waves, strict=True))
    assert len(units[0].unique()) > 3
    assert all(one.dtype == torch.int64 for one in units)


def test_long_speech_is_cut_and_nothing_else_changes(quantiser: HubertKmeans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SAMPLES", 8000)
    wave = noise(20_100)
    parts = [quantiser.encode(piece) for piece in wave.split(8000)]
    assert torch.equal(quantiser.encode(wave), torch.cat(parts))
    assert len(parts) == 3


def test_batches_hold_no_more_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH_SAMPLES", 100)
    pieces = [(i, torch.zeros(n)) for i, n in enumerate((20, 50, 30, 200, 10, 10))]
    found = [[len(piece) for _, piece in batch] for batch in module._batches(pieces)]
    assert found == [[20, 50], [30], [200], [10, 10]]


def test_the_nearest_centre_is_the_nearest(quantiser: HubertKmeans) -> None:
    rows = torch.randn(50, 16)
    assert torch.equal(quantiser.nearest(rows), torch.cdist(rows, quantiser.centres).argmin(1))


def test_sizes(quantiser: HubertKmeans) -> None:
    assert quantiser.frame_samples == 320
    assert quantiser._reach == 400
    assert len(quantiser.model.encoder.layers) == 2
    with pytest.raises(ConfigError, match=r"layer: found 4; this HuBERT has 3"):
        HubertKmeans(tiny(), torch.zeros(4, 16), layer=4)
    with pytest.raises(CheckpointError, match="8 wide; expected 16"):
        HubertKmeans(tiny(), torch.zeros(4, 8), layer=2)


def test_it_is_loaded_from_files(quantiser: HubertKmeans, tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path / "hubert")
    save_file({"centres": quantiser.centres.contiguous()}, tmp_path / "km.safetensors")
    loaded = HubertKmeans.load(tmp_path / "hubert", tmp_path / "km.safetensors", layer=2)
    assert torch.equal(loaded.encode(noise(6000)), quantiser.encode(noise(6000)))
