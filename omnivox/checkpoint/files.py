"""Tensors in files, safely: safetensors in one file or in shards, torch files without executing what they hold, folders
that appear whole or not at all, and the hub."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from omnivox.errors import CheckpointError

SHARD_BYTES = 4 * 10**9  # a shard is at most about this large
INDEX = ".index.json"
BUILD_ERRORS = (ValueError, TypeError, KeyError, RuntimeError, ArithmeticError, AttributeError, IndexError)
"""What building a module from sizes that make no sense brings about."""
_WHOLE = ("model.safetensors", "pytorch_model.bin")  # names of weights in a folder, the better first


class Tensors(Mapping[str, Tensor]):
    """Named tensors, each read from its file when it is asked for.

    source: the file or folder; original: the name that a tensor has, or should have, there. Both are for errors.
    """

    def __init__(self, source: str, readers: Mapping[str, Callable[[], Tensor]],
                 original: Callable[[str], str] = str) -> None:
        self.source, self._readers, self.original = source, dict(readers), original

    def __getitem__(self, name: str) -> Tensor:
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)

    def renamed(self, rename: Callable[[str], str | None], back: Callable[[str], str]) -> Self:
        """The same under other names; those renamed to None are left out. back: the map the other way."""
        names = ((rename(name), reader) for name, reader in self._readers.items())
        return type(self)(self.source, {name: reader for name, reader in names if name is not None},
                          lambda name: self.original(back(name)))

    def under(self, prefix: str) -> Self:
        """Those whose names begin with `prefix`, without it."""
        return self.renamed(lambda name: name.removeprefix(prefix) if name.startswith(prefix) else None,
                            lambda name: prefix + name)

    def outside(self, prefix: str) -> Self:
        """The others."""
        return self.renamed(lambda name: None if name.startswith(prefix) else name, str)

    def required(self, name: str) -> Tensor:
        """A tensor that must be there. Raises CheckpointError."""
        if name not in self:
            raise CheckpointError(f"{self.source}: tensor {self.original(name)!r} is missing")
        return read(self, name)


def read(tensors: Tensors, name: str) -> Tensor:
    """One tensor. Raises CheckpointError where the file cannot give it."""
    try:
        return tensors[name]
    except (SafetensorError, RuntimeError, OSError) as error:
        raise CheckpointError(f"{tensors.source}: tensor {tensors.original(name)!r} cannot be read "
                              f"({first_line(error)})") from error


# -- reading ----------------------------------------------------------------------------------------------------------


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError: no such file, no JSON, no object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not JSON that can be read ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds a {type(values).__name__}; expected an object")
    return values


def open_tensors(path: Path) -> Tensors:
    """The tensors of a file, or of a folder's weights: model.safetensors or pytorch_model.bin, whole or in shards."""
    if not path.is_dir():
        return Tensors(str(path), _open_file(path))
    for name in _WHOLE:
        if (path / f"{name}{INDEX}").exists():
            return _open_shards(path / f"{name}{INDEX}")
        if (path / name).exists():
            return Tensors(str(path / name), _open_file(path / name))
    raise CheckpointError(f"{path}: holds no weights; expected {' or '.join(_WHOLE)}, whole or in shards")


def _open_shards(index: Path) -> Tensors:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
        raise CheckpointError(f"{index}: has no 'weight_map'; expected the file of each tensor")
    files: dict[str, dict[str, Callable[[], Tensor]]] = {}
    for place in sorted(set(places.values())):
        if Path(place).name != place:
            raise CheckpointError(f"{index}: names the file {place!r}; expected one in the same folder")
        files[place] = _open_file(index.with_name(place))
    for name, place in places.items():
        if name not in files[place]:
            raise CheckpointError(f"{index.with_name(place)}: tensor {name!r} is missing; "
                                  f"{index.name} says it is there")
    return Tensors(str(index.parent), {name: files[place][name] for name, place in places.items()})


def _open_file(path: Path) -> dict[str, Callable[[], Tensor]]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected weights")
    if path.suffix == ".safetensors":
        try:
            file = safe_open(path, "pt")
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: not a safetensors file, or cut short ({first_line(error)})") from error
        return {name: partial(file.get_tensor, name) for name in file.keys()}  # noqa: SIM118
    values = read_torch(path)
    return _readers({name: value for name, value in values.items()
                     if isinstance(name, str) and isinstance(value, Tensor)})


def _readers(tensors: Mapping[str, Tensor]) -> dict[str, Callable[[], Tensor]]:
    return {name: partial(_itself, tensor) for name, tensor in tensors.items()}


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def tensors_of(values: Mapping[str, Tensor], source: str) -> Tensors:
    """Tensors that are in memory already."""
    return Tensors(source, _readers(values))


def read_torch(path: Path) -> dict[str, Any]:
    """What a torch file (.pt, .bin) holds, a dict of plain values and tensors. Nothing in it is ever executed."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected weights")
    try:
        values = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: holds something else than tensors, or is damaged; "
                              "it was not executed") from error
    except Exception as error:  # whatever a damaged file brings about in torch's reader
        raise CheckpointError(f"{path}: no torch file, or one that is cut short or damaged ({first_line(error)})") \
            from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds a {type(values).__name__}; expected a dict of tensors")
    return values


def first_line(error: Exception) -> str:
    """What an error of a library says, without what follows."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    told = " ".join(lines[:2]) if lines and lines[0].endswith(":") else next(iter(lines), "")
    return told or type(error).__name__


# -- into modules -----------------------------------------------------------------------------------------------------


class NoInit(TorchFunctionMode):
    """Modules made inside this context keep their memory as it is: their weights are about to be read from a file."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def fill(module: nn.Module, tensors: Tensors, dtype: torch.dtype, skip: str | None = None) -> None:
    """Give `module` its parameters, in `dtype`, and its buffers, in their own. Tied parameters need one of their names.

    skip: the beginning of names that are filled from elsewhere.
    Raises CheckpointError naming the tensors that are missing, left over, or of another shape than the config says.
    """
    wanted = {name: value for name, value in module.state_dict(keep_vars=True).items()
              if skip is None or not name.startswith(skip)}
    found = {id(wanted[name]) for name in tensors if name in wanted}
    _refuse(tensors, "missing", [name for name, value in wanted.items() if id(value) not in found])
    _refuse(tensors, "there, with no place in the model that the config describes",
            [name for name in tensors if name not in wanted])
    for name in tensors:
        target, tensor = wanted[name], read(tensors, name)
        if tensor.shape != target.shape:
            raise CheckpointError(f"{tensors.source}: tensor {tensors.original(name)!r} is {list(tensor.shape)}; "
                                  f"expected {list(target.shape)} by the config")
        if target.is_floating_point() and not tensor.is_floating_point():
            raise CheckpointError(f"{tensors.source}: tensor {tensors.original(name)!r} is "
                                  f"{str(tensor.dtype).removeprefix('torch.')}; expected floats: quantised weights "
                                  "are not read")
        target.data = tensor.to(dtype if isinstance(target, nn.Parameter) else target.dtype).contiguous()


def _refuse(tensors: Tensors, what: str, names: list[str]) -> None:
    if names:
        shown = ", ".join(repr(tensors.original(name)) for name in sorted(names)[:3])
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise CheckpointError(f"{tensors.source}: tensor{'s' * (len(names) > 1)} {shown}{more} "
                              f"{'are' if len(names) > 1 else 'is'} {what}")


# -- writing ----------------------------------------------------------------------------------------------------------


def untied(module: nn.Module) -> dict[str, Tensor]:
    """The tensors to be saved, those shared by several names once."""
    unique: dict[int, str] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        unique.setdefault(id(value), name)
    tensors = module.state_dict()
    return {name: tensors[name] for name in unique.values()}


def write_tensors(folder: Path, tensors: Mapping[str, Tensor], name: str = "model",
                  dtype: torch.dtype | None = None, shard_bytes: int = SHARD_BYTES) -> None:
    """Write `name`.safetensors, or shards of it with an index. dtype: of floating-point tensors in the file.

    Raises OSError naming the file.
    """
    shards: list[dict[str, Tensor]] = [{}]
    sizes = [0]
    for key, value in tensors.items():
        size = value.numel() * (dtype.itemsize if dtype and value.is_floating_point() else value.element_size())
        if shards[-1] and sizes[-1] + size > shard_bytes:
            shards.append({})
            sizes.append(0)
        shards[-1][key] = value
        sizes[-1] += size
    files = [f"{name}-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    files = files if len(shards) > 1 else [f"{name}.safetensors"]
    for file, shard in zip(files, shards, strict=True):
        try:
            save_file({key: _stored(value, dtype) for key, value in shard.items()}, folder / file, {"format": "pt"})
        except SafetensorError as error:  # a full disk, in its own words
            raise OSError(f"{folder / file}: cannot be written ({first_line(error)})") from error
        (folder / file).chmod(0o666 & ~_umask())  # safetensors writes for the owner alone
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes)},
                 "weight_map": {key: file for file, shard in zip(files, shards, strict=True) for key in shard}}
        (folder / f"{name}.safetensors{INDEX}").write_text(json.dumps(index, indent=1))


def _stored(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    value = value.detach().to("cpu", dtype if value.is_floating_point() else None)
    return value.contiguous()


def check_new(path: Path) -> None:
    """Raises CheckpointError if `path` is there already and not an empty folder."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise CheckpointError(f"{path}: exists and is not an empty folder; name a new one")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, renamed to it when the block ends well and removed when it does not.

    An empty folder is filled instead, config.json last: somebody may stand in it, or it may be a link or a mount.
    Raises CheckpointError if `path` is there already and not an empty folder.
    """
    check_new(path)
    there = path.is_dir()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path if there else path.parent))
    try:
        yield temporary
        if there:
            for made in sorted(temporary.iterdir(), key=lambda made: made.name == "config.json"):
                made.replace(path / made.name)
        else:
            temporary.chmod(0o777 & ~_umask())
            temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# -- the hub ----------------------------------------------------------------------------------------------------------


def find_folder(name: str | Path) -> Path:
    """The folder called `name`, or the files of the hub's model of that name (owner/model). Raises CheckpointError."""
    path = Path(name)
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{path}: is a file; expected a checkpoint's folder")
    if isinstance(name, Path) or len(path.parts) != 2 or name.startswith((".", "~", "/")):
        raise CheckpointError(f"{name}: no such folder; expected 'nano', a folder, or a name on the hub (owner/model)")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, ignore_patterns=["*.py", "*.msgpack", "*.h5", "*.onnx", "original/*"]))
    except Exception as error:  # whatever its client raises: offline, no such model, no permission
        _no_hub(name, error)


def _no_hub(name: str, error: Exception) -> NoReturn:
    raise CheckpointError(f"{name}: no such folder, and the hub did not give a model of that name "
                          f"({type(error).__name__}: {first_line(error)}); check the name, the network and "
                          "`hf auth login`, or download it and give its folder") from error
