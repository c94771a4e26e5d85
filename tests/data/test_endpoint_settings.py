"""Settings with which no endpoint can be asked, told before anybody is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from omnivox.errors import ConfigError
from tests.data.test_endpoint import SETTINGS


@pytest.mark.parametrize(("change", "said"), [
    ({"url": "localhost:8000"}, "endpoint URL: found 'localhost:8000'"),
    ({"url": "http://h:80a/v1"}, "found 'http://h:80a/v1' .Invalid port"),
    ({"url": "http://h:99999/v1"}, "found 'http://h:99999/v1'; expected"),
    ({"url": "http://"}, "endpoint URL: found 'http://'; expected"),
    ({"tries": 0}, "tries: found 0"), ({"timeout": 0}, "timeout: found 0"),
    ({"temperature": float("inf")}, "temperature: found inf"), ({"temperature": -1.0}, "temperature: found -1.0"),
    ({"api_key": "my\u00e9"}, "API key: holds a letter beyond ASCII"), ({"api_key": "my\n"}, "or a line's end")])
def test_settings_that_make_no_sense(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        replace(SETTINGS, **({"url": "http://h/v1"} | change))
    assert "my" not in str(error.value)
