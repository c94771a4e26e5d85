"""Who is let in: keys, sites, rates and numbers."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import HTTPConnection

from omnivox.errors import ConfigError
from omnivox.serve.guard import Caller, Guard, RefusedError, check_bind, subprotocol
from omnivox.serve.settings import ServeSettings

KEYS = ("alpha-key", "beta-key")


def connection(*headers: tuple[str, str], host: str = "localhost:8000", address: str = "127.0.0.1") -> HTTPConnection:
    lines = [("host", host), *headers]
    return HTTPConnection({"type": "http", "client": (address, 5000),
                           "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in lines]})


def bearer(key: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {key}")


class Time:
    """A clock that stands still until it is told to go on."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def guard(clock: Time | None = None, **settings: Any) -> Guard:
    return Guard(ServeSettings(**settings), clock or Time())


def refused(guard: Guard, asked: HTTPConnection) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        guard.admit(asked)
    return caught.value


# -- keys -------------------------------------------------------------------------------------------------------------

def test_without_keys_the_address_is_the_caller() -> None:
    assert guard().admit(connection()) == Caller("127.0.0.1")
    assert guard().admit(connection(bearer("whatever"))) == Caller("127.0.0.1")  # clients must send something


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("header", ["bearer", "scheme in capitals", "subprotocol", "subprotocol on a line of its own"])
def test_each_key_lets_in_by_header_and_by_subprotocol(key: str, header: str) -> None:
    name = "Sec-WebSocket-Protocol"
    headers = {"bearer": [bearer(key)], "scheme in capitals": [("Authorization", f"BEARER {key}")],
               "subprotocol": [(name, f"realtime, openai-insecure-api-key.{key}")],
               "subprotocol on a line of its own": [(name, "realtime"), (name, f"openai-insecure-api-key.{key}")]}
    caller = guard(api_keys=KEYS).admit(connection(*headers[header]))
    assert len(caller.name) == 8
    assert key not in repr(caller)


def test_callers_are_told_apart_by_key() -> None:
    one = guard(api_keys=KEYS)
    assert len({one.admit(connection(bearer(key), address=a)).name for key in KEYS for a in ("::1", "10.0.0.1")}) == 2


@pytest.mark.parametrize("headers", [
    [], [bearer("gamma")], [bearer("alpha-ke")], [bearer("alpha-key2")], [bearer("")], [("Authorization", "alpha-key")],
    [("Authorization", "Basic alpha-key")], [("Sec-WebSocket-Protocol", "realtime")],
    [("Sec-WebSocket-Protocol", "openai-insecure-api-key.")], [bearer("älpha")],
])
def test_without_a_right_key_nobody_gets_in(headers: list[tuple[str, str]]) -> None:
    error = refused(guard(api_keys=KEYS), connection(*headers))
    assert (error.status, error.type, error.code) == (401, "authentication_error", "invalid_api_key")
    assert "Authorization: Bearer" in str(error)
    assert not any(key in str(error) for key in (*KEYS, "gamma"))


def test_every_key_is_compared_whichever_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    from omnivox.serve import guard as module

    compared: list[bytes] = []
    real = module.hmac.compare_digest
    monkeypatch.setattr(module.hmac, "compare_digest", lambda a, b: compared.append(b) or real(a, b))
    one = guard(api_keys=KEYS)
    one.admit(connection(bearer(KEYS[0])))
    assert len(set(compared)) == len(KEYS)
    assert {len(digest) for digest in compared} == {32}


def test_guessing_keys_is_slowed_down_by_address() -> None:
    clock = Time()
    one = guard(clock, api_keys=KEYS, requests_per_minute=3)
    statuses = [refused(one, connection(bearer(f"guess{i}"))).status for i in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    assert one.admit(connection(bearer(KEYS[0])))  # whoever has a key is not held up by it
    assert refused(one, connection(bearer("guess"), address="10.0.0.9")).status == 401


# -- sites ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("host", "origin", "settings"), [
    ("localhost:8000", "http://localhost:8000", {}),
    ("127.0.0.1:8000", "http://127.0.0.1:8000", {}),
    ("[::1]:8000", "http://[::1]:8000", {}),
    ("talk.example", "https://talk.example", {"api_keys": ("k",)}),  # behind a proxy that ends TLS
    ("talk.example:443", "https://talk.example", {"api_keys": ("k",)}),
    ("localhost:8000", "https://app.example", {"allowed_origins": ("https://app.example",)}),
    ("app.example", "https://app.example", {"allowed_origins": ("https://app.example",)}),
    ("talk.example", "http://talk.example", {"host": "0.0.0.0", "allow_public": True}),
])
def test_own_and_allowed_sites_come_in(host: str, origin: str, settings: dict[str, Any]) -> None:
    assert guard(**settings).admit(connection(("Origin", origin), bearer("k"), host=host))


@pytest.mark.parametrize(("host", "origin", "settings"), [
    ("localhost:8000", "https://evil.example", {}),
    ("localhost:8000", "http://localhost:3000", {}),
    ("localhost:8000", "null", {}),
    ("localhost:8000", "https://evil.example", {"api_keys": ("k",)}),
    ("localhost:8000", "http://app.example", {"allowed_origins": ("https://app.example",)}),
    ("localhost:8000", "https://app.example:8443", {"allowed_origins": ("https://app.example",)}),
    ("localhost:8000", "https://app.example.evil", {"allowed_origins": ("https://app.example",)}),
    ("evil.example:8000", "http://evil.example:8000", {}),  # a name rebound to this machine
    ("evil.example:8000", None, {}),
    ("", None, {}),
])
def test_other_sites_do_not(host: str, origin: str | None, settings: dict[str, Any]) -> None:
    headers = [("Origin", origin)] if origin else []
    error = refused(guard(**settings), connection(*headers, bearer("k"), host=host))
    assert (error.status, error.code) == (403, "origin_not_allowed")
    assert "expected" in str(error)


def test_the_subprotocol_is_answered_without_the_key() -> None:
    name = "Sec-WebSocket-Protocol"
    assert subprotocol(connection((name, "realtime, openai-insecure-api-key.k"))) == "realtime"
    assert subprotocol(connection((name, "openai-insecure-api-key.k"))) is None
    assert subprotocol(connection()) is None


# -- how much ---------------------------------------------------------------------------------------------------------

def test_requests_are_counted_for_each_key_and_come_back_with_time() -> None:
    clock = Time()
    one = guard(clock, api_keys=KEYS, requests_per_minute=2)
    for _ in range(2):
        one.admit(connection(bearer(KEYS[0])))
    error = refused(one, connection(bearer(KEYS[0])))
    assert (error.status, error.code) == (429, "rate_limit_exceeded")
    assert error.retry_after == pytest.approx(30)
    one.admit(connection(bearer(KEYS[1])))
    clock.now += 29
    assert refused(one, connection(bearer(KEYS[0]))).retry_after == pytest.approx(1)
    clock.now += 1
    one.admit(connection(bearer(KEYS[0])))
    clock.now += 3600  # an hour of silence earns no more than a minute's worth
    for _ in range(2):
        one.admit(connection(bearer(KEYS[0])))
    assert refused(one, connection(bearer(KEYS[0]))).status == 429


def test_new_sessions_are_counted_apart_from_requests() -> None:
    one = guard(sessions_per_minute=1)
    caller = one.admit(connection())
    with one.session(caller):
        pass
    with pytest.raises(RefusedError, match="Too many new sessions: at most 1 a minute"), one.session(caller):
        pass
    with one.session(Caller("someone else")):
        pass
    one.admit(connection())


def test_sessions_at_once_are_limited() -> None:
    one = guard(max_sessions=2)
    with one.session(Caller("a")), one.session(Caller("b")):
        assert one.sessions == 2
        with pytest.raises(RefusedError, match="already holds 2 sessions") as caught, one.session(Caller("c")):
            pass
    assert (caught.value.status, caught.value.code) == (429, "session_limit_exceeded")
    with one.session(Caller("c")):
        assert one.sessions == 1


def test_a_session_that_ends_in_an_error_gives_its_place_back() -> None:
    one = guard(max_sessions=1)
    with pytest.raises(RuntimeError, match="torn"), one.session(Caller("a")):
        raise RuntimeError("torn")
    assert one.sessions == 0


def test_many_addresses_do_not_fill_the_memory() -> None:
    clock = Time()
    one = guard(clock, requests_per_minute=60)
    for i in range(30_000):
        clock.now += 0.01
        one.admit(connection(address=f"10.0.{i // 256}.{i % 256}"))
    assert len(one._requests._buckets) < 15_000


# -- where it listens -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "Localhost"])
def test_this_machine_alone_needs_no_key(host: str) -> None:
    check_bind(host, ServeSettings())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "talk.example", "localhost.evil.example", "127.1"])
def test_elsewhere_needs_a_key_or_an_explicit_word(host: str) -> None:
    with pytest.raises(ConfigError, match=f"host: found {host}.*no API key"):
        check_bind(host, ServeSettings())
    check_bind(host, ServeSettings(api_keys=("k",)))
    check_bind(host, ServeSettings(allow_public=True))
