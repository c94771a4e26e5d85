"""Whole results as frozen settings. A recipe is a function; the steps that use it are in `train/nano.py`."""

from __future__ import annotations

from dataclasses import dataclass

from omnivox.model.config import AdaptorConfig, EncoderConfig, MfccConfig, SourceFilterConfig, SpeechDecoderConfig
from omnivox.train.language import LanguageConfig
from omnivox.train.loop import Schedule
from omnivox.train.recognise import RecogniseConfig
from omnivox.train.stage1 import Stage1Config
from omnivox.train.stage2 import Stage2Config
from omnivox.train.vocoder import VocoderRecipe


@dataclass(frozen=True)
class NanoRecipe:
    """Everything that the bundled model is made with."""

    sentence_hours: float  # of speech about nothing, for the encoder
    word_hours: float  # of the domain's words in no order, for the encoder
    question_hours: float
    answer_count: int  # distinct answers spoken in the answer voice
    exam_size: int  # questions in each exam that is watched while training
    encoder: RecogniseConfig
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
    """The bundled model: about three hours on two CPU cores. `scale` shortens data and training, to try it out."""

    def steps(count: int) -> int:
        return max(2, round(count * scale))

    width, llm_width = 192, 256
    units = MfccConfig(units=500, frame_samples=320)
    language = LanguageConfig(Schedule(steps(7000), lr=2e-3, weight_decay=0.05), width=llm_width,
                              exam=steps(200), seed=seed)
    return NanoRecipe(
        sentence_hours=4.0 * scale, word_hours=4.0 * scale, question_hours=12.0 * scale, answer_count=steps(4703),
        exam_size=steps(100),
        encoder=RecogniseConfig(EncoderConfig(80, width, 6, heads=4, positions=750, strides=(2, 2), conv_kernel=9),
                                Schedule(steps(9000), lr=2e-3, warmup=300, evaluate_every=1000), seed=seed),
        units=units,
        vocoder=SourceFilterConfig(units=units.units, frame_samples=units.frame_samples, unit_right=(2, 1, 1, 1)),
        vocoder_training=VocoderRecipe(Schedule(steps(4900), lr=1e-3, clip=5.0), speak=64),
        language=language,
        adaptor=AdaptorConfig(k=2, encoder_width=width, inner_width=512, llm_width=llm_width),
        stage1=Stage1Config(Schedule(steps(2300), lr=1.2e-3, weight_decay=0.05, evaluate_every=1000), language,
                            seed=seed),
        speech_decoder=SpeechDecoderConfig(llm_width, width=256, layers=2, heads=4, ffn=704, upsample=24,
                                           units=units.units, rope_theta=10000.0, position_embedding=True,
                                           final_norm=True),
        stage2=Stage2Config(Schedule(steps(2400), lr=2e-3), seed=seed, threads=2),
        seed=seed,
    )
