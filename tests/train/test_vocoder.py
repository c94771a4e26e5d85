"""Training the source-filter vocoder: its data line up with its windows, and a run can be taken up again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from omnivox.errors import DataError
from omnivox.model.config import MfccConfig, SourceFilterConfig
from omnivox.model.source_filter import SourceFilter
from omnivox.model.units import MfccKmeans
from omnivox.train.loop import Schedule
from omnivox.train.vocoder import SpectralLoss, VocoderRecipe, duration_loss, load_vocoder, train_vocoder
from omnivox.train.voice import Voice, confuse, fill_unvoiced, nearest_units, track_pitch

pytest.importorskip("pyworld", reason="pitch is tracked by pyworld, of the extra [nano]")

TINY = SourceFilterConfig(width=8, pitch_width=8, duration_width=8)
RECIPE = VocoderRecipe(Schedule(steps=2, lr=1e-3, log_every=1), rows=2, speak=6)


class EveryFrame:
    """Units that count the frames: frame i of an utterance is unit i mod 40."""

    units, frame_samples = 40, 640

    def encode(self, wave: torch.Tensor) -> torch.Tensor:
        return torch.arange(len(wave) // 640) % 40


def buzz(hertz: float, seconds: float) -> NDArray[np.float32]:
    t = np.arange(int(seconds * 16_000)) / 16_000
    return (0.05 * sum(np.sin(2 * np.pi * hertz * h * t) for h in range(1, 20))).astype(np.float32)


@pytest.fixture
def voice(tmp_path: Path) -> Voice:
    return Voice([buzz(110, 1.0), buzz(140, 0.6)], EveryFrame(), tmp_path / "pitch.safetensors", hours=1, hop=160,
                 rate=16_000)


def test_pitch_is_tracked_hop_by_hop() -> None:
    wave = np.concatenate([np.zeros(8000, np.float32), buzz(125, 1.0)])
    hertz = track_pitch(wave, 16_000, 160)
    assert hertz.shape == (150,)
    assert (hertz[:45] == 0).all()
    np.testing.assert_allclose(hertz[60:140], 125, atol=1.5)


def test_unvoiced_stretches_are_bridged() -> None:
    bridged = fill_unvoiced(np.array([0, 100, 0, 0, 130, 0], np.float32), 90)
    np.testing.assert_allclose(bridged, [100, 100, 110, 120, 130, 130])
    np.testing.assert_allclose(fill_unvoiced(np.zeros(2, np.float32), 90), [90, 90])


def test_batches_line_up_with_the_window(voice: Voice) -> None:
    vocoder = SourceFilter(TINY)
    batch = voice.batch(vocoder, np.random.default_rng(0), rows=6, speak=8)
    window = batch.window
    assert (window.before, window.after) == vocoder.context
    assert batch.hertz.shape == vocoder.pitch(window).hertz.shape
    for b in range(6):
        start = int(window.position[b])
        middle = slice(window.before, window.before + 8)
        assert torch.equal(window.units[b, middle][window.valid[b, middle]],
                           torch.arange(start, start + int(window.valid[b, middle].sum())) % 40)
        assert int(window.valid[b, : window.before].sum()) == min(start, window.before)
        source = next(w for w in voice.waves if np.isclose(w[start * 640 : start * 640 + 50],
                                                           batch.samples[b, :50].numpy()).all())
        count = int(batch.heard[b].sum())
        assert count == min(8 * 640, len(source) - start * 640)
        np.testing.assert_array_equal(batch.samples[b, :count], source[start * 640 : start * 640 + count])


def test_pitch_is_tracked_once(voice: Voice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnivox.train.voice.track_pitch", lambda *_: pytest.fail("tracked again"))
    again = Voice([buzz(110, 1.0), buzz(140, 0.6)], EveryFrame(), tmp_path / "pitch.safetensors", hours=1, hop=160,
                  rate=16_000)
    assert all(np.array_equal(a, b) for a, b in zip(again.hertz, voice.hertz, strict=True))


def test_what_is_said_often_is_among_the_hours_and_drawn_by_its_share(tmp_path: Path) -> None:
    corpus = [buzz(110 + 5 * i, 1.0) for i in range(6)]
    voice = Voice(corpus, EveryFrame(), tmp_path / "pitch.safetensors", hours=3 / 3600, hop=160, rate=16_000,
                  often=[4], share=0.25)
    assert len(voice.waves) == 3
    assert np.array_equal(voice.waves[0], corpus[4][: len(voice.waves[0])])
    assert voice.weights == pytest.approx([0.25, 0.375, 0.375])


def test_the_spectral_loss_is_zero_for_the_same_and_grows_with_distance() -> None:
    loss, wave = SpectralLoss(16_000), torch.from_numpy(buzz(110, 0.5))[None]
    near, far = torch.from_numpy(buzz(112, 0.5))[None], torch.from_numpy(buzz(170, 0.5))[None]
    assert float(loss(wave, wave)) < 1e-6
    assert 0 < float(loss(near, wave)) < float(loss(far, wave))
    silent = torch.zeros(1, 8000, requires_grad=True)
    loss(silent, wave).backward()
    assert silent.grad is not None
    assert torch.isfinite(silent.grad).all(), "digital silence has a slope"


def test_the_duration_loss_counts_real_units_only() -> None:
    vocoder = SourceFilter(TINY)
    units, durations, length = torch.tensor([[1, 2, 3, 9, 9]]), torch.tensor([[1, 4, 2, 50, 50]]), torch.tensor([3])
    exact = duration_loss(vocoder, units[:, :3], durations[:, :3], length)
    torch.testing.assert_close(duration_loss(vocoder, units, durations, length), exact)


def test_a_run_is_saved_and_taken_up_again(tmp_path: Path) -> None:
    corpus = [buzz(100 + 10 * i, 1.0) for i in range(3)]
    first = train_vocoder(corpus, EveryFrame(), tmp_path / "run", TINY, RECIPE)
    assert first.config.units == 40
    assert 95 < first.config.pitch_hz < 125
    logged = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged] == [1, 2]
    assert {"loss", "spectral", "pitch", "voicing", "duration"} <= logged[0].keys()
    again = train_vocoder(corpus, EveryFrame(), tmp_path / "run", TINY, RECIPE)
    loaded = load_vocoder(tmp_path / "run")
    for name, tensor in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_a_corpus_of_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no utterance of two unit frames"):
        train_vocoder([buzz(100, 0.05)], EveryFrame(), tmp_path / "run", TINY, RECIPE)


def test_confused_units_are_near_ones_or_the_one_before() -> None:
    quantiser = MfccKmeans(MfccConfig(units=40, frame_samples=320))
    quantiser.centres.copy_(torch.randn(40, quantiser.centres.shape[1], generator=torch.Generator().manual_seed(0)))
    near = nearest_units(quantiser, 3)
    distance = torch.cdist(quantiser.centres, quantiser.centres)
    assert all(unit not in row and set(row) == set(distance[unit].topk(4, largest=False).indices.tolist()) - {unit}
               for unit, row in enumerate(near.tolist()))
    units = np.random.default_rng(1).integers(0, 40, 4000)
    heard = confuse(units, near, 0.2, np.random.default_rng(2))
    changed = np.flatnonzero(heard != units)
    assert len(changed) / len(units) == pytest.approx(0.2 * (1 - 1 / 80), abs=0.02)  # some have the unit before anyway
    assert all(heard[i] in near[units[i]] or heard[i] == units[i - 1] for i in changed)
    assert np.array_equal(confuse(units, near, 0.0, np.random.default_rng(2)), units)


def test_units_without_centres_cannot_be_confused() -> None:
    class Other:
        units, frame_samples = 4, 320

        def encode(self, wave: torch.Tensor) -> torch.Tensor:
            return wave.long()

    with pytest.raises(DataError, match="no centres"):
        nearest_units(Other())
