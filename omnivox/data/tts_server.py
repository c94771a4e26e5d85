"""Speech from any server with OpenAI's `POST /v1/audio/speech`: CosyVoice, Kokoro and many others behind it."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import httpx

from omnivox.data.endpoint import (
    BUSY,
    CLOSED,
    PASSING,
    PassingError,
    backed_off,
    check_key,
    check_url,
    retry_after,
    told,
)
from omnivox.data.speaker import Voices, decoded
from omnivox.errors import ConfigError, DataError
from omnivox.nano.voices import Samples


@dataclass(frozen=True)
class SpeechServer:
    """url: such as http://127.0.0.1:8880/v1. seeds are sent where `seeded`, for few servers know them.

    A call that fails for a while (429, 5xx, a timeout, a reset, half a sound) is made again, `tries` times in all,
    after a wait that doubles from `backoff` up to `longest` seconds, or as long as `Retry-After` says, up to `patience`
    seconds. Where it still fails and a word is spoken well, the text is at fault.
    """

    url: str
    model: str
    voices: Voices
    api_key: str | None = field(default=None, repr=False)
    seeded: bool = False
    timeout: float = 120.0
    tries: int = 6
    backoff: float = 1.0
    longest: float = 60.0
    patience: float = 900.0
    at_once: int = 4

    def __post_init__(self) -> None:
        check_url(self.url, "speech server", "http://127.0.0.1:8880/v1")
        check_key(self.api_key)
        for name in ("timeout", "tries", "at_once"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}: found {getattr(self, name)}; expected more than 0")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_client"}

    def settings(self) -> Mapping[str, Any]:
        return {"engine": "server", "model": self.model, "seeded": self.seeded,
                "voices": {sex: list(names) for sex, names in self.voices.items()}}

    @cached_property
    def _client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        client = httpx.Client(headers=headers, timeout=self.timeout, limits=httpx.Limits(max_connections=self.at_once))
        weakref.finalize(self, client.close)
        return client

    def speak(self, text: str, voice: str, seed: int | None) -> Samples:
        if not any(character.isalnum() for character in text):
            raise DataError(f"text {text!r}: holds nothing that can be spoken; expected words")
        body: dict[str, Any] = {"model": self.model, "input": text, "voice": voice, "response_format": "wav"}
        if self.seeded and seed is not None:
            body["seed"] = seed % 2**31
        for attempt in range(self.tries):
            try:
                return self._call(body)
            except PassingError as error:
                failure = error
                if (error.after or 0.0) > self.patience:
                    break
                if attempt + 1 < self.tries:
                    pause = backed_off(self.backoff, self.longest, attempt)
                    time.sleep(pause if error.after is None else error.after + 0.1 * pause)
        failed = f"no speech after {attempt + 1} tries ({failure})"
        if not failure.busy and self._speaks(body):
            raise DataError(f"{self.url}: {failed} for {text[:60]!r}, while others are spoken")
        raise ConnectionError(f"{self.url}: {failed}; what was spoken is kept, run the stage again to go on")

    def _speaks(self, body: Mapping[str, Any]) -> bool:
        """Whether another text is spoken now."""
        try:
            self._call({**body, "input": "Hello."})
        except (PassingError, DataError, ConfigError):
            return False
        return True

    def _call(self, body: Mapping[str, Any]) -> Samples:
        url = f"{self.url.rstrip('/')}/audio/speech"
        try:
            with _lock:
                client = self._client
            response = client.post(url, json=body)
        except httpx.TimeoutException as error:
            raise PassingError(f"no answer within {self.timeout:g} s") from error
        except httpx.HTTPError as error:
            raise PassingError(f"{type(error).__name__}: {error}") from error
        if response.status_code in PASSING:
            raise PassingError(told(response), retry_after(response), busy=response.status_code in BUSY)
        if response.status_code in CLOSED:
            raise ConfigError(f"{url}: {told(response)}; check the URL, the model's name and the key")
        if response.status_code >= 300:
            raise DataError(f"{url}: {told(response)} for {body['input'][:60]!r}")
        try:
            samples = decoded(response.content, url)
        except DataError as error:
            raise PassingError(str(error)) from error
        if not len(samples):
            raise PassingError("a sound without samples")
        return samples


_lock = threading.Lock()  # one client for all threads
