"""The later stages of a build put together from settings: speak, quantise, filter, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omnivox.data.filter import FilterSettings, FilterStage
from omnivox.data.quantise import QuantiseStage
from omnivox.data.recognise import recogniser
from omnivox.data.speak import SpeakStage
from omnivox.data.stage import Runner, in_turn
from omnivox.data.voices import speaker
from omnivox.data.write import WriteStage


@dataclass(frozen=True)
class VoiceSettings:
    """questions, answer: engines as `voices.speaker` names them. female, male: voices of the questions' engine.

    url, model, api_key: of a speech server; voice: that of its answers. at_once: utterances that are made together.
    """

    questions: str = "offline"
    answer: str = "flite:rms"
    female: tuple[str, ...] = ()
    male: tuple[str, ...] = ()
    voice: str | None = None
    url: str | None = None
    model: str | None = None
    api_key: str | None = None
    seed: int = 0
    device: str = "cpu"
    at_once: int | None = None


@dataclass(frozen=True)
class QuantiserSettings:
    """quantiser: a HuBERT with its `centres`, or a quantiser of ours; None: answers get no units."""

    quantiser: str | None = None
    centres: Path | None = None
    layer: int = 11
    batch: int = 16
    device: str = "cpu"


def speak_stage(settings: VoiceSettings) -> SpeakStage:
    """Questions in many voices, answers in one. Raises ConfigError."""
    sexes = {"female": settings.female, "male": settings.male}
    voices = {sex: names for sex, names in sexes.items() if names} or None
    of_server = {"url": settings.url, "model": settings.model, "api_key": settings.api_key}
    asking = speaker(settings.questions, voices=voices, device=settings.device, at_once=settings.at_once, **of_server)
    only = {"any": (settings.voice,)} if settings.voice else None
    answering = speaker(settings.answer, voices=only, device=settings.device, at_once=settings.at_once, **of_server)
    return SpeakStage(asking, answering, settings.seed)


def quantise_stage(settings: QuantiserSettings) -> QuantiseStage | None:
    """None where there is nothing to make units with."""
    if settings.quantiser is None:
        return None
    return QuantiseStage(settings.quantiser, settings.centres, settings.layer, settings.device, settings.batch)


def filter_stage(settings: FilterSettings, spec: str, device: str, language: str) -> FilterStage:
    """`spec` names the recogniser that measures word error rates; none: nobody does."""
    return FilterStage(settings, recogniser(spec, device, language))


def write_stage() -> WriteStage:
    """Parquet."""
    return WriteStage()


def ray_runner(workers: int | None, gpus: float) -> Runner:
    """On Ray Data with so many workers; in this process without."""
    if workers is None:
        return in_turn
    from omnivox.data.ray import on_ray

    return on_ray(workers, gpus=gpus)


def names(listed: Sequence[str]) -> tuple[str, ...]:
    """Names given one by one or with commas between."""
    return tuple(name.strip() for some in listed for name in some.split(",") if name.strip())
