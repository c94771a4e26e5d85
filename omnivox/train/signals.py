"""SIGTERM and Ctrl-C, noted now and obeyed later: processes that learn together must end together, and an update of the
weights is whole or has not begun."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Self


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


def ignore_signals(_: int) -> None:
    """Processes that load data leave signals to the one that trains."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
