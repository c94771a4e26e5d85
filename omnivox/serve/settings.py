"""What the server may be told: where it listens, who may come in, and how much they may ask of it."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from omnivox.errors import ConfigError

MIB = 2**20
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110: what a header, and so a subprotocol, can carry


@dataclass(frozen=True)
class ServeSettings:
    """Safe defaults: loopback only, everything bounded, nothing said written to a log.

    Raises ConfigError naming the setting that is out of range.
    """

    host: str = "127.0.0.1"
    port: int = 8000  # 0: any that is free
    api_keys: tuple[str, ...] = ()  # none: whoever reaches the port may come in
    allow_public: bool = False  # listen beyond this machine without a key
    allowed_origins: tuple[str, ...] = ()  # pages of other sites that may call, as https://example.com
    max_message_bytes: int = 21 * MIB  # one message or request; 15 MiB of sound are 20 in base64
    max_buffered_seconds: float = 60.0  # of input audio that wait for an answer
    max_sessions: int = 64  # at once
    sessions_per_minute: int = 60  # new ones, for each key (for each address where there are no keys)
    requests_per_minute: int = 600  # likewise
    idle_seconds: float = 900.0  # without a message from the client
    total_seconds: float = 7200.0  # of one session
    send_queue: int = 1024  # messages that wait for a slow reader
    send_seconds: float = 10.0  # a message that takes longer to send closes the connection
    drain_seconds: float = 10.0  # for answers under way when the server is told to end
    log_content: bool = False  # write text of conversations into the log
    model_name: str = "nano"  # as /v1/models shows it

    def __post_init__(self) -> None:
        for name in ("api_keys", "allowed_origins"):  # a lone string would be taken for its letters
            value = getattr(self, name)
            if not isinstance(value, tuple) or not all(isinstance(item, str) for item in value):
                raise ConfigError(f"{name}: found {type(value).__name__}; expected a tuple of strings")
        for name in ("max_message_bytes", "max_sessions", "sessions_per_minute", "requests_per_minute", "send_queue"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name}: found {value!r}; expected a whole number, 1 or more")
        for name in ("max_buffered_seconds", "idle_seconds", "total_seconds", "send_seconds"):
            self._seconds(name, positive=True)
        self._seconds("drain_seconds", positive=False)
        self._names()

    def _seconds(self, name: str, *, positive: bool) -> None:
        value = getattr(self, name)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value < 0 or (positive and not value):
            least = "more than 0" if positive else "0 or more"
            raise ConfigError(f"{name}: found {value!r}; expected seconds, {least}")

    def _names(self) -> None:
        if not isinstance(self.port, int) or not 0 <= self.port <= 65535:
            raise ConfigError(f"port: found {self.port!r}; expected 0 (any that is free) to 65535")
        for name in ("host", "model_name"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ConfigError(f"{name}: found {getattr(self, name)!r}; expected a name")
        for number, key in enumerate(self.api_keys, 1):  # a key is never shown, not even a wrong one
            if not _TOKEN.fullmatch(key):
                raise ConfigError(f"api_keys: key {number} is empty or holds a character that cannot travel in a "
                                  "header; expected letters, digits and !#$%&'*+-.^_`|~")
        for origin in self.allowed_origins:
            if origin_of(origin) is None:
                raise ConfigError(f"allowed_origins: found {origin!r}; expected such as https://example.com, without "
                                  "a path")


def model_name(model: str) -> str:
    """As clients see it: the last part of a hub name, or of a folder, however that is written."""
    return Path(os.path.abspath(model)).name  # noqa: PTH100 `resolve` would follow a link, whose own name is meant


def origin_of(text: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of an origin as browsers send it; None where it is none."""
    try:
        parts = urlsplit(text.lower())
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:  # a port that is no number, a bracket that is not closed
        return None
    extra = parts.path or parts.query or parts.fragment or "@" in parts.netloc
    if port is None or not parts.hostname or extra:
        return None
    return parts.scheme, parts.hostname, port
