"""Who may come in, and how much.

A connection is admitted where its Host and Origin show no page of another site at work, where it carries one of the
keys (if there are any), and where its key (or its address, if there are none) has not asked too often. A browser cannot
set a header on a WebSocket, so there the key may also travel as the subprotocol `openai-insecure-api-key.KEY`.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from omnivox.errors import ConfigError
from omnivox.serve.refusal import RefusedError
from omnivox.serve.settings import ServeSettings, origin_of

PROTOCOL = "realtime"
KEY_PROTOCOL = "openai-insecure-api-key."
_MANY = 4096  # callers remembered before those are forgotten who have asked for nothing in a minute


@dataclass(frozen=True)
class Caller:
    """Who was let in. name: a short hash of the key, or the address; fit for logs."""

    name: str


class Rates:
    """Token buckets, one a name: at most `per_minute` at once, refilled evenly over a minute."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self._most, self._clock = per_minute, clock
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens left, and when
        self._room = _MANY

    def take(self, name: str) -> float:
        """Take one token; 0 where there was one, else seconds until there is."""
        if len(self._buckets) > self._room:
            self._buckets = {other: bucket for other, bucket in self._buckets.items()
                             if self._level(other) < self._most}
            self._room = max(_MANY, 2 * len(self._buckets))  # so that looking through them stays rare
        level = self._level(name)
        taken = level >= 1
        self._buckets[name] = (level - taken, self._clock())
        return 0.0 if taken else (1 - level) * 60 / self._most

    def _level(self, name: str) -> float:
        left, since = self._buckets.get(name, (float(self._most), self._clock()))
        return min(self._most, left + (self._clock() - since) * self._most / 60)


class Guard:
    """One for the whole server. clock: seconds that only grow. For the event loop's thread alone."""

    def __init__(self, settings: ServeSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._keys = [_digest(key.encode()) for key in settings.api_keys]
        self._origins = {origin_of(origin) for origin in settings.allowed_origins}
        self._requests = Rates(settings.requests_per_minute, clock)
        self._new_sessions = Rates(settings.sessions_per_minute, clock)
        self.sessions = 0

    def admit(self, connection: HTTPConnection) -> Caller:
        """Who asks. Raises RefusedError: 403 another site's page, 401 a missing or wrong key, 429 too often."""
        self.check_site(connection)
        caller = self._identify(connection)
        self._take(self._requests, caller, "requests", self._settings.requests_per_minute)
        return caller

    @contextmanager
    def session(self, caller: Caller) -> Iterator[None]:
        """Counts as a session while it lasts. Raises RefusedError (429): too many at once, or too many new ones."""
        if self.sessions >= self._settings.max_sessions:
            raise RefusedError(f"The server already holds {self.sessions} sessions, as many as it may; try later.",
                               status=429, type="rate_limit_error", code="session_limit_exceeded", retry_after=5.0)
        self._take(self._new_sessions, caller, "new sessions", self._settings.sessions_per_minute)
        self.sessions += 1
        try:
            yield
        finally:
            self.sessions -= 1

    def check_site(self, connection: HTTPConnection) -> None:
        """Raises RefusedError (403) where a browser shows that a page of another site is asking."""
        host = origin_of(f"http://{connection.headers.get('host', '')}")
        # A name of the attacker's that resolves to this machine would make its page our own site's.
        if not self._keys and is_loopback(self._settings.host) and not (host and self._ours(host[1])):
            raise _forbidden("Host", connection.headers.get("host"), "localhost, or the host of an allowed origin")
        if (stated := connection.headers.get("origin")) is None:  # no browser, or a page's own GET
            return
        origin = origin_of(stated)
        if origin is not None and origin in self._origins:
            return
        # Host leaves the scheme's port out; which scheme it was, a proxy may have changed.
        own = origin and origin_of(f"{origin[0]}://{connection.headers.get('host', '')}")
        if origin is None or own != origin:
            raise _forbidden("Origin", stated, "this server's own page, or an allowed origin")

    def _ours(self, host: str) -> bool:
        return is_loopback(host) or any(origin and origin[1] == host for origin in self._origins)

    def _identify(self, connection: HTTPConnection) -> Caller:
        address = connection.client.host if connection.client else "unknown"
        if not self._keys:
            return Caller(address)
        given = _presented(connection)
        digest = _digest(given.encode("latin-1", "replace"))
        found = [hmac.compare_digest(digest, key) for key in self._keys]  # all of them: no early end to be timed
        if given and any(found):
            return Caller(digest.hex()[:8])
        self._take(self._requests, Caller(address), "requests", self._settings.requests_per_minute)
        what = "Incorrect API key provided" if given else "No API key provided"
        raise RefusedError(f"{what}. Send one as `Authorization: Bearer KEY`, or from a browser as the WebSocket "
                           f"subprotocol `{KEY_PROTOCOL}KEY`.", status=401, type="authentication_error",
                           code="invalid_api_key")

    def _take(self, rates: Rates, caller: Caller, what: str, most: int) -> None:
        if wait := rates.take(caller.name):
            raise RefusedError(f"Too many {what}: at most {most} a minute; try again in {wait:.1f} s.", status=429,
                               type="rate_limit_error", code="rate_limit_exceeded", retry_after=wait)


def subprotocol(connection: HTTPConnection) -> str | None:
    """What to answer a client that offered subprotocols; browsers hang up without an answer. Never the key."""
    return PROTOCOL if PROTOCOL in _offered(connection) else None


def check_bind(host: str, settings: ServeSettings) -> None:
    """Raises ConfigError where others could reach a server that asks nobody for a key."""
    if not (is_loopback(host) or settings.api_keys or settings.allow_public):
        raise ConfigError(f"host: found {host}, which other machines can reach, and no API key; set a key, or allow "
                          "public use explicitly, or listen on 127.0.0.1")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _offered(connection: HTTPConnection) -> list[str]:
    lines = connection.headers.getlist("sec-websocket-protocol")
    return [name.strip() for line in lines for name in line.split(",")]


def _presented(connection: HTTPConnection) -> str:
    """The key that came with a connection, "" for none."""
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    keys = [name.removeprefix(KEY_PROTOCOL) for name in _offered(connection) if name.startswith(KEY_PROTOCOL)]
    return keys[0] if keys else ""


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()  # of one length, so that not even the key's can be timed


def _forbidden(header: str, found: str | None, expected: str) -> RefusedError:
    return RefusedError(f"{header}: found {found!r}; expected {expected}.", status=403, type="permission_error",
                        code="origin_not_allowed")
