"""How any LLM is trained to listen and to speak: frozen settings, and flags that override any of them."""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from omnivox.checkpoint.llama_omni import SYSTEM
from omnivox.errors import ConfigError
from omnivox.model.config import HifiganConfig, SpeechDecoderConfig, StatesFed
from omnivox.train.chat import INSTRUCTION

Parallel = Literal["auto", "ddp", "fsdp2", "deepspeed"]
"""auto: DDP where there are several processes, or what `accelerate launch` says."""
Settings = TypeVar("Settings")


@dataclass(frozen=True)
class TrainingSettings:
    """What both stages share. batch: conversations a step, over all processes; micro_batch: at once on one of them."""

    lr: float = 2e-5
    batch: int = 32
    micro_batch: int = 1
    epochs: int = 3
    steps: int | None = None  # instead of epochs
    warmup: float = 0.03  # of all steps
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = 0.0
    beta2: float = 0.999
    clip: float = 1.0  # of the gradient's norm
    precision: Literal["float32", "bfloat16"] = "bfloat16"  # of products; weights that learn and sums are float32
    parallel: Parallel = "auto"
    pool: int = 16  # batches that are sorted by length together
    max_bad: int = 100  # rows that may be left out, over all processes
    skip: tuple[int, ...] = ()  # steps whose update is left out
    held_rows: int = 64  # kept out of training where no other data is named for the held-out loss
    samples: int = 3  # spoken answers at each evaluation
    log_every: int = 10
    evaluate_every: int = 500
    save_every: int = 500
    workers: int = 2  # processes that load data
    trackers: tuple[str, ...] = ()  # tensorboard, wandb
    seed: int = 0


@dataclass(frozen=True)
class Stage1Settings(TrainingSettings):
    """Adaptor and LLM by cross-entropy."""

    tune: Literal["full", "lora", "adaptor"] = "full"  # of the LLM: all of it, low-rank additions, nothing
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    lora_targets: tuple[str, ...] = ("all-linear",)
    checkpointing: bool = True  # layers run again in the backward pass instead of being remembered
    max_positions: int = 2048
    sample_tokens: int = 40


@dataclass(frozen=True)
class Stage2Settings(TrainingSettings):
    """The speech decoder by CTC."""

    lr: float = 2e-4
    micro_batch: int = 8
    states_fed: StatesFed = "predicting"
    too_long: Literal["skip", "stretch"] = "skip"  # answers with more units than λ × tokens; stretch: as published
    state_noise: float = 0.0  # of each state's standard deviation
    shard_rows: int = 512  # conversations in one file of states
    max_positions: int = 2048
    blank_patience: int = 500  # steps after which an almost silent decoder is warned about


@dataclass(frozen=True)
class VocoderSettings:
    """A unit HiFi-GAN; the discriminators' widths are the published ones."""

    lr: float = 2e-4
    decay: float = 0.999  # of the learning rate, each thousand steps
    batch: int = 16
    frames: int = 28  # unit frames of a stretch
    steps: int = 500_000
    mel_weight: float = 45.0
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    scales: int = 3
    period_channels: int = 32
    scale_channels: int = 128
    log_every: int = 50
    save_seconds: float = 600.0
    seed: int = 0


@dataclass(frozen=True)
class LLMSizes:
    """What a plan needs to know where the LLM is not at hand."""

    layers: int
    width: int
    ffn: int
    heads: int
    kv_heads: int
    vocabulary: int
    head_dim: int | None = None
    tied: bool = False


@dataclass(frozen=True)
class EncoderSizes:
    """The same of the speech encoder."""

    layers: int = 32
    width: int = 1280
    positions: int = 1500


@dataclass(frozen=True)
class TrainRecipe:
    """A whole result: from an LLM and a speech encoder to a model that answers in speech."""

    name: str
    llm: str  # a folder, or a name on the hub
    whisper: str  # OpenAI's file, a folder, or a name on the hub
    llm_sizes: LLMSizes
    encoder_sizes: EncoderSizes = EncoderSizes()
    k: int = 5  # encoder frames that the adaptor joins
    adaptor_width: int = 2048
    decoder: SpeechDecoderConfig = field(default_factory=SpeechDecoderConfig)  # its llm_width follows the LLM
    system: str | None = SYSTEM
    instruction: str = INSTRUCTION
    stage1: Stage1Settings = field(default_factory=Stage1Settings)
    stage2: Stage2Settings = field(default_factory=Stage2Settings)
    hifigan: HifiganConfig = field(default_factory=HifiganConfig)  # its units are the quantiser's
    vocoder: VocoderSettings = field(default_factory=VocoderSettings)
    rows: int = 200_000  # conversations that a plan reckons with
    seed: int = 0


def override(settings: Settings, changes: Sequence[str]) -> Settings:
    """Settings with `field=value` or `part.field=value` changed. Raises ConfigError naming the field and its kind."""
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals:
            raise ConfigError(f"--set {change}: expected FIELD=VALUE, as stage1.lr=1e-4")
        settings = _changed(settings, path.strip().split("."), text.strip(), path.strip())
    return settings


def _changed(settings: Any, path: list[str], text: str, whole: str) -> Any:
    names = [f.name for f in fields(settings)]
    if path[0] not in names:
        raise ConfigError(f"--set {whole}: no such field as {path[0]!r}; known are {', '.join(names)}")
    value = getattr(settings, path[0])
    if is_dataclass(value):
        if len(path) == 1:
            raise ConfigError(f"--set {whole}: has fields of its own; expected one of "
                              f"{', '.join(f'{whole}.{f.name}' for f in fields(value))}")
        return replace(settings, **{path[0]: _changed(value, path[1:], text, whole)})
    if len(path) > 1:
        raise ConfigError(f"--set {whole}: {path[0]!r} has no fields; expected {path[0]}=VALUE")
    kind = get_type_hints(type(settings))[path[0]]
    return replace(settings, **{path[0]: _parsed(text, kind, whole)})


def _parsed(text: str, kind: Any, name: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        if text not in inner:
            raise ConfigError(f"--set {name}: found {text!r}; expected {' or '.join(map(str, inner))}")
        return text
    if origin in (types.UnionType, Union):
        if type(None) in inner and text.lower() == "none":
            return None
        return _parsed(text, next(part for part in inner if part is not type(None)), name)
    if origin is tuple:
        parts = [part.strip() for part in text.strip("()[]").split(",") if part.strip()]
        return tuple(_parsed(part, inner[0], name) for part in parts)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"--set {name}: found {text!r}; expected true or false")
        return text.lower() == "true"
    if kind in (int, float, str):
        try:
            return kind(text)
        except ValueError as error:
            raise ConfigError(f"--set {name}: found {text!r}; expected "
                              f"{'a whole number' if kind is int else 'a number'}") from error
    raise ConfigError(f"--set {name}: cannot be set from the command line; write a recipe of your own")
