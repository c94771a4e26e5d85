"""Any OpenAI-compatible chat endpoint: many calls at once, back-off, `Retry-After`, and no call paid twice.

A call that fails for a while (429, 5xx, a timeout, a connection reset, half an answer) is made again after a wait that
doubles, with jitter; a `Retry-After` holds every call back. Only where the endpoint answers others all the while is the
row at fault, and is rejected; else the stage ends with ConnectionError, and goes on from the cache when run again.
Where there are no others, as when such a row is the last that is missing, a small question is asked to tell.
"""

from __future__ import annotations

import asyncio
import math
import random
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx

from omnivox.data import prompts
from omnivox.data.cache import Reply, ReplyCache, digest
from omnivox.data.llm import LLM, Conversation, Request
from omnivox.data.records import Rejected, Row
from omnivox.errors import ConfigError

PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
BUSY = frozenset({429, 503, 529})  # of those: it is not the request that is at fault
CLOSED = frozenset({401, 402, 403, 404, 405})
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError)  # of JSON from outside
REFUSALS = 3  # requests refused before any is answered: is it the endpoint?
PROBE = Request(prompts.answer("How are you?", (), "English", 20), prompts.ANSWER_SCHEMA)


@dataclass(frozen=True)
class EndpointSettings:
    """url: such as http://127.0.0.1:8000/v1. Of the rest only model, temperature and max_tokens change what is said.

    timeout: seconds for one call. tries: calls before a failure is final. backoff: seconds before the second one,
    doubled up to `longest` for each that follows. A `Retry-After` is obeyed up to `patience` seconds.
    """

    url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    temperature: float = 0.7
    max_tokens: int = 512
    concurrency: int = 32
    timeout: float = 120.0
    tries: int = 8
    backoff: float = 1.0
    longest: float = 60.0
    patience: float = 900.0

    def __post_init__(self) -> None:
        check_url(self.url, "endpoint URL", "http://127.0.0.1:8000/v1")
        for name in ("concurrency", "tries", "max_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: found {getattr(self, name)}; expected 1 or more")
        if self.timeout <= 0:
            raise ConfigError(f"timeout: found {self.timeout}; expected seconds")
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature: found {self.temperature}; expected a number from 0")
        check_key(self.api_key)


class PassingError(Exception):
    """The endpoint failed for now; `after` is what it asked to wait, in seconds."""

    def __init__(self, message: str, after: float | None = None, busy: bool = False) -> None:
        super().__init__(message)
        self.after, self.busy = after, busy


def check_url(url: str, what: str, example: str) -> None:
    """Raises ConfigError, naming `what` it is of: nothing can be asked at `url`."""
    try:
        parsed = httpx.URL(url)
        if parsed.scheme in {"http", "https"} and parsed.host and (parsed.port or 0) < 2**16:
            return
        why = ""
    except httpx.InvalidURL as error:
        why = f" ({error})"
    raise ConfigError(f"{what}: found {url!r}{why}; expected a URL such as {example}")


def check_key(key: str | None) -> None:
    """Raises ConfigError, which does not show it: a key that no HTTP header can hold."""
    if key and not (key.isascii() and key.isprintable()):
        raise ConfigError("API key: holds a letter beyond ASCII or a line's end; expected it as it was given to you")


def backed_off(first: float, longest: float, attempt: int) -> float:
    """Seconds to wait before call `attempt` + 1 is made again: doubled each time up to `longest`, with jitter."""
    return min(longest, first * 2.0**attempt) * random.uniform(0.5, 1.0)


class _RefusedError(Exception):
    """The endpoint will not answer this request."""


class Endpoint(LLM):
    """The LLM behind an URL. One background thread runs every call, whichever thread asks."""

    def __init__(self, settings: EndpointSettings) -> None:
        self.endpoint = settings
        self._lock = threading.Lock()
        self._calls: _Calls | None = None

    def __getstate__(self) -> EndpointSettings:
        return self.endpoint

    def __setstate__(self, settings: EndpointSettings) -> None:
        self.__init__(settings)  # type: ignore[misc]

    def settings(self) -> Mapping[str, Any]:
        return {"model": self.endpoint.model, "temperature": self.endpoint.temperature,
                "max_tokens": self.endpoint.max_tokens}

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON of a call; its digest is the key of its reply."""
        return {**self.settings(), **request.asked()}

    def converse(self, conversations: Sequence[Conversation], cache: Path) -> Iterator[Row | Rejected]:
        with self._lock:
            if self._calls is None:
                self._calls = _Calls(self, cache)
            calls = self._calls
        futures = [calls.submit(calls.converse(conversation)) for conversation in conversations]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        with self._lock:
            calls, self._calls = self._calls, None
        if calls is not None:
            calls.close()


class _Calls:
    """The event loop, the connections and the cache while a stage runs."""

    def __init__(self, llm: Endpoint, cache: Path) -> None:
        self.llm, self.settings = llm, llm.endpoint
        self.cache = ReplyCache(cache)
        self._going: dict[str, asyncio.Future[Reply]] = {}
        self._free = asyncio.Semaphore(self.settings.concurrency)
        self._not_before = 0.0  # of the loop's clock
        self._answered = self._refused = 0
        self._probing = asyncio.Lock()
        key = self.settings.api_key
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=self.settings.timeout,
            limits=httpx.Limits(max_connections=self.settings.concurrency,
                                max_keepalive_connections=self.settings.concurrency))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, Row | Rejected]) -> Future[Row | Rejected]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        async def end() -> None:
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await self._client.aclose()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.cache.close()

    async def converse(self, conversation: Conversation) -> Row | Rejected:
        """The outcome of one row."""
        try:
            request = next(conversation)
            while True:
                request = conversation.send((await self._reply(request)).text)
        except StopIteration as end:
            outcome: Row | Rejected = end.value
            return outcome
        except _RefusedError as error:
            return Rejected(f"endpoint: {error}")

    async def _reply(self, request: Request) -> Reply:
        """From the cache, from an equal call under way, or from the endpoint."""
        body = self.llm.body(request)
        key = digest(body)
        if found := self.cache.get(key):
            return found
        if key in self._going:
            return await asyncio.shield(self._going[key])
        self._going[key] = future = self._loop.create_future()
        try:
            async with self._free:
                reply = await self._call_until_answered(body)
            self.cache.put(key, reply)
            future.set_result(reply)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                future.cancel()
            else:
                future.set_exception(error)
                future.exception()  # nobody else may be waiting for it
            raise
        finally:
            del self._going[key]
        return reply

    async def _call_until_answered(self, body: dict[str, Any]) -> Reply:
        settings, answered_before = self.settings, self._answered
        for attempt in range(settings.tries):
            while (early := self._not_before - self._loop.time()) > 0:
                await asyncio.sleep(early)
            try:
                reply = await self._call(body)
            except PassingError as error:
                failure = error
                if attempt + 1 < settings.tries:
                    await self._wait(error, attempt)
                continue
            except _RefusedError as error:
                self._refused += 1
                if self._refused >= REFUSALS and not await self._answers_more_than(0):
                    raise ConfigError(f"{settings.url}: {error}; it has refused every request so far") from error
                raise
            self._answered += 1
            return reply
        failed = f"no answer after {settings.tries} tries ({failure})"
        if not failure.busy and await self._answers_more_than(answered_before):
            raise _RefusedError(failed)
        raise ConnectionError(f"{settings.url}: {failed}; what was answered is kept, run the stage again to go on")

    async def _answers_more_than(self, count: int) -> bool:
        """Whether more than `count` requests were answered; if not, whether a small one is answered now."""
        async with self._probing:
            if self._answered <= count:
                try:
                    await self._call(self.llm.body(PROBE))
                except (PassingError, _RefusedError, ConfigError):
                    return False
                self._answered += 1
            return True

    async def _wait(self, error: PassingError, attempt: int) -> None:
        pause = backed_off(self.settings.backoff, self.settings.longest, attempt)
        if error.after is None:
            await asyncio.sleep(pause)
            return
        if error.after > self.settings.patience:
            raise ConnectionError(f"{self.settings.url}: asks to wait {error.after:,.0f} s ({error}), more than "
                                  f"{self.settings.patience:,.0f} s; what was answered is kept, run the stage again")
        self._not_before = max(self._not_before, self._loop.time() + error.after)
        await asyncio.sleep(error.after + 0.1 * pause)  # a herd does not come back in one instant

    async def _call(self, body: dict[str, Any]) -> Reply:
        """One call. Raises PassingError, _RefusedError, ConfigError (the endpoint is closed to us)."""
        url = f"{self.settings.url.rstrip('/')}/chat/completions"
        try:
            async with asyncio.timeout(self.settings.timeout):  # of the whole: a slow drip is a timeout too
                response = await self._client.post(url, json=body)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise PassingError(f"no answer within {self.settings.timeout:g} s") from error
        except httpx.HTTPError as error:
            raise PassingError(f"{type(error).__name__}: {error}") from error
        status = response.status_code
        if status in PASSING:
            raise PassingError(told(response), retry_after(response), busy=status in BUSY)
        if status in CLOSED:
            raise ConfigError(f"{url}: {told(response)}; check the URL, the model's name and the key")
        if status >= 300:
            raise _RefusedError(told(response))
        return _read(response)


def _read(response: httpx.Response) -> Reply:
    """Raises PassingError: the body is no chat completion."""
    try:
        found = response.json()
        content = found["choices"][0]["message"].get("content") or ""
        usage = found.get("usage") or {}
        if not isinstance(content, str):
            raise TypeError(f"content is {type(content).__name__}")
        return Reply(content, int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
    except UNREADABLE as error:
        raise PassingError(f"the answer is no chat completion ({type(error).__name__}: {error})") from error


def in_short(said: Any) -> str:
    """200 characters of what an endpoint says, in one line; half a character, which nobody can write, is a "?"."""
    return " ".join(str(said).split())[:200].encode(errors="replace").decode()


def told(response: httpx.Response) -> str:
    """The status and what the endpoint says about it, in 200 characters."""
    try:
        found = response.json()
        error = found.get("error", found)
        message = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError, RecursionError):
        message = response.text
    return f"{response.status_code} {in_short(message)}".strip()


def retry_after(response: httpx.Response) -> float | None:
    """Seconds that the endpoint asks to wait, given as such or as a date."""
    value = response.headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None
