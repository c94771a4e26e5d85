"""Foreign pickles, read without executing them.

Every class and function that a pickle names becomes an `Inert` object, which only remembers how it was called; what
is wanted is then found among these. A pickle that names anything outside the libraries it should come from is refused.

Two kinds are read: torch files whose settings are objects (fairseq's checkpoints), for their tensors; and scikit-learn
models as joblib or pickle write them (k-means), for their arrays.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import pickle
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch
from torch._utils import _rebuild_parameter, _rebuild_tensor_v2

from omnivox.errors import CheckpointError

_PLAIN = {"dict", "list", "set", "frozenset", "tuple", "object", "int", "float", "complex", "bool", "str", "bytes",
          "bytearray", "slice", "range", "getattr"}  # of builtins; inert like all else
FAIRSEQ = frozenset({"argparse", "collections", "enum", "examples", "fairseq", "hydra", "numpy", "omegaconf", "pathlib",
                     "torch", "typing"})
SKLEARN = frozenset({"collections", "joblib", "numpy", "scipy", "sklearn"})
_BUILTINS = ("builtins", "__builtin__", "copyreg", "copy_reg", "_codecs")
_NUMBERS = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}
_MAX_NUMBERS = 2**31  # in one array


class Refused(pickle.UnpicklingError):
    """A pickle names what it has no business to."""


class Inert:
    """Something that a pickle wanted made: what of (`name`), how (`args`), and filled with what (`state`)."""

    name = ""

    def __init__(self, *args: Any, **_: Any) -> None:
        self.args, self.state = args, None

    def __new__(cls, *args: Any, **_: Any) -> Inert:
        made = super().__new__(cls)
        made.args, made.state = args, None
        return made

    def __call__(self, *args: Any, **_: Any) -> Inert:
        return Inert(*args)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, item: Any) -> None:
        """An item of a list that is not one."""

    def extend(self, items: Any) -> None:
        """Items of it."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """An entry of a dict that is not one."""


def _inert(module: str, name: str, allowed: Collection[str]) -> type[Inert]:
    """A class of its own that stands for `module.name`. Raises Refused."""
    known = module in _BUILTINS and (not module.endswith(("builtins", "builtin__")) or name in _PLAIN)
    if not known and module.split(".")[0] not in allowed:
        raise Refused(f"names {module}.{name}")
    return type("Inert", (Inert,), {"name": f"{module}.{name}"})


# -- torch files ------------------------------------------------------------------------------------------------------


class _Sealed:
    """A function that a pickle may call and not change."""

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", function)

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise Refused(f"sets {name} of a function")


_TORCH = {("collections", "OrderedDict"): OrderedDict,
          ("torch._utils", "_rebuild_tensor_v2"): _Sealed(_rebuild_tensor_v2),
          ("torch._utils", "_rebuild_parameter"): _Sealed(_rebuild_parameter)}


class _TorchUnpickler(pickle.Unpickler):
    """Tensors are made; torch itself wraps this for their storages."""

    def find_class(self, module: str, name: str) -> Any:
        return _TORCH.get((module, name)) or _inert(module, name, FAIRSEQ)


def read_fairseq(path: Path) -> dict[str, Any]:
    """A torch file (.pt) whose tensors are real and whose other objects are `Inert`. Raises CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected fairseq's checkpoint")
    reader = SimpleNamespace(__name__="inert", Unpickler=_TorchUnpickler,
                             load=lambda file, **kwargs: _TorchUnpickler(file, **kwargs).load())
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(name.endswith("constants.pkl") for name in archive.namelist()):  # torch would run it
                    raise Refused("is a TorchScript program")
        values = torch.load(path, map_location="cpu", pickle_module=reader, weights_only=False)
    except Refused as error:
        raise _refusal(path, error) from error
    except Exception as error:  # whatever a damaged pickle brings about in torch's reader
        raise _damaged(path, error) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds a {type(values).__name__}; expected fairseq's dict with 'model'")
    return values


def _refusal(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path}: {error}, which no such file needs; nothing in it was executed; "
                           "get the file from its publisher again")


def _damaged(path: Path, error: Exception) -> CheckpointError:
    first = next(iter(str(error).splitlines()), "no reason given")
    return CheckpointError(f"{path}: cannot be read, or is cut short ({type(error).__name__}: {first}); "
                           "nothing in it was executed")


# -- scikit-learn models ----------------------------------------------------------------------------------------------


_InPython: Any = pickle._Unpickler


class _ArrayUnpickler(_InPython):  # type: ignore[misc]
    """The one in Python, for arrays lie between opcodes. Everything is inert; where joblib's wrapper is filled, the
    array that follows in the file takes its place."""

    dispatch: ClassVar[dict[int, Any]] = dict(_InPython.dispatch)

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.file = file

    def find_class(self, module: str, name: str) -> Any:
        return _inert(module, name, SKLEARN)

    def build(self) -> None:
        super().load_build()
        made = self.stack[-1]
        if isinstance(made, Inert) and made.name.endswith(".NumpyArrayWrapper"):
            self.stack[-1] = _joblib_array(made.state, self._bytes)

    def _bytes(self, count: int) -> bytes:
        data: bytes = self.read(count)  # through the unpickler, which reads ahead within its frames
        if len(data) != count:
            raise EOFError(f"an array of {count:,} bytes ends after {len(data):,}")
        return data

    dispatch[pickle.BUILD[0]] = build


def _joblib_array(state: Any, take: Callable[[int], bytes]) -> np.ndarray:
    """The array that a wrapper describes: padding, whose length is its first byte, then the numbers."""
    dtype, shape = _dtype(state["dtype"]), tuple(state["shape"])
    count = _count(shape)
    if state.get("numpy_array_alignment_bytes") is not None:
        take(take(1)[0])
    flat = np.frombuffer(take(count * dtype.itemsize), dtype)
    return flat.reshape(shape[::-1]).T if state.get("order") == "F" else flat.reshape(shape)


def _count(shape: tuple[Any, ...]) -> int:
    if not all(isinstance(size, int) and size >= 0 for size in shape) or math.prod(shape) > _MAX_NUMBERS:
        raise Refused(f"holds an array of shape {shape}")
    return math.prod(shape)


def _dtype(found: Any) -> np.dtype[Any]:
    """A dtype of plain numbers."""
    code = found.args[0] if isinstance(found, Inert) and found.args else found
    if code not in _NUMBERS:
        raise Refused(f"holds an array of {code!r}")
    order = found.state[1] if isinstance(found.state, tuple) and found.state[1] in ("<", ">") else "="
    dtype: np.dtype[Any] = np.dtype(code).newbyteorder(order)
    return dtype


def _array(found: Any) -> np.ndarray | None:
    """The array that an object of a pickle is or describes, None where it is none."""
    if isinstance(found, np.ndarray):
        return found
    if not isinstance(found, Inert):
        return None
    if found.name.endswith("._frombuffer"):  # protocol 5
        data, dtype, shape, order = found.args
    elif found.name.endswith("._reconstruct") and isinstance(found.state, tuple):
        _, shape, dtype, fortran, data = found.state
        data = data.args[0].encode("latin1") if isinstance(data, Inert) else data  # protocol 2 writes bytes as text
        order = "F" if fortran else "C"
    else:
        return None
    _count(tuple(shape))
    return np.frombuffer(data, _dtype(dtype)).reshape(shape, order=order)


def read_array(path: Path, field: str) -> np.ndarray | None:
    """An array that a model written by joblib or pickle has in `field`, None where it has none. Raises CheckpointError:
    the file is damaged or hostile."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected a model of scikit-learn's")
    try:
        with _opened(path) as file:
            model = _ArrayUnpickler(file).load()
        state = model.state if isinstance(model, Inert) else model
        return _array(state.get(field)) if isinstance(state, dict) else None
    except Refused as error:
        raise _refusal(path, error) from error
    except Exception as error:  # a damaged pickle may ask anything of anything
        raise _damaged(path, error) from error


def _opened(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked where joblib packed them."""
    with path.open("rb") as file:
        head = file.read(6)
    packed: dict[bytes, Callable[[Path], Any]] = {
        b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7zXZ": lzma.open, b"\x5d\x00": lzma.open,
        b"\x78": lambda path: io.BytesIO(zlib.decompress(path.read_bytes()))}
    for magic, unpack in packed.items():
        if head.startswith(magic):
            opened: BinaryIO = unpack(path)
            return opened
    return path.open("rb")
