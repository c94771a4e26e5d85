"""DeepSpeed, as `accelerate launch --use_deepspeed` asks for it: ZeRO shares out weights, gradients and optimiser.

Its configuration says how they are shared out and where they lie. What is learnt, by which optimiser, how fast and in
which batches is the settings': of those the configuration says the same, "auto", or nothing.
"""

from __future__ import annotations

import logging
import os
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DeepSpeedPlugin
from torch import Tensor, nn

from omnivox.errors import ConfigError, DataError
from omnivox.train.settings import TrainingSettings

TAG = "zero"  # the folder, within that of a step


def launched() -> bool:
    """Whether accelerate was launched with DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def plugin_of(settings: TrainingSettings) -> Any:
    """accelerate's plugin, its configuration completed by the settings. Raises ConfigError where they disagree."""
    if find_spec("deepspeed") is None:
        raise ConfigError("accelerate was launched with DeepSpeed, which is not installed; pip install deepspeed, or "
                          "launch without --use_deepspeed")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed.c10d_logger")  # at each call
    try:
        plugin = DeepSpeedPlugin(zero3_init_flag=False)  # models are built whole, and shared out afterwards
    except (ValueError, OSError) as error:
        raise ConfigError(f"DeepSpeed's configuration: {error}") from error
    _refuse(plugin.deepspeed_config)
    _complete(plugin.deepspeed_config, settings)
    return plugin


def _refuse(config: dict[str, Any]) -> None:
    """What cannot be here, whatever the settings."""
    for name in ("optimizer", "scheduler"):
        if name in config:
            raise ConfigError(f"DeepSpeed's configuration: {name} is given; expected none: AdamW and its learning "
                              "rate follow the stage's settings")
    if (stage := config["zero_optimization"].get("stage")) not in (1, 2, 3):
        raise ConfigError(f"DeepSpeed's configuration: zero_optimization.stage is {stage}; expected 1, 2 or 3, or "
                          "parallel=ddp and no DeepSpeed, if nothing is to be shared out")
    for section, name in (("bf16", "check_grad_overflow"), ("zero_optimization", "compute_grad_norm")):
        if config.get(section, {}).get(name) is False:
            raise ConfigError(f"DeepSpeed's configuration: {section}.{name} is false; expected true: gradients are "
                              "clipped, and not applied where they are no numbers")


def _complete(config: dict[str, Any], settings: TrainingSettings) -> None:
    """Put the settings in, where the configuration does not say otherwise."""
    zero, bf16 = config["zero_optimization"], settings.precision == "bfloat16"
    for name in [name for name, value in zero.items() if value == "auto"]:
        del zero[name]  # what DeepSpeed does by itself
    micros = settings.batch // (settings.micro_batch * int(os.environ.get("WORLD_SIZE", "1")))
    if config.get("gradient_accumulation_steps") == 1:
        del config["gradient_accumulation_steps"]  # accelerate writes that where nothing is said
    for path, setting, value in (
            ("train_batch_size", "batch", settings.batch),
            ("train_micro_batch_size_per_gpu", "micro_batch", settings.micro_batch),
            ("gradient_accumulation_steps", "batch over micro_batch and processes", micros),
            ("gradient_clipping", "clip", settings.clip),
            ("bf16.enabled", "precision", bf16), ("fp16.enabled", "precision", False),
            ("torch_autocast.enabled", "precision", False)):
        *parents, name = path.split(".")
        part = config.setdefault(parents[0], {}) if parents else config
        if part.get(name, "auto") not in ("auto", value):
            raise ConfigError(f"DeepSpeed's configuration: {path} is {part[name]}, but {setting} makes it {value}; "
                              "write \"auto\" there, or change the setting")
        part[name] = value
    if bf16 and zero["stage"] > 1:
        config.setdefault("data_types", {}).setdefault("grad_accum_dtype", "fp32")


def share_out(accelerator: Accelerator, module: nn.Module, optimiser: torch.optim.Optimizer
              ) -> tuple[nn.Module, torch.optim.Optimizer]:
    """DeepSpeed's engine, to be called instead of the module, and its optimiser."""
    deepspeed, config = import_module("deepspeed"), accelerator.state.deepspeed_plugin.deepspeed_config
    for value in module.parameters():
        value.data = value.data.to(torch.bfloat16 if config["bf16"]["enabled"] else torch.float32)
    if config["zero_optimization"]["stage"] == 3:  # one parameter after the other: the module may be larger than a GPU
        deepspeed.zero.Init(module=module, config_dict_or_path=config)
        for buffer in module.buffers():
            buffer.data = buffer.data.to(accelerator.device)
    accelerator.gradient_accumulation_steps = config["gradient_accumulation_steps"]
    engine, _ = accelerator.prepare(module, optimiser)
    return engine, engine.optimizer


def whole_weights(engine: Any) -> dict[str, Tensor]:
    """What learns, in float32, on the CPU of the first process; every process must ask."""
    full, weights = import_module("deepspeed.utils").safe_get_full_fp32_param, dict[str, Tensor]()
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            value = full(parameter)
            if engine.global_rank == 0:
                weights[name] = value.cpu()
    return weights


def save(engine: Any, place: Path) -> None:
    """A state. Raises OSError where this process could not write its part; the others finish theirs."""
    write, failures = engine.checkpoint_engine.save, list[Exception]()

    def written(state_dict: Any, path: str) -> None:
        try:
            write(state_dict, path)
        except (OSError, RuntimeError) as error:
            Path(path).unlink(missing_ok=True)
            failures.append(error)

    engine.checkpoint_engine.save = written
    try:
        engine.save_checkpoint(str(place), tag=TAG, save_latest=False, exclude_frozen_parameters=True)
    finally:
        engine.checkpoint_engine.save = write
    if failures:
        raise OSError(str(failures[0])) from failures[0]


def load(engine: Any, place: Path) -> None:
    """Take up a state. Raises DataError where it does not fit. DeepSpeed unpickles it."""
    try:
        found, _ = engine.load_checkpoint(str(place), tag=TAG, load_module_strict=False)
    except Exception as error:  # of many kinds
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DataError(f"{place}: cannot be gone on from ({reason}); remove the folder to start again") from error
    if found is None:
        raise DataError(f"{place}: holds no state of DeepSpeed; remove the folder to start again")
