"""A language model that gives marks from 1 to 5, by any OpenAI-compatible endpoint.

A reply that gives no marks is never one: no JSON, a refusal, an answer cut at its longest, a mark outside 1 to 5. Each
is counted by its kind and asked again with another seed; after the last attempt there is a reason in place of marks. A
call that fails for a while is made again after a wait that doubles, and a `Retry-After` holds every call back. Every
reply is kept on disk with how it ended, so none is paid twice, and the same prompts have the same marks.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from omnivox.data.cache import Reply, ReplyCache, digest
from omnivox.data.endpoint import (
    CLOSED,
    PASSING,
    UNREADABLE,
    EndpointSettings,
    PassingError,
    backed_off,
    in_short,
    retry_after,
    told,
)
from omnivox.data.llm import Request, UnusableError, json_object
from omnivox.errors import ConfigError

MARKS = range(1, 6)
HOPELESS = 3  # requests refused, of at least so many and none answered, are refused for what they all are


@dataclass(frozen=True)
class Verdict:
    """marks by name, or None; then `why` says what stood against them. failures: how often what went wrong before."""

    marks: Mapping[str, int] | None
    why: str | None = None
    failures: Mapping[str, int] = field(default_factory=dict)


class _UselessError(Exception):
    """A reply without marks; `kind` is counted."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class _RefusedError(Exception):
    """The endpoint will not answer this request."""


class Judge:
    """endpoint: which model, where and how; judges are asked at temperature 0 unless told otherwise (`judge`).

    cache: a folder that keeps every reply. attempts: of a reply that gives marks.
    """

    def __init__(self, endpoint: EndpointSettings, cache: Path, attempts: int = 3) -> None:
        if attempts < 1:
            raise ConfigError(f"attempts: found {attempts}; expected 1 or more")
        self.endpoint, self.cache, self.attempts = endpoint, cache, attempts

    def settings(self) -> Mapping[str, Any]:
        """What its marks depend on beside the prompts."""
        return {"judge": self.endpoint.model, "temperature": self.endpoint.temperature,
                "max_tokens": self.endpoint.max_tokens, "attempts": self.attempts}

    def verdicts(self, prompts: Sequence[str], names: Sequence[str]) -> list[Verdict]:
        """Marks called `names` for each prompt; equal prompts are asked once.

        Raises ConfigError: the endpoint is closed to us, or refuses everything. ConnectionError: it answers nothing.
        """
        with ReplyCache(self.cache) as cache, _Calls(self.endpoint, cache) as calls:
            different = list(dict.fromkeys(prompts))
            with ThreadPoolExecutor(self.endpoint.concurrency, "judge") as pool:
                futures = [pool.submit(self._verdict, calls, prompt, names) for prompt in different]
                try:
                    found = {prompt: future.result() for prompt, future in zip(different, futures, strict=True)}
                finally:
                    for future in futures:
                        future.cancel()
            if not calls.answered and len(different) >= HOPELESS:
                raise ConfigError(f"{self.endpoint.url}: has refused every request, the first: "
                                  f"{found[different[0]].why}")
        return [found[prompt] for prompt in prompts]

    def _verdict(self, calls: _Calls, prompt: str, names: Sequence[str]) -> Verdict:
        failures: Counter[str] = Counter()
        reason = ""
        for attempt in range(self.attempts):
            asked = Request(prompt, marks_schema(names), attempt).asked()
            body = {"model": self.endpoint.model, "temperature": self.endpoint.temperature,
                    "max_tokens": self.endpoint.max_tokens, **asked}
            try:
                return Verdict(read_marks(calls.choice(body, failures), names), None, dict(failures))
            except _UselessError as error:
                failures[error.kind] += 1
                reason = f"{error.kind}: {error} ({attempt + 1} attempts)"
            except PassingError as error:
                reason = f"endpoint: no answer after {self.endpoint.tries} tries ({error})"
                break
            except _RefusedError as error:
                failures["refused"] += 1
                reason = f"refused: {error}"
                break
        return Verdict(None, reason, dict(failures))


def judge(url: str, model: str, cache: Path, api_key: str | None = None, attempts: int = 3, **settings: Any) -> Judge:
    """A judge at temperature 0. settings: others of EndpointSettings. Raises ConfigError."""
    return Judge(EndpointSettings(url, model, api_key, **{"temperature": 0.0, **settings}), cache, attempts)


def marks_schema(names: Sequence[str]) -> dict[str, Any]:
    """Of an object that has a mark under each name and nothing else."""
    mark = {"type": "integer", "enum": list(MARKS)}
    return {"type": "object", "properties": dict.fromkeys(names, mark), "required": list(names),
            "additionalProperties": False}


def read_marks(choice: Mapping[str, Any], names: Sequence[str]) -> dict[str, int]:
    """The marks that a reply gives. Raises _UselessError."""
    content = choice["content"] or ""
    if choice["refusal"] or choice["ended"] == "content_filter":
        raise _UselessError("refusal", in_short(choice["refusal"] or "filtered"))
    if choice["ended"] == "length":
        raise _UselessError("cut", f"the reply became as long as it may be, {len(content)} characters")
    try:
        found = json_object(content, {"required": ()})
    except UnusableError as error:
        raise _UselessError("no JSON", str(error)) from error
    for name in names:
        if type(found.get(name)) is not int or found[name] not in MARKS:
            raise _UselessError("no mark", f"{name} is {json.dumps(found.get(name))[:80]}; expected 1 to 5")
    return {name: found[name] for name in names}


class _Calls:
    """The connections, the cache and the count of answers while prompts are judged; shared by many threads."""

    def __init__(self, settings: EndpointSettings, cache: ReplyCache) -> None:
        self.settings, self.cache = settings, cache
        self.answered = 0
        self._not_before = 0.0  # of time.monotonic
        self._lock = threading.Lock()
        headers = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
        self._client = httpx.Client(headers=headers, timeout=settings.timeout,
                                    limits=httpx.Limits(max_connections=settings.concurrency))

    def __enter__(self) -> _Calls:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def choice(self, body: dict[str, Any], failures: Counter[str]) -> Mapping[str, Any]:
        """What came back: content, refusal, ended (the reason), from the cache or the endpoint.

        Raises PassingError: no answer after all tries, while others were answered. ConnectionError: nor were others.
        """
        key = digest(body)
        kept = self.cache.get(key)
        if kept is None:
            kept = self._until_answered(body, failures)
            self.cache.put(key, kept)
        with self._lock:
            self.answered += 1
        choice: Mapping[str, Any] = json.loads(kept.text)
        return choice

    def _until_answered(self, body: dict[str, Any], failures: Counter[str]) -> Reply:
        for attempt in range(self.settings.tries):
            time.sleep(max(0.0, self._not_before - time.monotonic()))
            try:
                return self._call(body)
            except PassingError as error:
                failure = error
                failures["rate limit" if error.busy else "no answer"] += 1
                if attempt + 1 < self.settings.tries:
                    self._wait(error, attempt)
        if not self.answered:
            raise ConnectionError(f"{self.settings.url}: no answer after {self.settings.tries} tries ({failure}); "
                                  "nothing was scored, run it again to go on") from failure
        raise failure

    def _wait(self, error: PassingError, attempt: int) -> None:
        pause = backed_off(self.settings.backoff, self.settings.longest, attempt)
        if error.after is None:
            time.sleep(pause)
            return
        if error.after > self.settings.patience:
            raise ConnectionError(f"{self.settings.url}: asks to wait {error.after:,.0f} s ({error}), more than "
                                  f"{self.settings.patience:,.0f} s; what was answered is kept, run it again to go on")
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + error.after)
        time.sleep(error.after + 0.1 * pause)  # a herd does not come back in one instant

    def _call(self, body: dict[str, Any]) -> Reply:
        """Raises PassingError, _RefusedError, ConfigError (the endpoint is closed to us)."""
        url = f"{self.settings.url.rstrip('/')}/chat/completions"
        try:
            response = self._client.post(url, json=body)
        except httpx.TimeoutException as error:
            raise PassingError(f"no answer within {self.settings.timeout:g} s") from error
        except httpx.HTTPError as error:
            raise PassingError(f"{type(error).__name__}: {error}") from error
        if response.status_code in PASSING:
            raise PassingError(told(response), retry_after(response), busy=response.status_code == 429)
        if response.status_code in CLOSED:
            raise ConfigError(f"{url}: {told(response)}; check the URL, the model's name and the key")
        if response.status_code >= 300:
            raise _RefusedError(told(response))
        return _read(response)


def _read(response: httpx.Response) -> Reply:
    """The reply, with how it ended, as the cache keeps it. Raises PassingError: the body is no chat completion."""
    try:
        found = response.json()
        [choice, *_] = found["choices"]
        content, refusal = (choice["message"].get(name) for name in ("content", "refusal"))
        if not isinstance(content, str | None):
            raise TypeError(f"content is {type(content).__name__}")
        kept = {"content": content, "refusal": refusal, "ended": choice.get("finish_reason")}
        usage = found.get("usage") or {}
        return Reply(json.dumps(kept, ensure_ascii=False), int(usage.get("prompt_tokens") or 0),
                     int(usage.get("completion_tokens") or 0))
    except UNREADABLE as error:
        raise PassingError(f"the answer is no chat completion ({type(error).__name__}: {error})") from error
