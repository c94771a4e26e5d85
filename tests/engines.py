"""Waiting: an engine that stands still while a test arranges what it is to find, and a test that waits for another
thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from omnivox.runtime.engine import Engine

WAIT = 60  # seconds until a test gives up


@contextmanager
def stalled(engine: Engine) -> Iterator[None]:
    """The engine stands still inside the block."""
    standing, go = threading.Event(), threading.Event()

    def stand() -> None:
        standing.set()
        go.wait(WAIT)

    engine.order(stand)
    try:
        assert standing.wait(WAIT)
        yield
    finally:
        go.set()


def until(true: Callable[[], bool]) -> None:
    """Wait for something that another thread will do."""
    pause = threading.Event()
    for _ in range(100 * WAIT):
        if true():
            return
        pause.wait(0.01)
    pytest.fail("it never came true")
