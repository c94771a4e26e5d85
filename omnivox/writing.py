"""Files written whole or not at all, and folders written by one process at a time."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from omnivox.errors import DataError


@contextmanager
def alone(folder: Path, doing: str) -> Iterator[None]:
    """Nobody else works in the folder inside the block: two would undo, or do again, each other's work.

    doing: what others would be told, such as "training". Raises DataError where another process is at it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            yield
    except Timeout as error:
        raise DataError(f"{folder}: another process is {doing} here; wait for it or end it") from error


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not.

    A link is followed, and a file keeps its mode. What is there and no file, such as a device or a pipe, is written to
    as it is. An OSError that names no file, such as that of a full disk, names `path`.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            yield path
        else:
            with _beside(Path(os.path.realpath(path))) as temporary:
                yield temporary
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    mode = path.stat().st_mode & 0o777 if path.exists() else None
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
    # The system takes the umask off; asking for the umask would change it for other threads.
    handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if mode is None else 0o600)
    mode = os.fstat(handle).st_mode & 0o777 if mode is None else mode
    os.close(handle)
    try:
        yield temporary
        temporary.chmod(mode)  # whoever wrote it may have made another file of that name
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
