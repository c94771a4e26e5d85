"""omnivox: speak, and be answered in text and speech at the same time.

    omni = omnivox.load("nano")
    for event in omni.respond("question.wav"):
        match event:
            case omnivox.Text(delta): ...
            case omnivox.Audio(samples): ...  # float32 [n], omni.sample_rate
            case omnivox.Done(reply): ...  # text, units, audio, timings
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from omnivox.errors import AudioError, CheckpointError, ConfigError, DataError, OmnivoxError

if TYPE_CHECKING:
    import torch

    from omnivox.runtime.client import Client
    from omnivox.runtime.events import Audio, Done, Reply, Text
    from omnivox.runtime.respond import Omni

__all__ = ["Audio", "AudioError", "CheckpointError", "Client", "ConfigError", "DataError", "Done", "Omni",
           "OmnivoxError", "Reply", "Text", "load"]

_HOMES = {"Audio": "events", "Client": "client", "Done": "events", "Omni": "respond", "Reply": "events",
          "Text": "events"}


def load(name: str | Path = "nano", *, device: str | torch.device = "auto", dtype: str | torch.dtype = "auto",
         whisper: str | Path | None = None, vocoder: str | Path | None = None) -> Omni:
    """The model of that name, ready to answer.

    name: "nano" (bundled), a folder of ours, or a published LLaMA-Omni folder or hub name; the last needs `whisper`
    (an openai `.pt` file or a Hugging Face folder) and `vocoder` (a folder with the unit vocoder and its config.json).
    device: auto, cpu, cuda, mps, or torch's. dtype: auto, float32, bfloat16, float16, or torch's.
    Raises CheckpointError, ConfigError.
    """
    from omnivox.checkpoint import load_checkpoint
    from omnivox.runtime.respond import Omni

    return Omni.from_checkpoint(load_checkpoint(name, device=device, dtype=dtype, whisper=whisper, vocoder=vocoder))


def __getattr__(name: str) -> object:
    """What needs torch is imported when it is first asked for, so that `import omnivox` is quick."""
    if name in _HOMES:
        return getattr(import_module(f"omnivox.runtime.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'omnivox' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
