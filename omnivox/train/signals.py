"""SIGTERM and Ctrl-C, noted now and obeyed later: processes that learn together must end together, and an update of the
weights is whole or has not begun."""

from __future__ import annotations

import atexit
import signal
import threading
import weakref
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self, TypeVar

from torch.utils.data import DataLoader

Batch = TypeVar("Batch")


class Signals:
    """name: of the signal that came, if one did. A second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.name: str | None = None

    def __enter__(self) -> Self:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt("SIGINT")
        self.name = signal.Signals(number).name


def batches_of(loader: DataLoader[Batch]) -> Iterator[Batch]:
    """Those of `loader`, whose processes heed `ignore_signals`, and which end with this one however it ends.

    An exception that nobody catches keeps the iterator until the very end, where multiprocessing asks its processes to
    end by a signal that they ignore, and waits for them.
    """
    batches: Iterator[Any] = iter(loader)
    atexit.register(_end, weakref.ref(batches))
    return batches


def _end(batches: weakref.ref[Any]) -> None:
    if (found := batches()) is not None and hasattr(found, "_shutdown_workers"):  # has no other name
        found._shutdown_workers()


def ignore_signals(_: int) -> None:
    """Processes that load data leave signals to the one that trains."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
