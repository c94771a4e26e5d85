"""Where training begins: an LLM and Whisper's encoder, as they are published, joined by parts that know nothing yet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from omnivox.checkpoint.files import fill, find_folder, read_json
from omnivox.checkpoint.load import Loaded
from omnivox.checkpoint.whisper import load_whisper
from omnivox.errors import CheckpointError, ConfigError
from omnivox.model.config import AdaptorConfig, MelConfig, OmniConfig
from omnivox.model.omni import SpokenLM
from omnivox.train.chat import chat_prompt
from omnivox.train.settings import TrainRecipe


def start(recipe: TrainRecipe, dtype: torch.dtype | None = torch.float32) -> Loaded:
    """A model of the recipe's LLM and encoder, on the CPU; adaptor and speech decoder are random, the same for the same
    seed. dtype: of all of it; None reads the LLM as its files have it, the rest in float32. Raises CheckpointError and
    ConfigError naming what cannot be read or does not fit."""
    llm, tokenizer = read_llm(recipe.llm, dtype or "auto")
    dtype = dtype or torch.float32
    place = Path(recipe.whisper)
    encoder, tensors = load_whisper(place if place.exists() else find_folder(recipe.whisper))
    width = llm.get_input_embeddings().weight.shape[1]
    config = OmniConfig(MelConfig(encoder.n_mels, pad_to_chunk=True), encoder,
                        AdaptorConfig(recipe.k, encoder.width, recipe.adaptor_width, width),
                        replace(recipe.decoder, llm_width=width), recipe.stage2.states_fed)
    torch.manual_seed(recipe.seed)
    try:
        model = SpokenLM(config, llm)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    fill(model.encoder, tensors, dtype)
    model.adaptor.to(dtype)
    model.speech_decoder.to(dtype)
    return Loaded(model, tokenizer, None, chat_prompt(tokenizer, llm.config, recipe.system, recipe.instruction))


def read_llm(name: str, dtype: torch.dtype | str) -> tuple[Any, PreTrainedTokenizerBase]:
    """A causal LM and its tokenizer, of a folder or of the hub."""
    folder = find_folder(name)
    read_json(folder / "config.json")
    try:
        llm = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # transformers, tokenizers and safetensors each raise their own
        reason = next(iter(str(error).strip().splitlines()), "no reason given")
        raise CheckpointError(f"{folder}: no causal LM that transformers can read ({type(error).__name__}: {reason})") \
            from error
    return llm, tokenizer
