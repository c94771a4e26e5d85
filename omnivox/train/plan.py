"""What a recipe takes, before anything starts: parameters, memory on each GPU, steps and time.

Everything is arithmetic on sizes. Memory counts what must be there; what allocators and kernels take besides is
reckoned as a share of it. Time is floating-point operations over what GPUs do in practice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from omnivox.checkpoint.files import read_json
from omnivox.errors import ConfigError
from omnivox.rates import MEL_RATE
from omnivox.train.settings import LLMSizes, TrainingSettings, TrainRecipe

GB = 1e9
PROMPT_TOKENS = 75  # what a chat template writes around speech, the published system prompt with it
ANSWER_TOKENS = 53  # 39.5 words (the paper's data), at 4/3 tokens a word
QUESTION_SECONDS = 30  # Whisper's window, padding and all
OVERHEAD = 0.1  # of the memory counted: fragments and buffers
MELS = 128  # of Whisper large-v3


@dataclass(frozen=True)
class Machine:
    """GPUs to plan for. tflops: dense bfloat16 of one; utilisation: the share of it that training reaches."""

    gpus: int = 1
    memory_gb: float = 48.0
    tflops: float = 181.0  # an L40
    utilisation: float = 0.35


@dataclass(frozen=True)
class Memory:
    """GB on one GPU."""

    weights: float
    gradients: float
    optimiser: float
    activations: float

    @property
    def total(self) -> float:
        """With the overhead."""
        return (1 + OVERHEAD) * (self.weights + self.gradients + self.optimiser + self.activations)


@dataclass(frozen=True)
class StagePlan:
    """One stage. disk_gb: of states that are kept."""

    name: str
    learnt: int
    frozen: int
    memory: Memory
    steps: int
    hours: float
    disk_gb: float = 0.0


@dataclass(frozen=True)
class Plan:
    """Both stages, and the parameters of each part."""

    parameters: dict[str, int]
    stages: tuple[StagePlan, ...]
    machine: Machine

    @property
    def fits(self) -> bool:
        """Whether every stage has room."""
        return all(stage.memory.total <= self.machine.memory_gb for stage in self.stages)


def llm_parameters(sizes: LLMSizes) -> int:
    """Of a Llama-like LLM."""
    head = sizes.head_dim or sizes.width // sizes.heads
    attention = 2 * sizes.width * head * (sizes.heads + sizes.kv_heads)
    layer = attention + 3 * sizes.width * sizes.ffn + 2 * sizes.width
    return sizes.layers * layer + sizes.width + sizes.vocabulary * sizes.width * (1 if sizes.tied else 2)


def encoder_parameters(layers: int, width: int, positions: int, mels: int = MELS) -> int:
    """Of Whisper's encoder, its table of positions with them."""
    stem = 3 * width * (mels + width) + 2 * width
    return stem + layers * (12 * width * width + 12 * width) + 2 * width + positions * width


def parameters(recipe: TrainRecipe) -> dict[str, int]:
    """Of each part."""
    llm, encoder, decoder = recipe.llm_sizes, recipe.encoder_sizes, recipe.decoder
    wide = decoder.width
    adaptor = (recipe.k * encoder.width + 1) * recipe.adaptor_width + (recipe.adaptor_width + 1) * llm.width
    speech = (llm.width + 1) * wide + (wide + 1) * (decoder.units + 1)
    speech += decoder.layers * (4 * wide * wide + 3 * wide * decoder.ffn + 2 * wide)
    speech += wide * decoder.final_norm + decoder.upsample * wide * decoder.position_embedding
    return {"encoder": encoder_parameters(encoder.layers, encoder.width, encoder.positions), "adaptor": adaptor,
            "llm": llm_parameters(llm), "speech_decoder": speech}


def lora_parameters(sizes: LLMSizes, rank: int) -> int:
    """Of low-rank additions to every linear layer."""
    head = sizes.head_dim or sizes.width // sizes.heads
    outs = [sizes.heads * head, sizes.kv_heads * head, sizes.kv_heads * head]
    attention = sum(sizes.width + out for out in outs) + sizes.heads * head + sizes.width
    return sizes.layers * rank * (attention + 3 * (sizes.width + sizes.ffn))


def plan(recipe: TrainRecipe, machine: Machine) -> Plan:
    """For the recipe's own number of rows, of the paper's lengths."""
    return Plan(parameters(recipe), (_stage1(recipe, machine), _stage2(recipe, machine)), machine)


def _positions(recipe: TrainRecipe) -> int:
    return QUESTION_SECONDS * MEL_RATE // 2 // recipe.k + PROMPT_TOKENS + ANSWER_TOKENS


def _stage1(recipe: TrainRecipe, machine: Machine) -> StagePlan:
    settings, count, sizes = recipe.stage1, parameters(recipe), recipe.llm_sizes
    added = {"full": count["llm"], "lora": lora_parameters(sizes, settings.lora_rank), "adaptor": 0}[settings.tune]
    learnt, frozen = count["adaptor"] + added, count["encoder"] + (0 if settings.tune == "full" else count["llm"])
    shards = machine.gpus if settings.parallel == "fsdp2" or settings.parallel == "deepspeed" else 1
    positions = settings.micro_batch * _positions(recipe)
    layers = sizes.layers if not settings.checkpointing else 1
    width = max(sizes.ffn, 3 * sizes.width)
    remembered = 2 * positions * sizes.width * sizes.layers  # each layer's input, bfloat16
    inside = 2 * positions * layers * (8 * sizes.width + 4 * width)
    logits = 10 * settings.micro_batch * ANSWER_TOKENS * sizes.vocabulary  # bfloat16, float32 and their gradients
    working = 2 * added / sizes.layers * 2 if shards > 1 else 2 * added  # layers gathered or cast, bfloat16
    memory = Memory(weights=(4 * learnt / shards + 2 * frozen + working) / GB, gradients=4 * learnt / shards / GB,
                    optimiser=8 * learnt / shards / GB, activations=(remembered + inside + logits) / GB)
    passes = (3 if settings.tune == "full" else 2) + settings.checkpointing
    operations = 2 * passes * count["llm"] * _positions(recipe) + _encoding(recipe, count)
    steps = _steps(settings, recipe.rows)
    return StagePlan("stage1", learnt, frozen, memory, steps, _hours(operations * steps * settings.batch, machine))


def _stage2(recipe: TrainRecipe, machine: Machine) -> StagePlan:
    settings, count, decoder = recipe.stage2, parameters(recipe), recipe.decoder
    learnt = count["speech_decoder"]
    frozen = sum(count.values()) - learnt
    frames = settings.micro_batch * ANSWER_TOKENS * decoder.upsample
    activations = 2 * frames * decoder.layers * (12 * decoder.width + 4 * decoder.ffn) + 12 * frames * decoder.units
    training = Memory((4 + 2) * learnt / GB, 4 * learnt / GB, 8 * learnt / GB, activations / GB)
    keeping = Memory(2 * (frozen + learnt) / GB, 0, 0, 2 * settings.micro_batch * _positions(recipe) * 12
                     * recipe.llm_sizes.width / GB)
    once = (2 * count["llm"] * _positions(recipe) + _encoding(recipe, count)) * recipe.rows
    steps = _steps(settings, recipe.rows)
    each = 6 * learnt * ANSWER_TOKENS * decoder.upsample
    return StagePlan("stage2", learnt, frozen, max(training, keeping, key=lambda memory: memory.total), steps,
                     _hours(once + each * steps * settings.batch, machine),
                     disk_gb=2 * recipe.llm_sizes.width * ANSWER_TOKENS * recipe.rows / GB)


def speedup_of_keeping(recipe: TrainRecipe, epochs: int = 3) -> float:
    """Stage 2's work with states computed at every epoch, over that with states computed once."""
    count = parameters(recipe)
    before = 2 * count["llm"] * _positions(recipe) + _encoding(recipe, count)
    learning = 6 * count["speech_decoder"] * ANSWER_TOKENS * recipe.decoder.upsample
    return epochs * (before + learning) / (before + epochs * learning)


def _encoding(recipe: TrainRecipe, count: dict[str, int]) -> float:
    sizes = recipe.encoder_sizes
    return 2.0 * count["encoder"] * sizes.positions + 4 * sizes.layers * sizes.positions**2 * sizes.width


def _steps(settings: TrainingSettings, rows: int) -> int:
    return settings.steps or settings.epochs * math.ceil(rows / settings.batch)


def _hours(operations: float, machine: Machine) -> float:
    return operations / (machine.gpus * machine.tflops * 1e12 * machine.utilisation) / 3600


def sizes_of(folder: Path) -> LLMSizes:
    """Of an LLM's folder. Raises ConfigError where its config.json does not say them."""
    values = read_json(folder / "config.json")
    values = values.get("text_config") or values
    try:
        heads = int(values["num_attention_heads"])
        return LLMSizes(int(values["num_hidden_layers"]), int(values["hidden_size"]), int(values["intermediate_size"]),
                        heads, int(values.get("num_key_value_heads") or heads), int(values["vocab_size"]),
                        values.get("head_dim"), bool(values.get("tie_word_embeddings", False)))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{folder / 'config.json'}: {error} is missing or no number; a plan needs the sizes of a "
                          "decoder-only LLM") from error
