"""A unit HiFi-GAN learns a voice, goes on where it was stopped, and is loaded as a published one is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from omnivox.checkpoint.hifigan import load_hifigan
from omnivox.checkpoint.hubert import load_centres
from omnivox.cli import app
from omnivox.errors import DataError
from omnivox.model.config import DurationConfig, HifiganConfig
from omnivox.sound import write_wav
from omnivox.train.discriminators import Discriminators, adversarial_loss, discriminator_loss, feature_loss
from omnivox.train.hubert_units import train_hubert_units
from omnivox.train.settings import VocoderSettings
from omnivox.train.unit_vocoder import Clip, VocoderTraining, read_clips

CONFIG = HifiganConfig(4, 8, 16, (5, 4), (11, 8), (3,), ((1, 3),), duration=DurationConfig(8, 8, 3))
SETTINGS = VocoderSettings(lr=2e-3, batch=2, frames=80, steps=6, periods=(2, 3), scales=2, period_channels=2,
                           scale_channels=8, log_every=1)


def clip(seed: int = 0) -> Clip:
    """Four tones, a unit each; 20 samples a frame."""
    units = torch.arange(4).repeat(5).roll(seed).repeat_interleave(10)
    phase = (2 * torch.pi * (200 + 150 * units.repeat_interleave(20)) / 16_000).cumsum(0)
    return Clip(0.3 * phase.sin(), units)


def training(folder: Path, **changes: object) -> VocoderTraining:
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
    return VocoderTraining([clip(), clip(2)], CONFIG, settings, folder)


def test_it_learns_and_is_loaded_as_a_published_one(tmp_path: Path) -> None:
    place = training(tmp_path / "run", steps=30).run()
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    first, last = (sum(line["mel"] for line in part) for part in (lines[:5], lines[-5:]))
    assert last < first
    assert lines[-1]["duration"] < lines[0]["duration"]
    vocoder = load_hifigan(place)
    assert vocoder.units == 4
    found = vocoder(torch.tensor([[0, 1, 2]]), torch.tensor([3]))
    assert found.data.isfinite().all()
    assert (tmp_path / "run" / "sample.wav").stat().st_size > 44


def test_it_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = training(tmp_path / "whole")
    whole.run()
    broken = training(tmp_path / "broken")
    plain, left = broken._update, [3]

    def update() -> dict[str, float]:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return plain()

    broken._update = update  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    again = training(tmp_path / "broken")
    assert again.step == 3
    again.run()
    for name, value in whole.vocoder.state_dict().items():
        assert torch.equal(value, again.vocoder.state_dict()[name]), name


@torch.no_grad()
def test_losses_know_real_sound_from_what_was_made() -> None:
    torch.manual_seed(0)
    judges = Discriminators((2, 3), 2, 2, 8)
    real, made = judges(torch.randn(2, 1601)), judges(torch.randn(2, 1601))
    assert len(real) == 4
    assert float(feature_loss(real, real)) == 0 < float(feature_loss(real, made))
    sure = [(torch.ones(1, 3), list[torch.Tensor]())] * 4
    fooled = [(torch.zeros(1, 3), list[torch.Tensor]())] * 4
    assert float(discriminator_loss(sure, fooled)) == 0
    assert float(adversarial_loss(sure)) == 0
    assert float(adversarial_loss(fooled)) == 4


def test_what_cannot_be_learnt_from_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of 1 has 80 unit frames"):
        VocoderTraining([Clip(torch.zeros(200), torch.zeros(10, dtype=torch.long))], CONFIG, SETTINGS, tmp_path / "a")
    one = clip()
    with pytest.raises(DataError, match="hold the unit 4; this vocoder knows 0 to 3"):
        VocoderTraining([Clip(one.wave, one.units + 1)], CONFIG, SETTINGS, tmp_path / "b")
    with pytest.raises(DataError, match="holds no recordings"):
        read_clips(tmp_path, None)  # type: ignore[arg-type]


def hubert_and_sounds(folder: Path, layers: int) -> None:
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(0)
    HubertModel(HubertConfig(hidden_size=16, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=16,
                             conv_dim=(8,) * 7, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2)
                ).save_pretrained(folder / "hubert")
    (folder / "sounds").mkdir()
    for number in range(2):
        write_wav(folder / "sounds" / f"{number}.wav", 0.1 * torch.randn(16_000), 16_000)


def test_the_commands_make_units_and_a_vocoder_for_them(tmp_path: Path) -> None:
    hubert_and_sounds(tmp_path, 11)
    small = ["decoder.units=5", "hifigan.initial_channels=32", "vocoder.steps=1", "vocoder.batch=1", "vocoder.scales=1",
             "vocoder.periods=2", "vocoder.period_channels=2", "vocoder.scale_channels=8"]
    for step in ("units", "vocoder"):
        words = ["train", "llama-omni-8b", step, "--data", str(tmp_path / "sounds"), "--hubert",
                 str(tmp_path / "hubert"), "--work", str(tmp_path / "run")]
        done = CliRunner().invoke(app, [*words, *(word for change in small for word in ("--set", change))])
        assert done.exit_code == 0, f"{done.output}{done.exception!r}"
    assert load_hifigan(tmp_path / "run" / "vocoder" / "vocoder").units == 5


def test_units_are_centres_of_a_huberts_states(tmp_path: Path) -> None:
    hubert_and_sounds(tmp_path, 2)
    out = tmp_path / "units.safetensors"
    centres = train_hubert_units(tmp_path / "sounds", tmp_path / "hubert", out, units=5, layer=2, iterations=3)
    assert centres.shape == (5, 16)
    assert torch.equal(load_centres(out), centres)
    with pytest.raises(DataError, match=r"holds \d+ frames; at least as many as units \(1000\)"):
        train_hubert_units(tmp_path / "sounds", tmp_path / "hubert", tmp_path / "more.safetensors", layer=2)
