"""Whole results as frozen settings. A recipe is a function; nano's steps are in `train/nano.py`, those of any LLM in
`train/steps.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from omnivox.errors import ConfigError
from omnivox.model.config import AdaptorConfig, EncoderConfig, MfccConfig, SourceFilterConfig, SpeechDecoderConfig
from omnivox.train.hear import HearConfig
from omnivox.train.language import LanguageConfig
from omnivox.train.loop import Schedule
from omnivox.train.recognise import RecogniseConfig
from omnivox.train.settings import LLMSizes, Stage1Settings, Stage2Settings, TrainRecipe
from omnivox.train.stage1 import Stage1Config
from omnivox.train.stage2 import Stage2Config
from omnivox.train.vocoder import VocoderRecipe


@dataclass(frozen=True)
class NanoRecipe:
    """Everything that the bundled model is made with."""

    sentence_hours: float  # of speech about nothing, for the encoder
    word_hours: float  # of the domain's words in no order, for the encoder
    question_hours: float
    strange_hours: float  # of questions about what it knows nothing of
    repeat_count: int  # texts that ask or say nothing, spoken in the answer voice
    answer_count: int  # distinct answers spoken in the answer voice
    exam_size: int  # questions in each exam that is watched while training
    encoder: RecogniseConfig
    hear: HearConfig
    units: MfccConfig
    vocoder: SourceFilterConfig
    vocoder_training: VocoderRecipe
    language: LanguageConfig
    adaptor: AdaptorConfig
    stage1: Stage1Config
    speech_decoder: SpeechDecoderConfig
    stage2: Stage2Config
    seed: int


def nano(seed: int = 1, scale: float = 1.0) -> NanoRecipe:
    """The bundled model: about three hours of two CPU cores that multiply in bfloat16 (`omnivox train nano --plan`).

    scale: shortens data and training, to try it out.
    """

    def steps(count: int) -> int:
        return max(2, round(count * scale))

    width, llm_width = 192, 256
    units = MfccConfig(units=500, frame_samples=320)
    language = LanguageConfig(Schedule(steps(5000), lr=2e-3, weight_decay=0.05), width=llm_width, layers=6,
                              exam=steps(200), seed=seed)
    return NanoRecipe(
        sentence_hours=4.0 * scale, word_hours=4.0 * scale, question_hours=28.0 * scale,
        strange_hours=8.0 * scale, repeat_count=steps(4000), answer_count=steps(4703), exam_size=steps(100),
        encoder=RecogniseConfig(EncoderConfig(80, width, 8, heads=4, positions=750, strides=(2, 2), conv_kernel=9),
                                Schedule(steps(5000), lr=2e-3, warmup=300, evaluate_every=1000), seed=seed),
        hear=HearConfig(Schedule(steps(3000), lr=8e-4, evaluate_every=1000), language, seed=seed + 1),
        units=units,
        vocoder=SourceFilterConfig(units=units.units, frame_samples=units.frame_samples, unit_right=(2, 1, 1, 1)),
        vocoder_training=VocoderRecipe(Schedule(steps(10000), lr=1e-3, clip=5.0), speak=64, hours=6.0,
                                       confused=0.1),
        language=language,
        adaptor=AdaptorConfig(k=2, encoder_width=width, inner_width=512, llm_width=llm_width),
        stage1=Stage1Config(Schedule(steps(1500), lr=6e-4, weight_decay=0.05, evaluate_every=1000), language,
                            seed=seed),
        speech_decoder=SpeechDecoderConfig(llm_width, width=256, layers=2, heads=4, ffn=704, upsample=24,
                                           units=units.units, rope_theta=10000.0, position_embedding=True,
                                           final_norm=True),
        stage2=Stage2Config(Schedule(steps(3000), lr=2e-3), seed=seed, threads=2),
        seed=seed,
    )


_LLAMA3_ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192}


def llama_omni_8b() -> TrainRecipe:
    """The paper's model and training (LLaMA-Omni, §3): four GPUs of 48 GB, the LLM's layers shared among them."""
    return TrainRecipe(
        name="llama-omni-8b", llm="meta-llama/Llama-3.1-8B-Instruct", whisper="openai/whisper-large-v3",
        llm_sizes=LLMSizes(32, 4096, 14336, 32, 8, 128256),
        decoder=SpeechDecoderConfig(4096, width=4096, layers=2, heads=32, ffn=11008, upsample=25, units=1000,
                                    rope_theta=500000.0, rope_scaling=_LLAMA3_ROPE),
        stage1=Stage1Settings(lr=2e-5, batch=32, micro_batch=1, epochs=3, parallel="fsdp2"),
        stage2=Stage2Settings(lr=2e-4, batch=32, micro_batch=4, epochs=3))


def llama_omni_3b() -> TrainRecipe:
    """A 3B LLM by low-rank additions: one GPU of 24 GB."""
    return TrainRecipe(
        name="llama-omni-3b", llm="meta-llama/Llama-3.2-3B-Instruct", whisper="openai/whisper-large-v3",
        llm_sizes=LLMSizes(28, 3072, 8192, 24, 8, 128256, 128, tied=True),
        decoder=SpeechDecoderConfig(3072, width=2048, layers=2, heads=16, ffn=5632, upsample=25, units=1000,
                                    rope_theta=500000.0),
        stage1=Stage1Settings(lr=1e-4, batch=32, micro_batch=2, epochs=3, tune="lora", lora_rank=64, lora_alpha=128),
        stage2=Stage2Settings(lr=2e-4, batch=32, micro_batch=8, epochs=3))


def llama_omni_1b() -> TrainRecipe:
    """A 1B LLM, all of it trained: one GPU of 40 GB; with `--set stage1.tune=lora`, one of 12 GB."""
    return TrainRecipe(
        name="llama-omni-1b", llm="meta-llama/Llama-3.2-1B-Instruct", whisper="openai/whisper-large-v3",
        llm_sizes=LLMSizes(16, 2048, 8192, 32, 8, 128256, 64, tied=True),
        decoder=SpeechDecoderConfig(2048, width=1536, layers=2, heads=12, ffn=4096, upsample=25, units=1000,
                                    rope_theta=500000.0),
        stage1=Stage1Settings(lr=4e-5, batch=32, micro_batch=2, epochs=3),
        stage2=Stage2Settings(lr=2e-4, batch=32, micro_batch=8, epochs=3))


RECIPES: dict[str, Callable[[], TrainRecipe]] = {
    "llama-omni-8b": llama_omni_8b, "llama-omni-3b": llama_omni_3b, "llama-omni-1b": llama_omni_1b}


def find_recipe(name: str) -> TrainRecipe:
    """By its name. Raises ConfigError naming those that are known."""
    if name.replace("_", "-") not in RECIPES:
        raise ConfigError(f"RECIPE: found {name!r}; expected nano, {', '.join(RECIPES)}")
    return RECIPES[name.replace("_", "-")]()
