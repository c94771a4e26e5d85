"""A unit HiFi-GAN for a new voice (Kong et al. 2020; durations as in Ren et al. 2021): generator, duration predictor
and discriminators, on recordings of one voice and their units.

Shapes: B batch, F unit frames, N samples, U merged units.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from omnivox.checkpoint.hifigan import published_config, to_published
from omnivox.errors import DataError
from omnivox.model.config import HifiganConfig
from omnivox.model.hifigan import Hifigan
from omnivox.model.mel import log_mel, mel_filters
from omnivox.model.units import Quantiser, merge_repeats
from omnivox.sound import read_audio, write_wav
from omnivox.stopping import stoppable
from omnivox.train.discriminators import Discriminators, adversarial_loss, discriminator_loss, feature_loss
from omnivox.train.progress import Bar
from omnivox.train.settings import VocoderSettings
from omnivox.writing import alone, atomic

SOUNDS = (".wav", ".flac", ".ogg", ".mp3")


@dataclass(frozen=True)
class Clip:
    """A recording [N] at 16 kHz and its units, one a frame [F]."""

    wave: Tensor
    units: Tensor


def sound_files(folder: Path) -> list[Path]:
    """Recordings in a folder, in the order of their names. Raises DataError: none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SOUNDS)
    if not found:
        raise DataError(f"{folder}: holds no recordings; expected {', '.join(SOUNDS)}")
    return found


def read_clips(folder: Path, quantiser: Quantiser) -> list[Clip]:
    """Recordings of one voice, with their units."""
    clips = []
    for path in sound_files(folder):
        wave = read_audio(path)
        units = quantiser.encode(wave)
        if len(units):
            clips.append(Clip(wave[: len(units) * quantiser.frame_samples], units))
    return clips


class VocoderTraining:
    """A generator and its discriminators, and where both are kept; a step depends on (seed, step) alone."""

    def __init__(self, clips: Sequence[Clip], config: HifiganConfig, settings: VocoderSettings, folder: Path) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.folder, self.step = settings, folder, 0
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.vocoder = Hifigan(config).to(self.device)
        self.judges = Discriminators(settings.periods, settings.scales, settings.period_channels,
                                     settings.scale_channels).to(self.device)
        self.clips = [clip for clip in clips if len(clip.units) >= settings.frames]
        if not self.clips:
            raise DataError(f"clips: none of {len(clips)} has {settings.frames} unit frames; expected recordings of a "
                            "second or more")
        for clip in self.clips:
            if int(clip.units.max()) >= config.units:
                raise DataError(f"clips: hold the unit {int(clip.units.max())}; this vocoder knows 0 to "
                                f"{config.units - 1}")
        self._filters = mel_filters(80).to(self.device)
        betas = (0.8, 0.99)
        self.optimisers = [torch.optim.AdamW(module.parameters(), settings.lr, betas)
                           for module in (self.vocoder, self.judges)]
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()

    def run(self) -> Path:
        """To the end; gives the folder of the vocoder, as published ones are kept. Stopped, it goes on from its last
        state."""
        settings, saved = self.settings, time.monotonic()
        with alone(self.folder, "training"), stoppable(), Bar(self.folder.name, settings.steps, self.step) as bar:
            try:
                while self.step < settings.steps:
                    losses = self._update()
                    self.step += 1
                    if self.step % settings.log_every == 0:
                        with (self.folder / "log.jsonl").open("a") as file:
                            file.write(json.dumps({"step": self.step, **losses}) + "\n")
                        bar.show(self.step, losses["mel"])
                    bar.show(self.step)
                    if time.monotonic() - saved > settings.save_seconds:
                        self._save()
                        saved = time.monotonic()
            finally:
                self._save()
        return self._publish()

    # -- one step -----------------------------------------------------------------------------------------------------

    def _update(self) -> dict[str, float]:
        rng = random.Random(f"{self.settings.seed} {self.step}")
        chosen = [self.clips[rng.randrange(len(self.clips))] for _ in range(self.settings.batch)]
        units, real = (part.to(self.device) for part in self._segments(chosen, rng))
        rate = self.settings.lr * self.settings.decay ** (self.step / 1000)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
        length = torch.full((len(units),), units.shape[1], device=self.device)
        made = self.vocoder(units, length, torch.ones_like(units)).data
        judged = discriminator_loss(self.judges(real), self.judges(made.detach()))
        self._apply(1, judged)
        opinions, wanted = self.judges(made), self.judges(real)
        mel = F.l1_loss(log_mel(made, self._filters), log_mel(real, self._filters))
        durations = self._duration_loss(chosen)
        parts = {"mel": mel, "duration": durations, "adversarial": adversarial_loss(opinions),
                 "features": feature_loss(wanted, opinions)}
        self._apply(0, self.settings.mel_weight * mel + durations + parts["adversarial"] + parts["features"])
        return {"judges": round(float(judged.detach()), 5)} | {name: round(float(part.detach()), 5)
                                                      for name, part in parts.items()}

    def _apply(self, which: int, loss: Tensor) -> None:
        if not math.isfinite(float(loss.detach())):
            raise DataError(f"{self.folder}: the loss of step {self.step} is {float(loss.detach())}; the last state is "
                            "kept: go on with a lower learning rate")
        self.optimisers[which].zero_grad(set_to_none=True)
        loss.backward()
        self.optimisers[which].step()

    def _segments(self, clips: Sequence[Clip], rng: random.Random) -> tuple[Tensor, Tensor]:
        """Stretches of `frames` frames: units [B, F] and samples [B, N]."""
        units, waves, each = [], [], self.vocoder.frame_samples
        for clip in clips:
            start = rng.randrange(len(clip.units) - self.settings.frames + 1)
            end = start + self.settings.frames
            units.append(clip.units[start:end])
            waves.append(F.pad(clip.wave[start * each : end * each], (0, max(0, end * each - len(clip.wave)))))
        return torch.stack(units), torch.stack(waves)

    def _duration_loss(self, clips: Sequence[Clip]) -> Tensor:
        """Squared error of log(frames + 1) over whole recordings; their first and last units are cut by silence."""
        merged = [merge_repeats(clip.units) for clip in clips]
        units = pad_sequence([unit for unit, _ in merged], batch_first=True).to(self.device)
        frames = pad_sequence([count for _, count in merged], batch_first=True).to(self.device)
        valid = frames > 0
        found = self.vocoder.log_durations(units, valid)
        return F.mse_loss(found[valid], (frames[valid].float() + 1).log())

    # -- what is kept -------------------------------------------------------------------------------------------------

    @property
    def _state(self) -> Path:
        return self.folder / "checkpoint.pt"

    def _save(self) -> None:
        state: dict[str, Any] = {"vocoder": self.vocoder.state_dict(), "judges": self.judges.state_dict(),
                                 "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
                                 "step": self.step}
        with atomic(self._state) as path:
            torch.save(state, path)
        with atomic(self.folder / "settings.json") as path:
            path.write_text(json.dumps(asdict(self.settings), indent=1) + "\n")

    def _resume(self) -> None:
        if not self._state.exists():
            return
        saved = torch.load(self._state, map_location="cpu", weights_only=True)
        try:
            self.vocoder.load_state_dict(saved["vocoder"])
            self.judges.load_state_dict(saved["judges"])
        except (KeyError, RuntimeError) as error:
            raise DataError(f"{self._state}: does not fit the settings ({str(error).splitlines()[0]}); remove the "
                            "folder to start again") from error
        for optimiser, state in zip(self.optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        self.step = saved["step"]

    @torch.no_grad()
    def _publish(self) -> Path:
        """The folder a vocoder is loaded from, and a sample beside."""
        place = self.folder / "vocoder"
        place.mkdir(exist_ok=True)
        with atomic(place / "config.json") as path:
            path.write_text(json.dumps(published_config(self.vocoder.config), indent=1) + "\n")
        tensors = {name: value.cpu() for name, value in to_published(self.vocoder).items()}
        with atomic(place / f"g_{self.step:08}") as path:
            torch.save({"generator": tensors}, path)
        merged = merge_repeats(self.clips[0].units)[0].to(self.device)
        made = self.vocoder(merged[None], torch.tensor([len(merged)], device=self.device)).row(0)
        write_wav(self.folder / "sample.wav", made, self.vocoder.sample_rate)
        return place
