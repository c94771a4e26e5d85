"""Settings of the server: safe as they come, refused by name where they make no sense."""

from __future__ import annotations

from typing import Any

import pytest

from omnivox.errors import ConfigError
from omnivox.serve.settings import ServeSettings, origin_of


def test_as_they_come_nobody_else_gets_in_and_nothing_is_written_down() -> None:
    settings = ServeSettings()
    assert settings.host == "127.0.0.1"
    assert not settings.allow_public
    assert not settings.log_content
    assert settings.max_message_bytes >= 15 * 2**20 * 4 / 3  # the protocol's largest packet, in base64


@pytest.mark.parametrize(("changes", "message"), [
    ({"port": 70000}, "port: found 70000"),
    ({"port": "8000"}, "port: found '8000'"),
    ({"host": ""}, "host: found ''"),
    ({"model_name": ""}, "model_name: found ''"),
    ({"api_keys": "secret"}, "api_keys: found str; expected a tuple"),
    ({"allowed_origins": ["https://a.example"]}, "allowed_origins: found list"),
    ({"allowed_origins": ("a.example",)}, "allowed_origins: found 'a.example'"),
    ({"allowed_origins": ("https://a.example/talk",)}, "without a path"),
    ({"max_sessions": 0}, "max_sessions: found 0"),
    ({"send_queue": True}, "send_queue: found True"),
    ({"max_message_bytes": 1.5}, "max_message_bytes: found 1.5"),
    ({"idle_seconds": 0}, "idle_seconds: found 0; expected seconds, more than 0"),
    ({"total_seconds": float("nan")}, "total_seconds: found nan"),
    ({"drain_seconds": -1}, "drain_seconds: found -1; expected seconds, 0 or more"),
])
def test_what_makes_no_sense_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ServeSettings(**changes)


@pytest.mark.parametrize("key", ["", "two words", "naïve", "a,b"])
def test_a_key_that_cannot_travel_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ConfigError, match="api_keys: key 2 is empty or holds") as caught:
        ServeSettings(api_keys=("good", key))
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize(("text", "origin"), [
    ("https://A.example", ("https", "a.example", 443)),
    ("http://localhost:8000", ("http", "localhost", 8000)),
    ("http://[::1]:8000", ("http", "::1", 8000)),
    ("null", None), ("https://a.example/", None), ("https://user@a.example", None), ("https://a.example:x", None),
    ("https://[::1", None), ("chrome-extension://abc", None),
])
def test_origins_are_read_as_browsers_send_them(text: str, origin: tuple[str, str, int] | None) -> None:
    assert origin_of(text) == origin
