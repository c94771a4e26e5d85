"""The log: one JSON object a line, and nothing in it that was said, sounded or secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from omnivox.serve.logs import configure, event
from omnivox.serve.settings import ServeSettings


@contextmanager
def logging_to(stream: io.StringIO, **settings: Any) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Logging as configured; yields what reads the lines so far."""
    root = logging.getLogger()
    level = root.level
    handler = configure(ServeSettings(**settings), stream)
    try:
        yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def test_a_line_is_an_object_with_time_level_event_and_fields() -> None:
    with logging_to(io.StringIO()) as lines:
        event("session opened", session="sess_1", seconds=1.5, speaks=True, reason=None)
        event("slow reader", level=logging.WARNING, session="line\nbreak")
        first, second = lines()
    assert first.pop("time").endswith("+00:00")
    assert first == {"level": "info", "event": "session opened", "session": "sess_1", "seconds": 1.5, "speaks": True,
                     "reason": None}
    assert (second["level"], second["session"]) == ("warning", "line\nbreak")


@pytest.mark.parametrize("asked", [False, True])
def test_what_was_said_is_there_only_where_asked(asked: bool) -> None:
    stream = io.StringIO()
    with logging_to(stream, log_content=asked):
        event("response done", session="sess_1", content={"reply": "the moon"})
        event("item", text="the moon", transcript="the moon")
        event("failed", exc_info=ValueError("the moon cannot be read"))
    assert ("the moon" in stream.getvalue()) is asked


def test_keys_and_sound_are_never_there() -> None:
    stream = io.StringIO()
    with logging_to(stream, log_content=True):
        event("hello", api_key="alpha", authorization="Bearer alpha", subprotocol="x.alpha",
              content={"Authorization": "alpha"})
        event("sound", samples=torch.ones(3), block=np.ones(3), packet=b"\x01\x02", messages=["alpha"])
        event("long", audio="A" * 10_000)
        logging.getLogger("uvicorn.access").info('%s - "%s"', "127.0.0.1", "GET /v1/models?api_key=alpha HTTP/1.1")
    assert "alpha" not in stream.getvalue()
    assert "ones" not in stream.getvalue()
    assert '"samples": "Tensor"' in stream.getvalue()
    assert '"packet": "bytes"' in stream.getvalue()
    assert len(stream.getvalue()) < 2000


def test_an_error_is_told_by_class_and_place() -> None:
    with logging_to(io.StringIO()) as lines:
        try:
            raise RuntimeError("private")
        except RuntimeError as error:
            event("model failed", level=logging.ERROR, exc_info=error)
            logging.getLogger("omnivox.runtime.engine").exception("engine: a reply failed")
        ours, theirs = lines()
    assert ours["error"]["type"] == theirs["error"]["type"] == "RuntimeError"
    assert "test_logs.py" in ours["error"]["at"][-1]
    assert "message" not in ours["error"]
    assert theirs["event"] == "omnivox.runtime.engine"
    assert theirs["message"] == "engine: a reply failed"


def test_numbers_that_json_lacks_are_words() -> None:
    stream = io.StringIO()
    with logging_to(stream):
        event("odd", a=float("nan"), b=float("inf"))
    assert '"a": "nan", "b": "inf"' in stream.getvalue()


def test_configuring_twice_does_not_log_twice() -> None:
    with logging_to(io.StringIO()) as former, logging_to(io.StringIO()) as latter:
        event("once")
        assert len(former()) == 0
        assert len(latter()) == 1
