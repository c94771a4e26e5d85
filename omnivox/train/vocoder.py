"""Train the source-filter vocoder on one voice: spectra at four resolutions, pitch, voicing and durations; no critic.

Shapes: B batch, N samples, K STFT bins, T STFT frames, U merged units.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from omnivox.model.config import SourceFilterConfig
from omnivox.model.mel import mel_filters
from omnivox.model.source_filter import Pitch, SourceFilter
from omnivox.model.units import Quantiser
from omnivox.model.vocoder import valid_mask
from omnivox.train.loop import Losses, Run, Schedule, train
from omnivox.train.voice import Batch, Voice
from omnivox.writing import atomic

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VocoderRecipe:
    """One voice in about 700 seconds of one core."""

    schedule: Schedule = field(default_factory=lambda: Schedule(steps=2400, lr=1e-3, clip=5.0))
    rows: int = 8
    speak: int = 32  # unit frames a row
    hours: float = 1.5  # of the corpus, at most
    confused: float = 0.0  # share of the frames whose unit is exchanged, as a speech decoder errs
    often: float = 0.06  # share of what the model says most often, where that is known
    pitch_weight: float = 3.0
    voicing_weight: float = 0.2
    duration_weight: float = 0.2
    seed: int = 0


class SpectralLoss(nn.Module):
    """How two waveforms [B, N] differ: log mel, log spectrum and spectral convergence at four resolutions."""

    BANDS: ClassVar = {1024: 80, 512: 64, 256: 32, 128: 16}  # STFT size: mel bands

    def __init__(self, rate: int) -> None:
        super().__init__()
        for size, bands in self.BANDS.items():
            self.register_buffer(f"mel{size}", mel_filters(bands, size, rate), persistent=False)
            self.register_buffer(f"window{size}", torch.hann_window(size), persistent=False)

    def spectrum(self, wave_BN: Tensor, size: int) -> Tensor:
        """Magnitudes [B, K, T]."""
        window = self.get_buffer(f"window{size}")
        # The root's slope has no end at 0: a floor far below hearing keeps digital silence differentiable.
        spectrum = torch.stft(wave_BN, size, size // 4, window=window, return_complex=True)
        return (torch.view_as_real(spectrum).square().sum(-1) + 1e-8).sqrt()

    def forward(self, wave_BN: Tensor, target_BN: Tensor, sizes: Sequence[int] = tuple(BANDS)) -> Tensor:
        """The mean over STFT `sizes`; the spectra are most of a training step, which takes every other one of them."""
        total = wave_BN.new_zeros(())
        for size in sizes:
            mel = self.get_buffer(f"mel{size}")
            found = self.spectrum(wave_BN, size)
            with torch.no_grad():
                wanted = self.spectrum(target_BN, size)
            total = total + ((mel @ found + 1e-4).log() - (mel @ wanted + 1e-4).log()).abs().mean()
            total = total + 0.3 * ((found + 2e-3).log() - (wanted + 2e-3).log()).abs().mean()
            distance = torch.linalg.vector_norm(found - wanted, dim=(1, 2))
            total = total + 0.3 * (distance / (torch.linalg.vector_norm(wanted, dim=(1, 2)) + 1)).mean()
        return total / len(sizes)


def vocoder_losses(vocoder: SourceFilter, batch: Batch, spectral: SpectralLoss, recipe: VocoderRecipe,
                   step: int) -> dict[str, Tensor]:
    """The pulse train follows the true pitch (magnitudes cannot teach pitch) and the predicted voicing."""
    pitch = vocoder.pitch(batch.window)
    driven = Pitch(batch.hertz.to(pitch.hertz), pitch.voicing, pitch.valid)
    pulses, _ = vocoder.pulses(driven, batch.window.phase)
    wave = vocoder.filtered(pulses, vocoder.filters(batch.window), batch.window.position)
    off = (pitch.hertz.float().log() - batch.hertz.log()).abs() * batch.voiced
    voicing = F.binary_cross_entropy_with_logits(pitch.voicing.float(), batch.voiced, weight=pitch.valid.float())
    sizes = tuple(spectral.BANDS)[step % 2 :: 2]
    losses = {"spectral": spectral(wave * batch.heard, batch.samples, sizes),
              "pitch": off.sum() / (batch.voiced.sum() + 1), "voicing": voicing}
    losses["loss"] = losses["spectral"] + recipe.pitch_weight * losses["pitch"] + recipe.voicing_weight * voicing
    return losses


def duration_loss(vocoder: SourceFilter, units_BU: Tensor, durations_BU: Tensor, length_B: Tensor) -> Tensor:
    """Mean squared error of log(frames + 1); the embedding is the generator's and is not moved by it."""
    valid = valid_mask(length_B, units_BU.shape[1])
    predicted = vocoder.duration(vocoder.embedding(units_BU).detach(), valid)
    return F.mse_loss(predicted[valid], (durations_BU + 1.0).log()[valid])


def train_vocoder(corpus: Sequence[Any], quantiser: Quantiser, out: Path, config: SourceFilterConfig | None = None,
                  recipe: VocoderRecipe | None = None, resume: bool = True, often: Sequence[int] = ()) -> SourceFilter:
    """Train on a corpus of one voice (16 kHz waveforms, or utterances with `audio`) and save to the folder `out`:

        vocoder.json, vocoder.safetensors    the vocoder
        checkpoint.pt, log.jsonl             the run, so that it can be killed and goes on (`resume`)
        pitch.safetensors                    the corpus's pitch, tracked once

    often: utterances of the corpus that the model says most often.
    """
    config, recipe = config or SourceFilterConfig(), recipe or VocoderRecipe()
    if out.exists() and not resume:
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    voice = Voice(corpus, quantiser, out / "pitch.safetensors", hours=recipe.hours, hop=config.hop,
                  rate=config.sample_rate, confused=recipe.confused, seed=recipe.seed, often=often,
                  share=recipe.often)
    config = replace(config, units=quantiser.units, frame_samples=quantiser.frame_samples, pitch_hz=voice.median_hz)
    log.info("vocoder: %.2f h of a voice, median pitch %.0f Hz", voice.hours, voice.median_hz)
    torch.manual_seed(recipe.seed)
    vocoder, spectral = SourceFilter(config), SpectralLoss(config.sample_rate)
    run = Run(out, {"vocoder": vocoder}, recipe.schedule, recipe)

    def losses_of(step: int) -> Losses:
        rng = np.random.default_rng((recipe.seed, step))
        losses = vocoder_losses(vocoder, voice.batch(vocoder, rng, recipe.rows, recipe.speak), spectral, recipe, step)
        losses["duration"] = duration_loss(vocoder, *voice.merged(rng, recipe.rows))
        losses["loss"] = losses["loss"] + recipe.duration_weight * losses["duration"]
        return losses

    train(run, losses_of)
    save_vocoder(vocoder, out)
    return vocoder.eval()


def save_vocoder(vocoder: SourceFilter, folder: Path) -> None:
    """Write `vocoder.json` and `vocoder.safetensors`."""
    with atomic(folder / "vocoder.json") as path:
        path.write_text(json.dumps(asdict(vocoder.config), indent=1))
    with atomic(folder / "vocoder.safetensors") as path:
        save_file(vocoder.state_dict(), path)


def load_vocoder(folder: Path) -> SourceFilter:
    """A vocoder saved by `train_vocoder`."""
    vocoder = SourceFilter(SourceFilterConfig.from_dict(json.loads((folder / "vocoder.json").read_text())))
    vocoder.load_state_dict(load_file(folder / "vocoder.safetensors"))
    return vocoder.eval()
