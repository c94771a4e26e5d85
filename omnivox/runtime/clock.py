"""A stopwatch that stands still while the caller is away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Clock:
    """Seconds since the question ended, without those that the caller takes between events."""

    def __init__(self) -> None:
        self.start = self.last = perf_counter()

    def now(self) -> float:
        return perf_counter() - self.start

    def lap(self) -> float:
        """Seconds since the last lap."""
        before, self.last = self.last, perf_counter()
        return self.last - before

    @contextmanager
    def paused(self) -> Iterator[None]:
        began = perf_counter()
        try:
            yield
        finally:
            away = perf_counter() - began
            self.start += away
            self.last += away
