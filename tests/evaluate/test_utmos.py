"""UTMOS22-strong at toy size, in the published layout: scored as a plain forward of its published names says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Wav2Vec2Config

from omnivox.errors import CheckpointError
from omnivox.evaluate.measure import Answer
from omnivox.evaluate.naturalness import Utmos
from omnivox.evaluate.utmos import ADDRESS, FILE, Utmos22, load_utmos, naturalness
from tests.evaluate.sounds import noise, tone

C, D, FFN, LAYERS, E, RNN, OUT = 8, 128, 24, 2, 6, 10, 12  # D: two heads of 64
STRIDES, KERNELS, GROUPS, POSITIONS = (5, 2, 2, 2, 2, 2, 2), (10, 3, 3, 3, 3, 2, 2), 4, 8


def published(seed: int = 0) -> dict[str, Tensor]:
    """A state dict as SpeechMOS writes it, of random numbers that let everything matter."""
    random = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random) / max(1, shape[-1] if len(shape) < 3 else shape[1]) ** 0.5

    def linear(name: str, out: int, wide: int) -> dict[str, Tensor]:
        return {f"{name}.weight": some(out, wide), f"{name}.bias": some(out)}

    def norm(name: str, wide: int) -> dict[str, Tensor]:
        return {f"{name}.weight": 1 + 0.3 * some(wide), f"{name}.bias": some(wide)}

    inner = {f"feature_extractor.conv_layers.{i}.0.weight": 2 * some(C, 1 if i == 0 else C, kernel)
             for i, kernel in enumerate(KERNELS)}
    inner |= norm("feature_extractor.conv_layers.0.2", C) | norm("layer_norm", C) | linear("post_extract_proj", D, C)
    inner |= {"mask_emb": some(D), "encoder.pos_conv.0.bias": some(D),
              "encoder.pos_conv.0.weight_g": 1 + some(1, 1, POSITIONS).abs(),
              "encoder.pos_conv.0.weight_v": some(D, D // GROUPS, POSITIONS)} | norm("encoder.layer_norm", D)
    for i in range(LAYERS):
        layer = f"encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            inner |= linear(f"{layer}.self_attn.{name}", D, D)
        inner |= linear(f"{layer}.fc1", FFN, D) | linear(f"{layer}.fc2", D, FFN)
        inner |= norm(f"{layer}.self_attn_layer_norm", D) | norm(f"{layer}.final_layer_norm", D)
    state = {f"wav2vec2.{name}": value for name, value in inner.items()}
    state |= {"domain_emb": some(1, E), "judge_emb": some(1, E)}
    for way in ("", "_reverse"):
        state |= {f"blstm.weight_ih_l0{way}": some(4 * RNN, D + 2 * E), f"blstm.weight_hh_l0{way}": some(4 * RNN, RNN),
                  f"blstm.bias_ih_l0{way}": some(4 * RNN), f"blstm.bias_hh_l0{way}": some(4 * RNN)}
    return state | linear("projection.0", OUT, 2 * RNN) | linear("projection.2", 1, OUT)


def lstm(state: dict[str, Tensor], x_TD: Tensor, way: str) -> Tensor:
    """One direction, a step at a time."""
    h = c = torch.zeros(RNN)
    states = []
    for x in x_TD:
        gates = (state[f"blstm.weight_ih_l0{way}"] @ x + state[f"blstm.bias_ih_l0{way}"]
                 + state[f"blstm.weight_hh_l0{way}"] @ h + state[f"blstm.bias_hh_l0{way}"])
        i, f, g, o = gates.chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        states.append(h)
    return torch.stack(states)


def features(w: dict[str, Tensor], wave: Tensor) -> Tensor:
    """wav2vec 2.0 base on one waveform [N] → [T, D], by fairseq's names."""
    x = wave[None, None]
    for i, stride in enumerate(STRIDES):
        x = F.conv1d(x, w[f"feature_extractor.conv_layers.{i}.0.weight"], stride=stride)
        if i == 0:
            name = "feature_extractor.conv_layers.0.2"
            x = F.group_norm(x, C, w[f"{name}.weight"], w[f"{name}.bias"])
        x = F.gelu(x)

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    x = linear("post_extract_proj", norm("layer_norm", x[0].T))
    v = w["encoder.pos_conv.0.weight_v"]
    kernel = v / v.square().sum((0, 1), keepdim=True).sqrt() * w["encoder.pos_conv.0.weight_g"]
    around = F.conv1d(x.T[None], kernel, w["encoder.pos_conv.0.bias"], padding=POSITIONS // 2, groups=GROUPS)
    x = norm("encoder.layer_norm", x + F.gelu(around[0, :, :-1]).T)
    for i in range(LAYERS):
        layer = f"encoder.layers.{i}"
        q, k, v = (linear(f"{layer}.self_attn.{name}", x).unflatten(1, (-1, 64)).transpose(0, 1)
                   for name in ("q_proj", "k_proj", "v_proj"))
        seen = (torch.softmax(q @ k.transpose(1, 2) / 8, -1) @ v).transpose(0, 1).flatten(1)
        x = norm(f"{layer}.self_attn_layer_norm", x + linear(f"{layer}.self_attn.out_proj", seen))
        x = norm(f"{layer}.final_layer_norm", x + linear(f"{layer}.fc2", F.gelu(linear(f"{layer}.fc1", x))))
    return x


def plain(state: dict[str, Tensor], wave: Tensor) -> float:
    inner = {name.removeprefix("wav2vec2."): value for name, value in state.items() if name.startswith("wav2vec2.")}
    x = features(inner, wave)
    x = torch.cat([x, *(state[name].expand(len(x), -1) for name in ("domain_emb", "judge_emb"))], 1)
    x = torch.cat([lstm(state, x, ""), lstm(state, x.flip(0), "_reverse").flip(0)], 1)
    x = torch.relu(x @ state["projection.0.weight"].T + state["projection.0.bias"])
    return float((x @ state["projection.2.weight"].T + state["projection.2.bias"]).mean() * 2 + 3)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("utmos") / FILE
    torch.save(published(), path)
    return path


@pytest.mark.parametrize("seconds", [0.25, 0.75, 1.0])
def test_it_scores_as_the_published_network(weights: Path, seconds: float) -> None:
    wave = noise(seconds)
    found = naturalness(load_utmos(weights), wave)
    assert found == pytest.approx(plain(published(), wave), abs=2e-5)
    assert found != pytest.approx(naturalness(load_utmos(weights), tone(seconds)), abs=1e-3)  # it listens


@pytest.mark.parametrize("name", ["domain_emb", "judge_emb", "wav2vec2.encoder.layers.1.fc2.bias", "projection.2.bias",
                                  "blstm.weight_hh_l0_reverse", "wav2vec2.encoder.pos_conv.0.weight_g"])
def test_every_part_has_its_say(name: str, tmp_path: Path) -> None:
    changed = published()
    changed[name] = changed[name] * 1.5 + 0.2
    for file, state in (("old.pt", published()), ("new.pt", changed)):
        torch.save(state, tmp_path / file)
    old, new = (naturalness(load_utmos(tmp_path / file), noise(0.5)) for file in ("old.pt", "new.pt"))
    assert new == pytest.approx(plain(changed, noise(0.5)), abs=2e-5)
    assert abs(old - new) > 1e-4


def test_the_published_sizes_are_those_of_its_file() -> None:
    with torch.device("meta"):
        model = Utmos22(Wav2Vec2Config(mask_time_prob=0.0))
    count = sum(parameter.numel() for parameter in model.parameters()) + 768  # with the mask's embedding
    assert round(4 * count / 1e6) == 411
    assert model.reach == 400


def test_the_measure_resamples_and_gives_the_same_twice(weights: Path) -> None:
    wave = noise(1.0)
    answers = [Answer("a", "?", "x", wave), Answer("b", "?", "x", noise(1.0, 24_000), 24_000),
               Answer("c", "?", "x", torch.zeros(0)), Answer("d", "?", "x"), Answer("e", "?", "x", wave[:3000])]
    utmos = Utmos(weights)
    first = utmos.measure(answers)
    assert first == utmos.measure(answers) == Utmos(weights).measure(answers)
    assert first[0].value == pytest.approx(naturalness(load_utmos(weights), wave))
    assert first[1].value is not None
    assert first[1].detail == {"seconds": 1.0}
    assert [value.value for value in first[2:]] == [None, None, None]
    assert first[2].why == "lasts 0.00 s; at least 0.25 s can be judged"
    assert first[3].why == "nothing was spoken"
    assert first[4].why == "lasts 0.19 s; at least 0.25 s can be judged"
    assert len(utmos.settings()["weights_sha256"]) == 64


def test_missing_weights_are_told_with_what_to_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=re.escape(f"curl --location --create-dirs --output {tmp_path / FILE} "
                                                        f"{ADDRESS}")) as told:
        Utmos(tmp_path / FILE)
    assert "411 MB" in str(told.value)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path / "hub" / "checkpoints" / FILE))):
        Utmos()


def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path: Path) -> None:
    def saved(state: dict[str, Tensor]) -> Path:
        torch.save(state, tmp_path / FILE)
        return tmp_path / FILE

    state = published()
    less = {name: value for name, value in state.items() if name != "wav2vec2.encoder.layers.0.fc1.bias"}
    with pytest.raises(CheckpointError, match=r"'wav2vec2.encoder.layers.0.fc1.bias' is missing"):
        load_utmos(saved(less))
    with pytest.raises(CheckpointError, match="'domain_emb' is missing"):
        load_utmos(saved({"some": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match="'judge' is there, with no place"):
        load_utmos(saved(state | {"judge": torch.zeros(1)}))
    (tmp_path / FILE).write_bytes(b"PK not a torch file")
    with pytest.raises(CheckpointError, match=FILE):
        load_utmos(tmp_path / FILE)
