"""From an LLM and a speech encoder to a model that answers in speech, step by step, in one work folder.

    stage1   WORK/stage1/model     it answers in text
    stage2   WORK/stage2/model     it speaks; WORK/states holds what the epochs read

Each can be killed and run again; what is done is kept. The folders `model` are checkpoints of ours.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from omnivox.checkpoint.hifigan import load_hifigan
from omnivox.checkpoint.load import Loaded, load_checkpoint, save_pretrained
from omnivox.errors import CheckpointError, ConfigError, DataError
from omnivox.model.speech_decoder import SpeechDecoder
from omnivox.model.vocoder import Vocoder
from omnivox.train.answer import Answering, answering_task
from omnivox.train.conversations import Conversations, Part, hold_out, open_conversations
from omnivox.train.examples import Examples
from omnivox.train.parallel import Processes, whole_weights
from omnivox.train.settings import Stage2Settings, TrainingSettings, TrainRecipe
from omnivox.train.speak import Answers, Speaking, speaking_task
from omnivox.train.start import start
from omnivox.train.states import KeptStates, keep_states, usable, weights_digest
from omnivox.train.trainer import train

log = logging.getLogger(__name__)
STEPS = ("stage1", "stage2")


class OmniTraining:
    """The steps of one recipe.

    data, held: what to learn from and what to measure on, as `open_conversations` reads them; without `held` a few rows
    of `data` are kept out. vocoder: a unit vocoder's folder, to go into the finished model. model: a checkpoint for
    stage 2 to go on from, instead of stage 1's.
    """

    def __init__(self, work: Path, recipe: TrainRecipe, data: Path, held: Path | None = None,
                 vocoder: Path | None = None, model: Path | None = None) -> None:
        self.work, self.recipe, self.model = work, recipe, model
        self._data, self._held, self._vocoder = data, held, vocoder

    def run(self, step: str) -> None:
        """One step by its name."""
        if step not in STEPS:
            raise ConfigError(f"STEP: found {step!r}; expected {' or '.join(STEPS)}")
        {"stage1": self.stage1, "stage2": self.stage2}[step]()

    def stage1(self) -> Path:
        """Train adaptor and LLM; gives the checkpoint."""
        recipe, out = self.recipe, self.work / "stage1"
        settings = recipe.stage1
        frozen = _stored(settings) or torch.float32
        shared = settings.parallel in ("fsdp2", "deepspeed")  # each process reads all, and keeps a part in float32
        loaded = start(recipe, frozen if settings.tune != "full" else None if shared else torch.float32)
        told, held = (self._examples(data, loaded, settings.max_positions) for data in self._split(settings))
        module = train(answering_task(loaded, told, held, settings), settings, out, recipe)
        weights = whole_weights(module)
        if _main() and not (out / "model").exists():
            whole = start(recipe, frozen)
            answering = Answering(whole.model, settings)
            _take(answering, weights)
            whole.model.adaptor, whole.model.llm = answering.merged()
            whole.model.llm.gradient_checkpointing_disable()
            save_pretrained(whole, out / "model", stored=_stored(settings), dtype=_stored(settings))
        _wait()
        return out / "model"

    def stage2(self) -> Path:
        """Train the speech decoder on the states of stage 1's model; gives the checkpoint."""
        recipe, out = self.recipe, self.work / "stage2"
        settings = recipe.stage2
        vocoder = self._read_vocoder()
        loaded = self._silent()
        processes = Processes(settings, out)
        loaded.model.to(processes.device)
        digest, kept = weights_digest(loaded.model), list[KeptStates]()
        for data in self._split(settings):
            examples = self._examples(data, loaded, settings.max_positions, spoken=True)
            place, shards = keep_states(loaded, examples, self.work / "states", settings, processes.rank,
                                        processes.world, digest)
            processes.wait()
            kept.append(KeptStates(place, shards))
        loaded.model.to("cpu")
        decoder = loaded.model.speech_decoder
        told, held = self._answers(kept[0], kept[1], decoder.config.upsample, settings)
        if vocoder is not None:
            vocoder.to(processes.device)
        module = train(speaking_task(decoder, told, held, settings, vocoder), settings, out, recipe)
        weights = whole_weights(module)
        if _main() and not (out / "model").exists():
            loaded.model.speech_decoder = SpeechDecoder(loaded.model.config.speech_decoder)
            _take(Speaking(loaded.model.speech_decoder, settings), weights)
            loaded.vocoder = vocoder.cpu() if vocoder is not None else None
            save_pretrained(loaded, out / "model", stored=_stored(settings), dtype=_stored(settings))
        _wait()
        return out / "model"

    # -- what goes in -------------------------------------------------------------------------------------------------

    def _split(self, settings: TrainingSettings) -> tuple[Conversations, Conversations]:
        data = open_conversations(self._data, settings.max_bad)
        if not len(data):
            raise DataError(f"{self._data}: holds no conversations")
        known, units = getattr(data, "units", None), self.recipe.decoder.units
        if isinstance(settings, Stage2Settings) and known not in (None, units):
            raise ConfigError(f"{self._data}: its answers are made of {known} units, the speech decoder gives {units}; "
                              f"--set decoder.units={known}")
        if self._held is None:
            return hold_out(data, settings.held_rows, self.recipe.seed)
        held = open_conversations(self._held, settings.max_bad)
        return data, Part(held, range(min(settings.held_rows, len(held))))

    def _examples(self, data: Conversations, loaded: Loaded, max_positions: int, spoken: bool = False) -> Examples:
        if loaded.tokenizer is None:
            raise CheckpointError("tokenizer: the checkpoint has none; expected tokenizer.json beside config.json")
        room = getattr(loaded.model.llm.config, "max_position_embeddings", max_positions)
        return Examples(data, loaded.tokenizer, loaded.prompt, loaded.model.config, min(max_positions, room), spoken)

    def _silent(self) -> Loaded:
        """Stage 1's model with a speech decoder that knows nothing yet."""
        place = self.model or self.work / "stage1" / "model"
        if self.model is None and not place.exists():
            raise CheckpointError(f"{place}: missing; run the step 'stage1' first, or name a checkpoint with --model")
        settings = self.recipe.stage2
        dtype = "bfloat16" if settings.precision == "bfloat16" and torch.cuda.is_available() else "float32"
        loaded = load_checkpoint(place, device="cpu", dtype=dtype)
        config = loaded.model.config
        decoder = replace(self.recipe.decoder, llm_width=config.adaptor.llm_width)
        torch.manual_seed(self.recipe.seed)
        try:
            loaded.model.speech_decoder = SpeechDecoder(decoder)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        loaded.model.config = replace(config, speech_decoder=decoder, states_fed=settings.states_fed)
        loaded.vocoder = None
        return loaded

    def _answers(self, train: KeptStates, held: KeptStates, upsample: int, settings: Stage2Settings
                 ) -> tuple[Answers, Answers]:
        both = [Answers(states, usable(states, upsample, settings) if len(states) or states is train else [])
                for states in (train, held)]
        if left := len(train) + len(train.bad) - len(both[0].numbers):
            log.warning("stage 2: %d of %d answers are left out; the first: %s", left, len(train) + len(train.bad),
                        next(iter(train.bad.values()), "more units than frames"))
        return both[0], both[1]

    def _read_vocoder(self) -> Vocoder | None:
        if self._vocoder is None:
            return None
        vocoder = load_hifigan(self._vocoder)
        if vocoder.units != self.recipe.decoder.units:
            raise ConfigError(f"{self._vocoder}: knows {vocoder.units} units, the speech decoder gives "
                              f"{self.recipe.decoder.units}; name another, or --set decoder.units={vocoder.units}")
        return vocoder


def _take(module: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Put what was learnt into a module."""
    module.load_state_dict(weights, strict=False)
    learnt = {name for name, p in module.named_parameters() if p.requires_grad}
    assert learnt <= weights.keys(), f"not learnt: {sorted(learnt - weights.keys())[:3]}"


def _stored(settings: TrainingSettings) -> torch.dtype | None:
    return torch.bfloat16 if settings.precision == "bfloat16" else None


def _main() -> bool:
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def _wait() -> None:
    """For the process that writes the checkpoint."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
