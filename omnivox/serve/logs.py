"""One JSON object a line: time, level, event and its fields. Never sound, never a key; what was said only where asked.

    from omnivox.serve.logs import event
    event("response done", session="sess_1", status="completed", content={"text": "Hello."})

`content` is left out unless `configure` was given settings with `log_content`.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO

from omnivox.serve.settings import ServeSettings

log = logging.getLogger("omnivox.serve")
LONGEST = 300  # characters of a field
_SAID = {"arguments", "delta", "instructions", "message", "messages", "prompt", "text", "transcript"}
_SECRET = re.compile(r"authorization|api.?key|secret|password|cookie|protocol", re.IGNORECASE)
_QUERY = re.compile(r"\?[^\s\"']*")


def event(name: str, *, level: int = logging.INFO, content: Mapping[str, object] | None = None,
          exc_info: BaseException | None = None, **fields: object) -> None:
    """Log that something happened. content: fields that hold what people or the model said."""
    log.log(level, name, extra={"fields": fields, "content": content or {}}, exc_info=exc_info)


def configure(settings: ServeSettings, stream: IO[str] | None = None) -> logging.Handler:
    """Send every log of the process, uvicorn's too, to stderr (or `stream`) in this form; gives the handler."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(settings.log_content))
    root = logging.getLogger()
    for former in [old for old in root.handlers if isinstance(old.formatter, JsonLines)]:
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    return handler


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def __init__(self, log_content: bool = False) -> None:
        super().__init__()
        self._content = log_content

    def format(self, record: logging.LogRecord) -> str:
        ours = record.name == log.name
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage() if ours else record.name,
        }
        if not ours:  # uvicorn's lines hold addresses, and a query could hold a key
            line["message"] = _plain(_QUERY.sub("", record.getMessage()))
        fields: dict[str, object] = getattr(record, "fields", {})
        content: dict[str, object] = getattr(record, "content", {})
        for name, value in (fields | content).items():
            if self._content or not (name in content or name in _SAID):
                line.setdefault(name, "hidden" if _SECRET.search(name) else _plain(value))
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = self._error(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False)

    def _error(self, error: BaseException) -> dict[str, object]:
        """Its class and places; its words may repeat what was said."""
        frames = [f"{at.filename}:{at.lineno} {at.name}" for at in traceback.extract_tb(error.__traceback__)]
        found: dict[str, object] = {"type": type(error).__name__, "at": frames[-8:]}
        if self._content:
            found["message"] = _plain(str(error))
        return found


def _plain(value: object) -> object:
    """A number, or a string that is not too long; of anything else, sound among it, only its class."""
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON has no NaN
    if isinstance(value, str):
        return value if len(value) <= LONGEST else value[:LONGEST] + "…"
    return type(value).__name__
