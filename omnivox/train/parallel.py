"""One process or many: accelerate finds devices and processes; DDP, FSDP2 and DeepSpeed share the work out.

A step's state is kept in one folder, whole or not at all. Replicated weights go to one torch file; sharded ones to
torch's distributed checkpoint, which another number of processes can read.
"""

from __future__ import annotations

import math
import re
import shutil
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from omnivox.errors import ConfigError, DataError
from omnivox.train import zero
from omnivox.train.settings import TrainingSettings

_FOLDER = re.compile(r"step-(\d+)")


class Processes:
    """The processes of a run, and how they share it."""

    def __init__(self, settings: TrainingSettings, folder: Path) -> None:
        AcceleratorState._reset_state()  # another stage may have run in this process, with other settings
        bf16, cuda, self.deepspeed = settings.precision == "bfloat16", torch.cuda.is_available(), zero.launched()
        if self.deepspeed and settings.parallel not in ("auto", "deepspeed"):
            raise ConfigError(f"parallel: {settings.parallel!r}, but accelerate was launched with DeepSpeed; launch "
                              "without --use_deepspeed, or --set stage1.parallel=deepspeed")
        if settings.parallel == "deepspeed" and not self.deepspeed:
            raise ConfigError("parallel: 'deepspeed', but accelerate was launched without DeepSpeed; start it by "
                              "`accelerate launch --use_deepspeed`, with its configuration")
        plugin = zero.plugin_of(settings) if self.deepspeed else None
        gloo = [InitProcessGroupKwargs(backend="gloo")] if self.deepspeed and not cuda else []
        try:  # with cpu=True accelerate leaves DeepSpeed out
            self.accelerator = Accelerator(
                cpu=not cuda and not self.deepspeed, mixed_precision="bf16" if bf16 else "no", kwargs_handlers=gloo,
                deepspeed_plugin=plugin, log_with=list(settings.trackers) or None, project_dir=str(folder))
        except (ValueError, RuntimeError, ImportError) as error:
            raise ConfigError(f"accelerate: {error}") from error
        if self.deepspeed:
            unset_hf_deepspeed_config()  # it would share out every LLM that transformers reads from here on
        if self.accelerator.distributed_type.value == "FSDP":
            raise ConfigError("accelerate's configuration asks for FSDP; leave it out there and say "
                              "--set stage1.parallel=fsdp2: the layers are sharded here")
        self.sharded = settings.parallel == "fsdp2" and self.world > 1
        self._bf16 = bf16

    @property
    def world(self) -> int:
        """How many."""
        return int(self.accelerator.num_processes)

    @property
    def rank(self) -> int:
        """Which one this is."""
        return int(self.accelerator.process_index)

    @property
    def main(self) -> bool:
        """Whether this is the one that writes and shows."""
        return bool(self.accelerator.is_main_process)

    @property
    def device(self) -> torch.device:
        """Where this one computes."""
        device: torch.device = self.accelerator.device
        return device

    def prepare(self, module: nn.Module, blocks: Sequence[type[nn.Module]]) -> nn.Module:
        """The module, to be called instead of it, in the settings' precision; what learns is float32. DeepSpeed's comes
        with its optimiser. blocks: kinds of layers that FSDP2 gathers one at a time."""
        if self._bf16:
            module.forward = torch.autocast(self.device.type, torch.bfloat16)(module.forward)
        if self.deepspeed:
            return module
        if self.sharded:
            mesh = init_device_mesh(self.device.type, (self.world,))
            policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if self._bf16 else MixedPrecisionPolicy()
            layers = [layer for layer in module.modules() if isinstance(layer, tuple(blocks))]
            for part in (*layers, module):  # a part goes to the GPU, is shared out there, and leaves the CPU
                fully_shard(_float(part), mesh=mesh, mp_policy=policy)
            return module
        for value in module.parameters():
            if value.requires_grad:
                value.data = value.data.float()
        module.to(self.device)
        if self.world > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            return nn.parallel.DistributedDataParallel(module, device_ids=ids, gradient_as_bucket_view=True)
        return module

    def with_optimiser(self, module: nn.Module, optimiser: torch.optim.Optimizer
                       ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Both, as DeepSpeed wants them."""
        return zero.share_out(self.accelerator, module, optimiser) if self.deepspeed else (module, optimiser)

    def only_last(self, module: Any, last: bool) -> AbstractContextManager[Any]:
        """Gradients travel after a step's last micro-batch alone."""
        if self.deepspeed:
            module.set_gradient_accumulation_boundary(last)
        elif isinstance(module, FSDPModule):
            module.set_requires_gradient_sync(last)
        elif isinstance(module, nn.parallel.DistributedDataParallel) and not last:
            return module.no_sync()
        return nullcontext()

    def backward(self, module: Any, loss: Tensor) -> None:
        """Add to the gradients."""
        if self.deepspeed:
            module.backward(loss, scale_wrt_gas=False)
        else:
            loss.backward()

    def apply(self, module: Any, optimiser: torch.optim.Optimizer, clip: float) -> float:
        """One step of the optimiser on gradients clipped to a norm; gives the norm they had. Where that is no number
        nothing is applied."""
        if self.deepspeed:
            module.step()  # clips to what its configuration was given
            return float(module.get_global_grad_norm()) if module.was_step_applied() else math.nan
        learnt = [p for group in optimiser.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(learnt, clip)
        whole = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        if math.isfinite(whole):
            optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return whole

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes, in float64."""
        if self.world == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        found: list[float] = sums.tolist()
        return found

    def together(self, found: dict[str, str]) -> dict[str, str]:
        """What any process found."""
        if self.world == 1:
            return found
        all_found: list[Any] = [None] * self.world
        dist.all_gather_object(all_found, found)
        return {name: why for one in all_found for name, why in one.items()}

    def wait(self) -> None:
        """Until all are here."""
        self.accelerator.wait_for_everyone()


def _float(module: nn.Module) -> nn.Module:
    """In float32, except what is shared out already."""
    for value in module.parameters():
        if not isinstance(value, DTensor):
            value.data = value.data.float()
    return module


def whole_weights(module: nn.Module) -> dict[str, Tensor]:
    """What learns, complete and on the CPU of the first process, from wherever it is; every process must ask."""
    if zero.launched():
        return zero.whole_weights(module)
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    return {name: value for name, value in get_model_state_dict(module, options=options).items()
            if isinstance(value, Tensor)}


def latest(folder: Path) -> Path | None:
    """The newest complete state in a run's folder."""
    found = [path for path in folder.glob("step-*") if _FOLDER.fullmatch(path.name)]
    return max(found, key=lambda path: int(path.name[5:]), default=None)


def save_state(processes: Processes, folder: Path, module: nn.Module, optimiser: torch.optim.Optimizer, step: int
               ) -> None:
    """Keep the state of a step, then forget older ones. Every process must ask."""
    place, temporary = folder / f"step-{step:08}", folder / f".step-{step:08}"
    if place.exists():
        return
    if processes.main:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    processes.wait()
    failure: BaseException | None = None
    try:
        _write(processes, temporary, module, optimiser, step)
    except (OSError, RuntimeError, CheckpointException) as error:
        failure = error
    if processes.total([failure is not None])[0]:
        if processes.main:
            shutil.rmtree(temporary, ignore_errors=True)
        kept = latest(folder)
        why = str(failure or "by another process").splitlines()[0]
        raise OSError(f"{place}: cannot be written ({why}); {kept.name if kept else 'none'} is kept. Make room and "
                      "start the same command again") from failure
    if processes.main:
        temporary.rename(place)
        for older in folder.glob("step-*"):
            if older != place:
                shutil.rmtree(older, ignore_errors=True)
    processes.wait()


def _write(processes: Processes, place: Path, module: nn.Module, optimiser: torch.optim.Optimizer, step: int) -> None:
    if processes.deepspeed:
        zero.save(module, place)
    elif processes.sharded:
        save(_state(module, optimiser), checkpoint_id=place)
    elif processes.main:
        torch.save({**_state(module, optimiser), "step": step}, place / "state.pt")


def load_state(processes: Processes, place: Path, module: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Take up the state in `place`; gives its step. Raises DataError where it does not fit."""
    try:
        if (place / zero.TAG).exists() != processes.deepspeed:
            raise DataError(f"{place}: was written {'without' if processes.deepspeed else 'under'} DeepSpeed; go on "
                            "as it was begun, or remove the folder to start again")
        if processes.deepspeed:
            zero.load(module, place)
            return int(place.name[5:])
        if (place / "state.pt").exists():
            state = torch.load(place / "state.pt", map_location="cpu", weights_only=True)
            options = StateDictOptions(ignore_frozen_params=True, full_state_dict=processes.sharded)
        else:
            state = _state(module, optimiser)
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # one process alone is meant
                load(state, checkpoint_id=place, no_dist=processes.world == 1)
            options = StateDictOptions(ignore_frozen_params=True)
        _refuse_others(state["weights"], module, place)
        set_model_state_dict(module, state["weights"], options=_loose(options))
        set_optimizer_state_dict(module, optimiser, state["optimiser"], options=options)
    except (KeyError, RuntimeError, ValueError, OSError, CheckpointException) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{place}: cannot be gone on from ({str(error).splitlines()[0]}); "
                        "remove the folder to start again") from error
    return int(place.name[5:])


def _loose(options: StateDictOptions) -> StateDictOptions:
    return StateDictOptions(full_state_dict=options.full_state_dict, ignore_frozen_params=True, strict=False)


def _state(module: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    options = StateDictOptions(ignore_frozen_params=True)
    return {"weights": get_model_state_dict(module, options=options),
            "optimiser": get_optimizer_state_dict(module, optimiser, options=options)}


def _refuse_others(weights: dict[str, Any], module: nn.Module, place: Path) -> None:
    learnt = get_model_state_dict(module, options=StateDictOptions(ignore_frozen_params=True))
    wanted, found = ({name: tuple(value.shape) for name, value in tensors.items() if isinstance(value, Tensor)}
                     for tensors in (learnt, weights))
    if wrong := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
        raise DataError(f"{place}: does not fit the recipe: {wrong[0]} is {found.get(wrong[0], 'missing')}; expected "
                        f"{wanted.get(wrong[0], 'no such tensor')}. Remove the folder to start again")
