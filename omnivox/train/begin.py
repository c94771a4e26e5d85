"""Puts the parts of a finished model where the steps that make them would have left them, so that training goes on.

LLM and encoder count as trained, and are gone on from by the steps `hear` and `stage1`; the others begin at step 0 with
the model's weights. Its units, which nobody needs who only wants answers, are the file `units.safetensors` beside them.
`begun.json` says which model it was, and whether all of it has been written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from shutil import copyfile
from typing import Any

import torch
from torch import Tensor, nn

from omnivox.checkpoint.load import find_model, load_checkpoint
from omnivox.errors import ConfigError, DataError
from omnivox.model.source_filter import SourceFilter
from omnivox.nano.words import BLANK
from omnivox.train.loop import Run
from omnivox.train.recipes import NanoRecipe
from omnivox.train.recognise import Recogniser
from omnivox.writing import atomic

UNITS = "units.safetensors"
BEGUN = "begun.json"


def begin(work: Path, recipe: NanoRecipe, words: Mapping[str, int], sounds: Tensor, model: str | Path) -> None:
    """Write the checkpoints of a work folder that has none; killed, it can be run again.

    words, sounds: the domain's tokens, and the embeddings [V, D] that the LLM reads for them.
    Raises ConfigError where the model's sizes or words are not the recipe's, or its units are missing; DataError where
    there is a run already.
    """
    loaded = load_checkpoint(model)
    config, vocoder = loaded.config, loaded.vocoder
    _same("encoder", config.encoder, recipe.encoder.encoder)
    _same("adaptor", config.adaptor, recipe.adaptor)
    _same("speech decoder", config.speech_decoder, recipe.speech_decoder)
    if loaded.tokenizer is None or loaded.tokenizer.get_vocab() != words:
        raise ConfigError(f"{model}: its words are not those that the domain has now; train it from nothing")
    if not isinstance(vocoder, SourceFilter) or (vocoder.units, vocoder.frame_samples) != (
            recipe.vocoder.units, recipe.vocoder.frame_samples):
        raise ConfigError(f"{model}: its vocoder is not the recipe's; expected a source-filter vocoder of "
                          f"{recipe.vocoder.units} units of {recipe.vocoder.frame_samples} samples")
    if not (units := find_model(model) / UNITS).exists():
        raise ConfigError(f"{units}: missing, and what the model's units stand for cannot be told without it")
    torch.manual_seed(recipe.seed)
    recogniser = Recogniser(recipe.encoder, recipe.adaptor, sounds, words[BLANK])
    recogniser.encoder, recogniser.adaptor = loaded.model.encoder, loaded.model.adaptor
    runs: list[tuple[str, dict[str, nn.Module], Any, bool]] = [
        ("language", {"llm": loaded.model.llm}, recipe.language, True),
        ("encoder", {"recogniser": recogniser}, recipe.encoder, True),
        ("vocoder", {"vocoder": vocoder}, recipe.vocoder_training, False),
        ("stage2", {"speech_decoder": loaded.model.speech_decoder}, recipe.stage2, False)]
    source = _source(model)
    if _mark(work) != {"model": source, "whole": False}:
        for name in (BEGUN, *(f"{name}/checkpoint.pt" for name, *_ in runs)):
            if (path := work / name).exists():
                raise DataError(f"{path}: the folder holds a run already; expected an empty one to begin in")
    _write_mark(work, source, whole=False)
    for part in (loaded.model, vocoder):
        part.requires_grad_(True)
    loaded.model.llm.get_input_embeddings().requires_grad_(False)
    for name, modules, settings, done in runs:
        (work / name / "checkpoint.pt").unlink(missing_ok=True)  # of a beginning that was killed
        run = Run(work / name, modules, settings.schedule, settings)
        run.step = settings.schedule.steps if done else 0
        run.save()
    copy_units(units.parent, work)
    _write_mark(work, source, whole=True)


def begun_with(work: Path, model: str | Path | None = None) -> str:
    """The model that training in `work` began with. Raises DataError where it began with none, ConfigError where it was
    another than `model`."""
    mark = _mark(work)
    if not mark.get("whole"):
        raise DataError(f"{work / BEGUN}: {'not finished' if mark else 'missing'}; run the step 'begin' first")
    if model is not None and mark["model"] != _source(model):
        raise ConfigError(f"--model: found {model}; training in {work} began with {mark['model']}")
    return str(mark["model"])


def _source(model: str | Path) -> str:
    """A model's name, wherever it is said."""
    return "nano" if str(model) == "nano" else str(Path(model).resolve())


def _mark(work: Path) -> dict[str, Any]:
    path = work / BEGUN
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _write_mark(work: Path, model: str, whole: bool) -> None:
    work.mkdir(parents=True, exist_ok=True)
    with atomic(work / BEGUN) as path:
        path.write_text(json.dumps({"model": model, "whole": whole}) + "\n", encoding="utf-8")


def copy_units(source: Path, destination: Path) -> None:
    """From one folder to another, whole or not at all."""
    with atomic(destination / UNITS) as path:
        copyfile(source / UNITS, path)


def _same(part: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise ConfigError(f"{part}: the model has {found}; the recipe {wanted}; train it from nothing")
