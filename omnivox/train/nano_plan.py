"""What each step of the bundled model's recipe takes, before it starts: parameters, memory and time of CPU cores."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from omnivox.model.adaptor import Adaptor
from omnivox.model.encoder import Encoder
from omnivox.model.source_filter import SourceFilter
from omnivox.model.speech_decoder import SpeechDecoder
from omnivox.nano.dialogues import vocabulary
from omnivox.nano.words import build_tokenizer
from omnivox.rates import MEL_RATE
from omnivox.train.language import build_llm
from omnivox.train.recipes import NanoRecipe

GB = 1e9
QUESTION_SECONDS = 2.4  # of speech, about
# Seconds of one core for an hour of speech in many voices, in the answer voice, and to track its pitch; and for a
# training step with its batch, with products in bfloat16 and without. Measured on AMD EPYC, but for language, encoder
# and stage 1, which are reckoned from fewer layers, and `hear` and stage 2 with bfloat16, from the ratio of the others.
SPEAKING, ANSWERING, PITCH = 80.0, 130.0, 40.0
STEP_SECONDS = {"language": (0.6, 1.5), "encoder": (0.65, 1.7), "hear": (1.8, 4.7), "vocoder": (0.3, 0.36),
                "stage1": (0.42, 1.15), "stage2": (0.9, 2.4)}


@dataclass(frozen=True)
class StepPlan:
    """One step. hours: of speech that it makes or reads; memory_gb: of weights, gradients, Adam's two moments, and the
    frames that it keeps; minutes: of one core."""

    name: str
    learnt: int
    frozen: int
    hours: float
    steps: int
    memory_gb: float
    minutes: float


@dataclass(frozen=True)
class NanoPlan:
    """The parameters of each part, and every step that takes minutes."""

    parameters: dict[str, int]
    steps: tuple[StepPlan, ...]


def _parameters(recipe: NanoRecipe, tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """Of each part."""
    parts: dict[str, nn.Module] = {
        "encoder": Encoder(recipe.encoder.encoder), "adaptor": Adaptor(recipe.adaptor),
        "llm": build_llm(recipe.language, tokenizer), "speech_decoder": SpeechDecoder(recipe.speech_decoder),
        "vocoder": SourceFilter(recipe.vocoder)}
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}


def plan(recipe: NanoRecipe) -> NanoPlan:
    """Of the whole recipe."""
    tokenizer = build_tokenizer(vocabulary())
    count = _parameters(recipe, tokenizer)
    encoder, adaptor, llm = count["encoder"], count["adaptor"], count["llm"]
    words = recipe.language.width * len(tokenizer)  # embeddings made of sounds, which never learn
    asked = recipe.question_hours + recipe.strange_hours
    many = asked + recipe.word_hours + recipe.sentence_hours
    answers = (recipe.answer_count + recipe.repeat_count) * QUESTION_SECONDS / 3600
    heard = min(answers, recipe.vocoder_training.hours)
    stage1, stage2 = recipe.stage1, recipe.stage2
    return NanoPlan(count, (
        StepPlan("speech in many voices", 0, 0, many, 0, 0.4, many * SPEAKING / 60),
        StepPlan("speech in the answer voice", 0, 0, answers, 0, 0.4, answers * ANSWERING / 60),
        _training("language", llm - words, words, 0, recipe.language.schedule.steps),
        _training("encoder", encoder + adaptor, words, many, recipe.encoder.schedule.steps),
        _training("hear", encoder + adaptor + llm - words, words, asked + recipe.word_hours,
                  recipe.hear.schedule.steps),
        _training("vocoder", count["vocoder"], 0, heard, recipe.vocoder_training.schedule.steps,
                  4 * heard * 3600 * recipe.vocoder.sample_rate, heard * PITCH),
        _training("stage1", adaptor + llm - words, encoder + words, asked, stage1.schedule.steps,
                  _kept(recipe, asked, stage1.schedule.steps * stage1.batch, stage1.copies)),
        _training("stage2", count["speech_decoder"], encoder + adaptor + llm, answers, stage2.schedule.steps,
                  _kept(recipe, asked + recipe.word_hours, stage2.schedule.steps * stage2.batch, stage2.copies))))


def _training(name: str, learnt: int, frozen: int, hours: float, steps: int, kept: float = 0.0,
              before: float = 0.0) -> StepPlan:
    memory = 16 * learnt + 4 * frozen + kept
    seconds = STEP_SECONDS[name][not fast_products()]
    return StepPlan(name, learnt, frozen, hours, steps, memory / GB, (before + steps * seconds) / 60)


def fast_products() -> bool:
    """Whether this CPU multiplies in bfloat16, as training does where it can."""
    return bool(torch.cpu._is_avx512_bf16_supported())


def _kept(recipe: NanoRecipe, hours: float, draws: int, copies: int) -> float:
    """Bytes of encoder frames, float16, of so many draws among `copies` of each utterance."""
    utterances = hours * 3600 / QUESTION_SECONDS
    distinct = utterances * copies * (1 - math.exp(-draws / max(1.0, utterances * copies)))
    encoder = recipe.encoder.encoder
    rate = MEL_RATE / math.prod(encoder.strides)
    return distinct * QUESTION_SECONDS * rate * encoder.width * torch.float16.itemsize
