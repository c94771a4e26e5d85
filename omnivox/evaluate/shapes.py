"""Models of the published sizes with random weights: what an answer takes on a machine, without downloading anything.

Random weights keep the pace of real ones: a token gives ten units (the paper's data: 553.6 units for about 53 tokens)
of two frames each, and no token ends a reply.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PretrainedConfig

from omnivox.checkpoint import layout
from omnivox.checkpoint.files import NoInit, read_json
from omnivox.checkpoint.load import NANO, pick_device, pick_dtype
from omnivox.checkpoint.prompt import Prompt
from omnivox.errors import CheckpointError, ConfigError
from omnivox.model.config import (
    AdaptorConfig,
    EncoderConfig,
    HifiganConfig,
    MelConfig,
    OmniConfig,
    SourceFilterConfig,
    SpeechDecoderConfig,
)
from omnivox.model.hifigan import Hifigan
from omnivox.model.omni import SpokenLM
from omnivox.model.source_filter import SourceFilter
from omnivox.model.vocoder import Vocoder
from omnivox.runtime.respond import Omni
from omnivox.train.plan import ANSWER_TOKENS, PROMPT_TOKENS
from omnivox.train.recipes import RECIPES

GB = 1e9
UNITS_PER_TOKEN = 10
FRAMES_PER_UNIT = 2
REST = 0.1  # of weights and caches: activations and what allocators lose; at least ...
REST_BYTES = 3e8
NOISE = 1 << 20  # random numbers that all weights are made of
DEVIATION = 0.02
LOUDER = 1e4  # than any logit of random weights
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Shape:
    """Sizes without weights. dtype: in which it is used on a GPU. before, after: tokens of the prompt around speech."""

    name: str
    omni: OmniConfig
    llm: PretrainedConfig
    vocoder: HifiganConfig | SourceFilterConfig
    dtype: str = "float32"
    before: int = 2 * PROMPT_TOKENS // 3
    after: int = PROMPT_TOKENS - 2 * PROMPT_TOKENS // 3


def nano() -> Shape:
    """As bundled. Raises CheckpointError: this checkout has no bundled model."""
    path = NANO / "config.json"
    if not path.exists():
        raise CheckpointError(f"--shape nano: {path} is not there to tell its sizes; reinstall omnivox, or choose "
                              "another shape")
    values = read_json(path)
    sizes = {key: value for key, value in values["vocoder"].items() if key != "kind"}
    llm = dict(values["llm"])
    return Shape("nano", layout.from_dict(OmniConfig, values, "omni", path),
                 AutoConfig.for_model(llm.pop("model_type"), **llm),
                 layout.from_dict(SourceFilterConfig, {"vocoder": sizes}, "vocoder", path), before=1, after=1)


def middle() -> Shape:
    """An LLM of 150M and a speech decoder of 28M parameters behind Whisper base, which hears the question alone."""
    encoder, width = EncoderConfig(80, 512, 6, heads=8), 768
    omni = OmniConfig(MelConfig(encoder.n_mels, pad_to_chunk=False), encoder,
                      AdaptorConfig(encoder_width=encoder.width, llm_width=width),
                      SpeechDecoderConfig(width, width=1024, layers=2, heads=16, ffn=2880))
    llm = LlamaConfig(hidden_size=width, num_hidden_layers=14, intermediate_size=2048, num_attention_heads=12,
                      num_key_value_heads=12, vocab_size=32000, max_position_embeddings=2048)
    return Shape("150m", omni, llm, HifiganConfig())


def of_recipe(name: str) -> Shape:
    """The model that a recipe trains."""
    recipe = RECIPES[name]()
    sizes, ears, decoder = recipe.llm_sizes, recipe.encoder_sizes, recipe.decoder
    encoder = EncoderConfig(width=ears.width, layers=ears.layers, heads=ears.width // 64, positions=ears.positions)
    omni = OmniConfig(MelConfig(encoder.n_mels, pad_to_chunk=True), encoder,
                      AdaptorConfig(recipe.k, encoder.width, recipe.adaptor_width, sizes.width),
                      replace(decoder, llm_width=sizes.width))
    rope = {"rope_type": "default", **(decoder.rope_scaling or {}), "rope_theta": decoder.rope_theta}
    llm = LlamaConfig(hidden_size=sizes.width, num_hidden_layers=sizes.layers, intermediate_size=sizes.ffn,
                      num_attention_heads=sizes.heads, num_key_value_heads=sizes.kv_heads,
                      vocab_size=sizes.vocabulary, head_dim=sizes.head_dim, tie_word_embeddings=sizes.tied,
                      max_position_embeddings=131072, rope_parameters=rope)
    return Shape(name, omni, llm, recipe.hifigan, "bfloat16")


SHAPES: dict[str, Callable[[], Shape]] = {
    "nano": nano, "150m": middle, "llama-omni-1b": lambda: of_recipe("llama-omni-1b"),
    "llama-omni-3b": lambda: of_recipe("llama-omni-3b"), "llama-omni-8b": lambda: of_recipe("llama-omni-8b")}
"""From small to large."""


def find_shape(name: str) -> Shape:
    """By its name. Raises ConfigError naming those that are known."""
    if name not in SHAPES:
        raise ConfigError(f"--shape: found {name!r}; expected {', '.join(SHAPES)}")
    return SHAPES[name]()


# -- how much ---------------------------------------------------------------------------------------------------------

def parameters(shape: Shape) -> dict[str, int]:
    """Of each part, and in all; counted on a model without memory."""
    with torch.device("meta"):
        model, vocoder = _unfilled(shape, torch.float32)
    parts: dict[str, nn.Module] = {"encoder": model.encoder, "adaptor": model.adaptor, "llm": model.llm,
                                   "speech_decoder": model.speech_decoder, "vocoder": vocoder}
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    return counts | {"total": sum(counts.values())}


def bytes_needed(shape: Shape, dtype: torch.dtype, tokens: int = ANSWER_TOKENS) -> int:
    """For weights, the keys and values of a reply of so many tokens to 30 s of speech, and what goes with them."""
    counts, config, llm = parameters(shape), shape.omni.speech_decoder, shape.llm
    positions = shape.omni.encoder.positions // shape.omni.adaptor.k + shape.before + shape.after + tokens
    head = getattr(llm, "head_dim", None) or llm.hidden_size // llm.num_attention_heads
    cached = 2 * llm.num_hidden_layers * llm.num_key_value_heads * head * positions
    cached += 2 * config.layers * config.width * config.upsample * tokens
    held = dtype.itemsize * (counts["total"] - counts["vocoder"] + cached) + 4 * counts["vocoder"]
    return int(held + max(REST * held, REST_BYTES))


def bytes_free(device: torch.device) -> int | None:
    """Memory that a model could still take there; None where nobody says."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    known = [limit for limit in (_system_free(), _group_free()) if limit is not None]
    return min(known, default=None)


def _system_free() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None


def _group_free() -> int | None:
    """What a container's limit leaves."""
    try:
        limit = int((CGROUP / "memory.max").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
        return limit - int(stat["anon"])
    except (OSError, ValueError, KeyError):
        return None


def check_fits(shape: Shape, dtype: torch.dtype, device: torch.device, tokens: int, free: int | None) -> None:
    """Raises ConfigError with both numbers and what to try: the shape does not fit in `free` bytes (None: unknown)."""
    needed = bytes_needed(shape, dtype, tokens)
    if free is None or needed <= free:
        return
    names = list(SHAPES)
    smaller = ", ".join(names[:names.index(shape.name)])
    tries = ["--dtype bfloat16"] * (dtype == torch.float32) + [f"a smaller shape ({smaller})"] * bool(smaller)
    raise ConfigError(f"--shape {shape.name}: needs {needed / GB:.1f} GB in {str(dtype).removeprefix('torch.')}; "
                      f"{device} has {free / GB:.1f} GB free; try {' or '.join([*tries, 'another machine'])}")


# -- the model --------------------------------------------------------------------------------------------------------

class PacedLinear(nn.Linear):
    """The speech decoder's last layer, whose loudest class goes through a token's frames as real ones do.

    pace: [λ, V], what is added to the logits of a token's frames.
    """

    pace: Tensor

    def __init__(self, config: SpeechDecoderConfig) -> None:
        super().__init__(config.width, config.units + 1)
        runs = min(UNITS_PER_TOKEN, config.upsample, config.units)
        pace = torch.zeros(config.upsample, config.units + 1)
        frame = torch.arange(config.upsample)
        pace[frame, frame * runs // config.upsample * (config.units // runs)] = LOUDER
        self.register_buffer("pace", pace, persistent=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        logits: Tensor = super().forward(x_BTD)
        return logits + self.pace.to(logits).repeat(logits.shape[1] // len(self.pace), 1)


def random_omni(name: str, *, device: str = "auto", dtype: str = "auto", tokens: int = ANSWER_TOKENS,
                seed: int = 0) -> Omni:
    """A model of that shape whose replies are as long as they may be.

    tokens: of the longest reply that memory must suffice for. Raises ConfigError: no such shape, device or number
    format, or it does not fit.
    """
    shape, place = find_shape(name), pick_device(device)
    numbers = pick_dtype(dtype, place, {"dtype": shape.dtype})
    check_fits(shape, numbers, place, tokens, bytes_free(place))
    return build(shape, place, numbers, seed)


def build(shape: Shape, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Omni:
    """Random weights in the shape, made where they are used."""
    with torch.device(device):
        model, vocoder = _unfilled(shape, dtype)
    generator = torch.Generator(device).manual_seed(seed)
    noise = torch.randn(NOISE, generator=generator, device=device) * DEVIATION
    _fill(model, noise, dtype)
    _fill(vocoder, noise, torch.float32)
    with torch.no_grad():
        vocoder.duration.proj.weight.zero_()
        vocoder.duration.proj.bias.fill_(log(1 + FRAMES_PER_UNIT))
    prompt = Prompt(before=(1,) * shape.before, after=(2,) * shape.after, end_ids=())
    return Omni(model.requires_grad_(False), vocoder.requires_grad_(False), None, prompt)


def _unfilled(shape: Shape, dtype: torch.dtype) -> tuple[SpokenLM, Vocoder]:
    """Both, on the present default device, their weights whatever was in memory."""
    with NoInit():
        model = SpokenLM(shape.omni, AutoModelForCausalLM.from_config(shape.llm, dtype=dtype))
        model.speech_decoder.output_proj = PacedLinear(shape.omni.speech_decoder)
        vocoder = Hifigan(shape.vocoder) if isinstance(shape.vocoder, HifiganConfig) else SourceFilter(shape.vocoder)
    return model, vocoder


def _fill(module: nn.Module, noise: Tensor, dtype: torch.dtype) -> None:
    """Matrices from the noise, repeated (billions of fresh random numbers take minutes); scales 1, biases 0."""
    noise = noise.to(dtype)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            times = -(-parameter.numel() // len(noise))
            parameter.data = noise.repeat(times)[: parameter.numel()].view(parameter.shape)
        else:
            parameter.data = torch.full_like(parameter, float(name.endswith("weight")), dtype=dtype)
