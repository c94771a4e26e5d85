"""Records out of files: JSON arrays of any size, JSON lines, Parquet, folders of these, and `datasets`.

Each comes with its place (a file and the number of its record, or a line), one after another, never all in memory.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnivox.data.records import halved
from omnivox.errors import ConfigError, DataError

CHUNK = 1 << 20
LINES = frozenset({".jsonl", ".ndjson"})
KNOWN = LINES | {".json", ".parquet"}
HALF = re.compile(r"\\u[dD][89a-fA-F]")  # of a character that JSON writes as two
DEEP = "nested too deeply"


@dataclass(frozen=True)
class Broken:
    """What stands where a record should be, and why it is none."""

    text: str
    why: str


Record = dict[str, Any] | Broken


def read_records(name: str, split: str = "train", config: str | None = None) -> Iterator[tuple[str, Record]]:
    """(place, record) of a file, a folder, or a data set by its name on the hub; `split` and `config` are the latter's.

    Raises DataError: there is no such thing, or it cannot be read at all.
    """
    path = Path(name)
    if path.is_file():
        yield from _file(path, path.name)
    elif path.is_dir():
        yield from _folder(path, split)
    elif path.suffix in KNOWN or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise DataError(f"{name}: no such file or folder, and no name of a data set (owner/name)")
    else:
        yield from _hub(name, split, config)


def fingerprint(name: str) -> str:
    """Of what a local source holds: sizes, each file's first and last megabyte. The name itself, for the hub's."""
    path = Path(name)
    if not path.exists():
        return name
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    found = hashlib.sha256()
    for one in files:
        size = one.stat().st_size
        with one.open("rb") as file:
            found.update(f"{one.relative_to(path) if one != path else ''} {size}\n".encode(errors="surrogateescape"))
            found.update(file.read(CHUNK))
            if size > 2 * CHUNK:
                file.seek(-CHUNK, 2)
                found.update(file.read(CHUNK))
            else:
                found.update(file.read())
    return found.hexdigest()[:32]


def _file(path: Path, shown: str) -> Iterator[tuple[str, Record]]:
    kind = path.suffix.lower()
    if kind == ".parquet":
        records = _parquet(path)
    elif kind in LINES or (kind == ".json" and not _is_array(path)):
        records = _lines(path)
    elif kind == ".json":
        records = _array(path)
    else:
        raise DataError(f"{path}: found a {kind or 'nameless'} file; expected one of {', '.join(sorted(KNOWN))}")
    for number, record in enumerate(records, 1):
        yield f"{shown}:{number}", record


def _folder(path: Path, split: str) -> Iterator[tuple[str, Record]]:
    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        yield from _saved(path, split)
        return
    files = sorted(one for one in path.rglob("*") if one.suffix.lower() in KNOWN and one.name != "dataset_infos.json")
    if not files:
        raise DataError(f"{path}: holds no {', '.join(sorted(KNOWN))} file, and no data set saved by `datasets`")
    for one in files:
        yield from _file(one, str(one.relative_to(path)))


# -- kinds of files ---------------------------------------------------------------------------------------------------

def _is_array(path: Path) -> bool:
    """Some .json files hold lines."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        start = file.read(4096).lstrip()
    return start.startswith("[")


def _lines(path: Path) -> Iterator[Record]:
    """Numbered as an editor numbers them."""
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                yield _record(line)
            else:
                yield Broken("", "empty line")


def _record(line: bytes) -> Record:
    text = line.decode("utf-8-sig", errors="replace").strip()
    try:
        line.decode("utf-8-sig")
        return _object(json.loads(text), text)
    except UnicodeDecodeError as error:
        return Broken(text, f"not UTF-8 ({error.reason} at byte {error.start})")
    except ValueError as error:
        return Broken(text, f"not JSON ({error})")
    except RecursionError:
        return Broken(text, DEEP)


def _object(found: Any, text: str) -> Record:
    """The record that JSON's `text` gave, if it is one that can be written again."""
    if not isinstance(found, dict):
        return Broken(text, f"found a JSON {type(found).__name__}, not an object")
    if HALF.search(text) and halved(found):
        return Broken(text, "holds half a character, which cannot be written")
    return found


def _array(path: Path) -> Iterator[Record]:
    """The elements of a JSON array, decoded one at a time: published files have gigabytes.

    Raises DataError where the array is cut, broken or nested too deeply: what follows cannot be found.
    """
    decoder, text, start, number, ended = json.JSONDecoder(), "", 1, 0, False
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        text = file.read(CHUNK).lstrip()
        while True:
            while start < len(text) and text[start] in " \t\r\n,":
                start += 1
            if text[start:start + 1] == "]":
                return
            try:
                found, end = decoder.raw_decode(text, start)
                if end == len(text) and not ended:  # a number may go on in the next piece
                    raise ValueError("piece ends")
                record = _object(found, text[start:end])
            except ValueError as error:
                more = file.read(max(CHUNK, len(text)))
                if not more:
                    if ended or start >= len(text):
                        raise DataError(f"{path}: the array ends inside or after record {number} ({error}); expected "
                                        "a whole JSON file") from error
                    ended = True
                text, start = text[start:] + more, 0
                continue
            except RecursionError as error:
                raise DataError(f"{path}: record {number + 1} is {DEEP}; expected an object of texts") from error
            text, start, number = text[end:] if end > CHUNK else text, 0 if end > CHUNK else end, number + 1
            yield record


def _parquet(path: Path) -> Iterator[Record]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(_missing("pyarrow", error)) from error
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                yield from _listed(batch)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: no Parquet file that can be read ({error})") from error


def _listed(batch: Any) -> Iterator[Record]:
    """The rows of a batch; one by one where some value, such as bytes that are no text, cannot be had."""
    try:
        yield from batch.to_pylist()
        return
    except (ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            yield Broken("", f"holds what is no value of its column ({error})")
            return
    for place in range(batch.num_rows):
        yield from _listed(batch.slice(place, 1))


# -- datasets ---------------------------------------------------------------------------------------------------------

def _saved(path: Path, split: str) -> Iterator[tuple[str, Record]]:
    datasets = _datasets()
    found = datasets.load_from_disk(str(path))
    if hasattr(found, "keys"):
        if split not in found:
            raise DataError(f"{path}: has no split {split!r}; expected one of {', '.join(found)}")
        found = found[split]
    yield from ((f"{path.name}:{number}", record) for number, record in enumerate(_written(found, datasets), 1))


def _hub(name: str, split: str, config: str | None) -> Iterator[tuple[str, Record]]:
    datasets, number = _datasets(), 0
    try:
        found = datasets.load_dataset(name, config, split=split, streaming=True)
        for number, record in enumerate(_written(found, datasets), 1):
            yield f"{name}:{number}", record
    except Exception as error:  # the library raises a dozen kinds, at its first record too
        what = f"cannot be read after record {number}" if number else \
            "no local file or folder, and no data set that can be loaded"
        raise DataError(f"{name}: {what} ({error})") from error


def _written(found: Any, datasets: Any) -> Any:
    """The data set without its sounds and pictures, which would have to be decoded: only text is wanted of it."""
    media = [name for name, feature in (found.features or {}).items()
             if isinstance(feature, datasets.Audio | datasets.Image)]
    if not media:
        return found
    if hasattr(found, "decode"):  # of one that is streamed, columns are decoded before they are removed
        found = found.decode(False)
    return found.remove_columns(media)


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(_missing("datasets", error)) from error
    return datasets


def _missing(package: str, error: ImportError) -> str:
    return f"{package}: a Python package is missing ({error}); install it with: pip install 'omnivox[data]'"
