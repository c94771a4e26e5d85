"""The stages of speech put together from settings: speak, quantise, filter; and Ray, which runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from omnivox.data.filter import FilterSettings, FilterStage
from omnivox.data.quantise import QuantiseStage
from omnivox.data.recognise import language_code, recogniser
from omnivox.data.speak import SpeakStage
from omnivox.data.stage import Runner, in_turn
from omnivox.data.voices import PROGRAMS, speaker
from omnivox.errors import ConfigError

NEEDS = {"faster-whisper": "faster_whisper", "pocketsphinx": "pocketsphinx"}  # recognisers' own packages


@dataclass(frozen=True)
class VoiceSettings:
    """questions, answer: engines as `voices.speaker` names them. female, male: voices of the questions' engine.

    url, model, api_key: of a speech server; voice: that of its answers. at_once: utterances that are made together;
    None: as many as suit the engine. Raises ConfigError: there is something that nobody would use.
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

    def __post_init__(self) -> None:
        for spec, flag, named in ((self.questions, "--female-voices, --male-voices", (*self.female, *self.male)),
                                  (self.answer, "--answer-name", (self.voice,) if self.voice else ())):
            if named and spec.partition(":")[0] in PROGRAMS:
                raise ConfigError(f"{flag}: found {', '.join(named)}, but {spec!r} is one voice by itself; expected "
                                  "none of these, or an engine with several voices")
        if self.url and "server" not in (self.questions, self.answer):
            raise ConfigError(f"--tts-url: found {self.url!r}, but neither --question-voices nor --answer-voice is "
                              "server; expected one of them to be")


@dataclass(frozen=True)
class QuantiserSettings:
    """quantiser: a HuBERT with its `centres`, or a quantiser of ours; None: answers get no units. Raises ConfigError:
    centres without a HuBERT."""

    quantiser: str | None = None
    centres: Path | None = None
    layer: int = 11
    batch: int = 16
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.centres and self.quantiser is None:
            raise ConfigError(f"--centres: found {self.centres}, but no --quantiser; expected the HuBERT whose states "
                              "they are of")


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
    """`spec` names the recogniser that measures word error rates; none: nobody does. Raises ConfigError."""
    kind = spec.partition(":")[0]
    if kind in NEEDS and find_spec(NEEDS[kind]) is None:  # told now, not after days of speaking
        raise ConfigError(f"--recogniser {kind}: its Python package is missing; install it with: pip install {kind}")
    heard = None if spec == "none" else recogniser(spec, device, language_code(language))
    limits = {"--question-wer": settings.question_wer, "--answer-wer": settings.answer_wer}
    if heard is None and (flag := next((name for name, limit in limits.items() if limit is not None), None)):
        raise ConfigError(f"{flag}: found {limits[flag]:g}, but nobody listens; expected a --recogniser beside it")
    return FilterStage(settings, heard)


def ray_runner(workers: int | None, gpus: float) -> Runner:
    """On Ray Data with so many workers; in this process without. Raises ConfigError: GPUs for nobody."""
    if workers is None:
        if gpus:
            raise ConfigError(f"--gpus: found {gpus:g}, but no --ray; expected both, or --device cuda alone")
        return in_turn
    from omnivox.data.ray import on_ray

    return on_ray(workers, gpus=gpus)


def names(listed: Sequence[str]) -> tuple[str, ...]:
    """Names given one by one or with commas between."""
    return tuple(name.strip() for some in listed for name in some.split(",") if name.strip())
