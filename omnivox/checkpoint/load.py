"""Any checkpoint by its name: the bundled model, a folder of ours, a published folder, a model on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from omnivox.checkpoint import layout, llama_omni
from omnivox.checkpoint.files import (
    BUILD_ERRORS,
    NoInit,
    check_new,
    fill,
    find_folder,
    first_line,
    new_folder,
    read_json,
    untied,
    write_tensors,
)
from omnivox.checkpoint.hifigan import load_hifigan
from omnivox.checkpoint.int8 import quantised
from omnivox.checkpoint.prompt import Prompt
from omnivox.errors import CheckpointError, ConfigError
from omnivox.model.config import OmniConfig
from omnivox.model.omni import SpokenLM
from omnivox.model.vocoder import Vocoder

NANO = Path(__file__).resolve().parent.parent / "nano" / "weights"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


@dataclass
class Loaded:
    """All that a checkpoint holds. The vocoder and the tokenizer are None where it holds none."""

    model: SpokenLM
    tokenizer: PreTrainedTokenizerBase | None
    vocoder: Vocoder | None
    prompt: Prompt

    @property
    def config(self) -> OmniConfig:
        """Sizes of the model."""
        return self.model.config


def load_checkpoint(name: str | Path, *, whisper: str | Path | None = None, vocoder: str | Path | None = None,
                    device: str | torch.device = "auto", dtype: str | torch.dtype = "auto") -> Loaded:
    """Load "nano" (bundled), a folder (ours or published), or a model of the hub ("owner/model").

    whisper: for a published checkpoint, the encoder's file or folder; default: as its config says, else its own.
    vocoder: a published unit vocoder (folder or file), instead of the checkpoint's own; default for published ones: a
    folder `vocoder` inside. device: auto, cpu, cuda, mps, or torch's. dtype: auto (float32 on a CPU, elsewhere the
    checkpoint's own), float32, bfloat16, float16, or torch's; vocoders are float32 always.
    Raises CheckpointError and ConfigError, naming the file, tensor or key, what was found, and what would be right.
    """
    place = pick_device(str(device))
    folder = find_model(name)
    described = read_json(folder / "config.json")
    numbers = pick_dtype(str(dtype).removeprefix("torch."), place, described)
    spoken: Vocoder | None
    if described.get("model_type") == layout.MODEL_TYPE:
        if whisper is not None:
            raise ConfigError(f"whisper: given, but {folder} holds its own encoder; leave it out")
        config, llm, prompt, tensors = layout.read_layout(folder)
        model = _build(config, llm, folder)
        fill(model, tensors, numbers)
        spoken = _own_vocoder(folder) if vocoder is None else load_hifigan(Path(vocoder))
    else:
        model, prompt = _published(folder, None if whisper is None else Path(whisper), numbers)
        inside = Path(vocoder) if vocoder is not None else folder / "vocoder"
        spoken = load_hifigan(inside) if vocoder is not None or inside.exists() else None
    _check_units(model, spoken, folder)
    return Loaded(model.to(place).eval().requires_grad_(False), _tokenizer(folder, model.llm.config),
                  None if spoken is None else spoken.to(place).eval().requires_grad_(False), prompt)


def find_model(name: str | Path) -> Path:
    """The folder of "nano", of a folder's own name, or of a model of the hub. Raises CheckpointError."""
    return _bundled() if name == "nano" else find_folder(name)


def save_pretrained(loaded: Loaded, folder: str | Path, *, stored: torch.dtype | None = None,
                    dtype: torch.dtype | None = None) -> None:
    """Write our layout into a new folder, whole or not at all.

    stored: type of the tensors in the files, floating-point or int8 (see `checkpoint/int8.py`); dtype: the one they are
    to be used in, by default the model's own. Raises CheckpointError if `folder` holds something already.
    """
    used = dtype or next(loaded.model.speech_decoder.parameters()).dtype
    with new_folder(Path(folder)) as temporary:
        layout.write_config(temporary, loaded.config, loaded.model.llm.config, loaded.vocoder, loaded.prompt, used)
        if stored == torch.int8:
            write_tensors(temporary, quantised(untied(loaded.model)))
            stored = torch.float16  # a vocoder is small, and its errors are heard
        else:
            write_tensors(temporary, untied(loaded.model), dtype=stored)
        if loaded.vocoder is not None:
            write_tensors(temporary, untied(loaded.vocoder), "vocoder", stored, shard_bytes=2**62)
        if loaded.tokenizer is not None:
            loaded.tokenizer.save_pretrained(temporary)


def convert(source: str | Path, destination: str | Path, *, whisper: str | Path | None = None,
            vocoder: str | Path | None = None, dtype: str = "auto") -> None:
    """Rewrite a checkpoint of any kind in our layout.

    dtype: of the weights written; auto: the checkpoint's own; int8: matrices in int8, to be used in its own.
    """
    check_new(Path(destination))  # before the long work, not after it
    stored = torch.int8 if dtype == "int8" else None
    if dtype in ("auto", "int8"):
        dtype = _declared(read_json(find_model(source) / "config.json"))
    loaded = load_checkpoint(source, whisper=whisper, vocoder=vocoder, device="cpu", dtype=dtype)
    save_pretrained(loaded, destination, stored=stored)


def pick_device(device: str) -> torch.device:
    """The device called auto, cpu, cuda or mps. Raises ConfigError: unknown, or not in this machine."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        device = "cuda" if there["cuda"] else "mps" if there["mps"] else "cpu"
    kind, _, index = device.partition(":")
    if kind not in there or (index and not index.isdigit()):
        raise ConfigError(f"device: found {device!r}; expected auto, {', '.join(there)}")
    if not there[kind] or (kind == "cuda" and index and int(index) >= torch.cuda.device_count()):
        usable = ", ".join(name for name, usable in there.items() if usable)
        raise ConfigError(f"device: {device!r} is not available to this torch; expected one of: auto, {usable}")
    return torch.device(device)


def pick_dtype(dtype: str, device: torch.device, config: dict[str, object]) -> torch.dtype:
    """The number format called auto, float32, bfloat16 or float16; auto: float32 on a CPU, else as `config` says."""
    if dtype == "auto":
        dtype = "float32" if device.type == "cpu" else _declared(config)
    if dtype not in DTYPES:
        raise ConfigError(f"dtype: found {dtype!r}; expected auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _declared(config: dict[str, object]) -> str:
    found = config.get("dtype") or config.get("torch_dtype")
    return str(found) if found in DTYPES else "float32"


def _bundled() -> Path:
    if not (NANO / "config.json").exists():
        raise CheckpointError(f"nano: its weights are not at {NANO}; reinstall omnivox, or train them with `make nano`")
    return NANO


def _published(folder: Path, whisper: Path | None, dtype: torch.dtype) -> tuple[SpokenLM, Prompt]:
    config, llm, prompt, tensors, encoder = llama_omni.load_llama_omni(folder, whisper)
    model = _build(config, llm, folder)
    fill(model, tensors, dtype, skip="encoder.")
    fill(model.encoder, encoder, dtype)
    return model, prompt


def _build(config: OmniConfig, llm: PretrainedConfig, folder: Path) -> SpokenLM:
    """A model of the right size whose weights are yet to be read."""
    path = folder / "config.json"
    with NoInit():
        try:
            backbone = AutoModelForCausalLM.from_config(llm, dtype=torch.float32)
        except Exception as error:  # whatever transformers makes of sizes that do not fit together
            raise ConfigError(f"{path}: llm: no {llm.model_type} can be built ({first_line(error)})") from error
        try:
            return SpokenLM(config, backbone)
        except BUILD_ERRORS as error:
            raise ConfigError(f"{path}: {first_line(error)}") from error


def _own_vocoder(folder: Path) -> Vocoder | None:
    with NoInit():
        found = layout.read_vocoder(folder)
    if found is None:
        return None
    vocoder, tensors = found
    fill(vocoder, tensors, torch.float32)
    return vocoder


def _check_units(model: SpokenLM, vocoder: Vocoder | None, folder: Path) -> None:
    units = model.config.speech_decoder.units
    if vocoder is not None and vocoder.units != units:
        raise CheckpointError(f"{folder}: its speech decoder gives {units} units, its vocoder knows {vocoder.units}; "
                              "expected a vocoder trained on the same units")


def _tokenizer(folder: Path, llm: PretrainedConfig) -> PreTrainedTokenizerBase | None:
    if not any((folder / name).exists() for name in _TOKENIZER_FILES):
        return None
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, config=llm)
    except Exception as error:  # transformers, tokenizers and sentencepiece each raise their own
        raise CheckpointError(f"{folder}: its tokenizer cannot be read ({type(error).__name__}: "
                              f"{str(error).splitlines()[0] if str(error) else 'no reason given'})") from error
    return tokenizer
