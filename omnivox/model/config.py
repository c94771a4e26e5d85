"""The dimensions that travel in a checkpoint's `config.json`.

Defaults are the published LLaMA-Omni's. Every class is frozen; `from_dict` refuses keys it does not know and values of
another kind than their field's.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

StatesFed = Literal["predicting", "consumed"]
"""Which LLM states feed the speech decoder: those that predict each token (the paper), or those at it (the trainer)."""
_MAY_BE_0 = {"least": 0}


@dataclass(frozen=True)
class Config:
    """A frozen dataclass that goes to and from JSON."""

    _least: ClassVar[int | None] = None  # of whole numbers, where their field names no other

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from JSON values. Raises ValueError naming a key that is unknown, missing or has a wrong value."""
        known = {f.name: f for f in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"{cls.__name__}: unknown key {unknown[0]!r}; known are {', '.join(known)}")
        kinds = get_type_hints(cls)
        checked = {name: _checked(value, kinds[name], known[name].metadata.get("least", cls._least),
                                  f"{cls.__name__}.{name}") for name, value in values.items()}
        try:
            return cls(**checked)
        except TypeError as error:
            raise ValueError(f"{cls.__name__}: {error}") from error


@dataclass(frozen=True)
class Sizes(Config):
    """A configuration whose numbers are sizes, or at least positive."""

    _least: ClassVar[int | None] = 1


def _checked(value: Any, kind: Any, least: int | None, name: str) -> Any:
    """A JSON value as what `kind`, a field's annotation, says. Raises ValueError naming the field."""
    if isinstance(kind, type) and issubclass(kind, Config):
        if not isinstance(value, dict):
            raise ValueError(f"{name}: found {value!r}; expected an object")
        return kind.from_dict(value)
    value = _as_tuple(value)
    if not _fits(value, kind, least):
        raise ValueError(f"{name}: found {value!r}; expected {_in_words(kind, least)}")
    return value


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value


def _fits(value: Any, kind: Any, least: int | None) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return any(_fits(value, one, least) for one in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(item, get_args(kind)[0], least) for item in value)
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and (least is None or value >= least)
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value) and (least is None or value > 0)
    return isinstance(value, get_origin(kind) or kind)


def _in_words(kind: Any, least: int | None) -> str:
    """What would be right."""
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_in_words(one, least) for one in get_args(kind))
    if get_origin(kind) is tuple:
        return f"a list, each of it {_in_words(get_args(kind)[0], least)}"
    words = {bool: "true or false", int: "a whole number" + ("" if least is None else f", {least} or more"),
             float: "a number" if least is None else "a number above 0", str: "a text", type(None): "null"}
    return words.get(kind, "an object")


@dataclass(frozen=True)
class MelConfig(Sizes):
    """Whisper's log-mel spectrogram."""

    n_mels: int = 128
    pad_to_chunk: bool = True  # pad or cut to 30 s (published checkpoints); False: the question's own length


@dataclass(frozen=True)
class EncoderConfig(Sizes):
    """Whisper's encoder. `strides` and `conv_kernel` are ours, for encoders trained from nothing."""

    n_mels: int = 128
    width: int = 1280
    layers: int = 32
    heads: int = 20
    positions: int = 1500  # frames after the strides that the positional table covers
    strides: tuple[int, ...] = (1, 2)  # of the two convolutions of the stem
    conv_kernel: int = field(default=0, metadata=_MAY_BE_0)  # of a depthwise convolution before each attention; 0: none

    @property
    def stride(self) -> int:
        """Mel frames per encoder frame."""
        product = 1
        for stride in self.strides:
            product *= stride
        return product


@dataclass(frozen=True)
class AdaptorConfig(Sizes):
    """Concatenate k encoder frames, Linear → ReLU → Linear."""

    k: int = 5
    encoder_width: int = 1280
    inner_width: int = 2048
    llm_width: int = 4096


@dataclass(frozen=True)
class SpeechDecoderConfig(Sizes):
    """Causal Llama layers over each LLM state repeated `upsample` (λ) times, then a linear layer to units + blank."""

    llm_width: int = 4096
    width: int = 4096
    layers: int = 2
    heads: int = 32
    ffn: int = 11008
    upsample: int = 25  # λ, frames per LLM state
    units: int = 1000  # K; the blank is class K
    rope_theta: float = 500000.0
    rope_scaling: dict[str, Any] | None = None  # as in transformers' configs ("rope_type": "llama3", ...)
    norm_eps: float = 1e-5
    position_embedding: bool = False  # ours: a learned vector for each of the λ repeats, added after the input layer
    final_norm: bool = False  # ours: an RMSNorm before the output layer; the published decoder has none


@dataclass(frozen=True)
class DurationConfig(Sizes):
    """How many frames each merged unit lasts (FastSpeech 2's variance predictor)."""

    embedding_dim: int = 128
    hidden_dim: int = 128
    kernel: int = 3


@dataclass(frozen=True)
class HifiganConfig(Sizes):
    """The published unit HiFi-GAN."""

    units: int = 1000
    embedding_dim: int = 128
    initial_channels: int = 512
    upsample_rates: tuple[int, ...] = (5, 4, 4, 2, 2)
    upsample_kernels: tuple[int, ...] = (11, 8, 8, 4, 4)
    residual_kernels: tuple[int, ...] = (3, 7, 11)
    residual_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    sample_rate: int = 16_000
    duration: DurationConfig = field(default_factory=DurationConfig)


@dataclass(frozen=True)
class SourceFilterConfig(Sizes):
    """A small unit vocoder: harmonic and noise excitation through predicted spectral filters."""

    units: int = 200
    width: int = 192
    pitch_width: int = 64
    frame_samples: int = 640  # samples per unit frame
    hop: int = 160  # samples per filter frame
    n_fft: int = 640
    kernel: int = 7
    # A block each, at the unit rate and at the filter rate: how many frames it sees ahead.
    unit_right: tuple[int, ...] = field(default=(1, 1, 1, 1), metadata=_MAY_BE_0)
    filter_right: tuple[int, ...] = field(default=(1, 1, 0), metadata=_MAY_BE_0)
    pitch_hz: float = 115.0  # the middle of the voice
    sample_rate: int = 16_000
    duration_width: int = 64


@dataclass(frozen=True)
class MfccConfig(Sizes):
    """Units from k-means over mel-cepstra and their slopes."""

    units: int = 200
    coefficients: int = 13
    n_mels: int = 40
    slope_frames: int = 4  # mel frames each side over which a slope is fitted
    frame_samples: int = 640  # samples per unit frame


@dataclass(frozen=True)
class OmniConfig(Config):
    """Everything about one spoken language model but the LLM's own config and its tokenizer."""

    mel: MelConfig = field(default_factory=MelConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    adaptor: AdaptorConfig = field(default_factory=AdaptorConfig)
    speech_decoder: SpeechDecoderConfig = field(default_factory=SpeechDecoderConfig)
    states_fed: StatesFed = "predicting"
