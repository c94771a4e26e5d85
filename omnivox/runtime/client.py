"""A conversation with a server that speaks OpenAI's Realtime protocol over WebSocket: ours, or a hosted one.

    with Client("ws://127.0.0.1:8000/v1/realtime") as client:
        for event in client.ask("question.wav"):  # Text, Audio and Done, as from `Omni.respond`
            ...

Needs the package websockets: pip install 'omnivox[chat]'.
Shapes: n samples, mono, at the client's own rate.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

import numpy as np
from torch import Tensor

from omnivox.errors import ConfigError, OmnivoxError
from omnivox.rates import SAMPLE_RATE
from omnivox.runtime.answer import WIRE, Answer
from omnivox.runtime.events import Audio, Done, Text
from omnivox.runtime.wire import WireEncoder
from omnivox.sound import read_audio

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

T = TypeVar("T")

SOUND_FILES = {".aac", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav"}  # a str that ends so is no question
_NAME = "client_"  # and a number: the ids of events sent, in order
_PACKET = 24_000  # bytes of sound in one append, half a second
_MESSAGE_LIMIT = 64 * 2**20  # bytes of one event from the server
_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


class Client:
    """One connection and the conversation on it. Use it as a context manager, or close it.

    url: ws, wss, http or https, with or without /v1/realtime at its end. api_key: sent as a Bearer token; where it is
    None, OPENAI_API_KEY is used, but only over TLS and never for this machine or a private address. voice_activity:
    "server_vad", "semantic_vad" or the protocol's turn_detection object: the server decides when you have finished;
    None: you do, which `ask` needs. sample_rate: of everything that you give and get, 16000 or 24000. session: more
    fields of the protocol's session object. timeout: seconds that connecting and settling may take.

    `append`, `commit`, `cancel`, `truncate` and `send` may be called beside `receive`, from another thread.
    Raises ConfigError: an argument that makes no sense, a missing package, a refused key or session. OmnivoxError: no
    server, or none that speaks this protocol; and from every method, where the server closed the connection.
    """

    def __init__(self, url: str, *, api_key: str | None = None, model: str = "nano", instructions: str | None = None,
                 voice_activity: str | Mapping[str, Any] | None = None, sample_rate: int = SAMPLE_RATE,
                 session: Mapping[str, Any] | None = None, timeout: float = 20.0) -> None:
        if sample_rate not in (SAMPLE_RATE, WIRE.rate):
            raise ConfigError(f"sample_rate: found {sample_rate}; expected {SAMPLE_RATE} or {WIRE.rate}")
        address = endpoint(url, model)
        self.url, self.sample_rate, self.timeout = urlunsplit(address), sample_rate, timeout
        self._turns = {"type": voice_activity} if isinstance(voice_activity, str) else voice_activity
        self._to_wire = WireEncoder(WIRE, sample_rate)
        self._sending = threading.Lock()  # of sound, whose packets and resampler must keep their order
        self._ids, self._first = count(1), f"{_NAME}0"
        with ExitStack() as stack:
            self._socket = _connect(address, api_key if api_key is not None else key_of(address), timeout, stack)
            self._open(instructions, session or {})
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the conversation."""
        self._stack.close()

    # -- one question, one answer -------------------------------------------------------------------------------------

    def ask(self, question: str | Path | np.ndarray | Tensor) -> Iterator[Text | Audio | Done]:
        """Ask, and be answered in Text and Audio as they come, then Done.

        question: a sound file, samples [n], or words. A str names a file if there is one, or if it ends as sound files
        do. Stop iterating (or call `close` on the iterator) and the answer stops; the server then remembers of it only
        what you were given. Raises AudioError, ConfigError; OmnivoxError where the server answers with an error.
        """
        if isinstance(question, str) and not _is_file(question):
            return self._answer(lambda: self._write(question))
        if self._turns is not None:
            raise ConfigError("ask: this client was opened with voice_activity, so the server decides when a spoken "
                              "question ends; use append and receive, or leave voice_activity out")
        samples = read_audio(question, self.sample_rate)
        return self._answer(lambda: self._speak(samples))

    def _write(self, words: str) -> None:
        self.send({"type": "conversation.item.create", "item": {
            "type": "message", "role": "user", "content": [{"type": "input_text", "text": words}]}})

    def _speak(self, samples: Tensor) -> None:
        self.append(samples)
        self.commit()

    def _answer(self, question: Callable[[], None]) -> Iterator[Text | Audio | Done]:
        self._first = self._name()  # what is refused of earlier questions has been said
        question()
        answer, name = Answer(self.sample_rate), self._name()
        self.send({"type": "response.create", "event_id": name, "response": {"metadata": {"ask": name}}})
        finished = False
        try:
            while not finished:
                event = self._next()
                if event["type"] == "error" and self._concerns(event["error"]):
                    raise_error(event["error"])
                for made in self._ours(answer, name, event):
                    finished = isinstance(made, Done)
                    with answer.clock.paused():
                        yield made
        finally:
            if not finished:
                self._abandon(answer, name)

    def _ours(self, answer: Answer, name: str, event: Mapping[str, Any]) -> Iterator[Text | Audio | Done]:
        """What this event adds to the answer that was asked for by `name`."""
        if event["type"] == "response.created" and answer.id is None:
            metadata = event["response"].get("metadata")
            if not metadata or metadata.get("ask") == name:
                answer.id = event["response"]["id"]
        elif answer.id is not None and answer.id == response_of(event):
            yield from answer.take(event)

    def _concerns(self, error: Mapping[str, Any]) -> bool:
        """Whether this error is about the question being asked, or about none."""
        number = str(error.get("event_id") or self._first).removeprefix(_NAME)
        return number.isdigit() and int(number) >= int(self._first.removeprefix(_NAME))

    def _abandon(self, answer: Answer, name: str) -> None:
        """Stop the answer, wait until it has stopped, and have what nobody heard forgotten."""
        with suppress(OmnivoxError):  # what ended the answer is what the caller should see
            heard = answer.heard_ms
            cancel = self.cancel()
            deadline = monotonic() + self.timeout
            while not answer.done and (event := self.receive(max(0.0, deadline - monotonic()))):
                refused = event["error"].get("event_id") if event["type"] == "error" else None
                if refused == cancel:
                    break  # nothing is being answered any more
                if refused == name and answer.id is None:
                    return  # it was never begun
                for _ in self._ours(answer, name, event):
                    pass
            if answer.item_id and answer.heard_ms:
                self.truncate(answer.item_id, heard)

    # -- events -------------------------------------------------------------------------------------------------------

    def send(self, event: Mapping[str, Any]) -> str:
        """Send any event of the protocol; returns its event_id, which is made up where it has none."""
        named = {"event_id": self._name(), **event}
        self._guard(lambda: self._socket.send(json.dumps(named)))
        return str(named["event_id"])

    def receive(self, timeout: float | None = None) -> dict[str, Any] | None:
        """The server's next event, waiting for it; None if none came within `timeout` seconds."""
        try:
            text = self._guard(lambda: self._socket.recv(timeout))
        except TimeoutError:
            return None
        try:
            event = json.loads(text)
        except ValueError:
            event = None
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            raise OmnivoxError(f"{self.url}: sent {text[:60]!r}; expected an event of the Realtime protocol")
        return event

    def append(self, samples: np.ndarray | Tensor) -> None:
        """Send more sound, samples [n] at `sample_rate`: floats in -1..1, or integers at their own full scale."""
        with self._sending:
            self._push(self._to_wire.push(read_audio(samples, self.sample_rate).numpy()))

    def commit(self) -> None:
        """What was appended is a question; with voice_activity the server does this."""
        with self._sending:
            self._push(self._to_wire.flush())
            self.send({"type": "input_audio_buffer.commit"})

    def cancel(self) -> str:
        """Stop the answer under way; where there is none the server sends an error event that harms nothing."""
        return self.send({"type": "response.cancel"})

    def truncate(self, item_id: str, milliseconds: int) -> str:
        """Tell the server that no more than this of an answer's sound was heard; it forgets the rest."""
        return self.send({"type": "conversation.item.truncate", "item_id": item_id, "content_index": 0,
                          "audio_end_ms": milliseconds})

    # -- below --------------------------------------------------------------------------------------------------------

    def _open(self, instructions: str | None, more: Mapping[str, Any]) -> None:
        """Greet the server and settle the session."""
        if (event := self.receive(self.timeout)) is None or event["type"] not in {"session.created", "error"}:
            raise OmnivoxError(f"{self.url}: found {event and event['type']!r}; expected session.created first, as a "
                               "Realtime server sends it")
        if event["type"] == "error":
            raise_error(event["error"])
        wire = WIRE.to_json()
        spoken = {"input": {"format": wire, "turn_detection": self._turns}, "output": {"format": wire}}
        session = {"type": "realtime", "output_modalities": ["audio"], "audio": spoken,
                   **({} if instructions is None else {"instructions": instructions})}
        name = self.send({"type": "session.update", "session": _merged(session, more)})
        while event["type"] != "session.updated":
            if (event := self.receive(self.timeout)) is None:
                raise OmnivoxError(f"{self.url}: no session.updated within {self.timeout:g} s")
            if event["type"] == "error" and event["error"].get("event_id") in {name, None}:
                raise ConfigError(f"session: the server refused it: {event['error'].get('message')}")

    def _next(self) -> dict[str, Any]:
        event = self.receive()
        assert event is not None
        return event

    def _name(self) -> str:
        return f"{_NAME}{next(self._ids)}"

    def _push(self, sound: bytes) -> None:
        for start in range(0, len(sound), _PACKET):
            data = base64.b64encode(sound[start:start + _PACKET]).decode()
            self.send({"type": "input_audio_buffer.append", "audio": data})

    def _guard(self, call: Callable[[], T]) -> T:
        """Raises OmnivoxError where the connection is gone."""
        from websockets.exceptions import ConnectionClosed

        try:
            return call()
        except ConnectionClosed as error:
            if error.rcvd_then_sent is False:
                raise OmnivoxError(f"{self.url}: this client is closed") from error
            ended = error.rcvd
            why = f"code {ended.code}{f', {ended.reason}' if ended.reason else ''}" if ended else "without a word"
            raise OmnivoxError(f"{self.url}: the server closed the connection ({why})") from error


def response_of(event: Mapping[str, Any]) -> str | None:
    """The id of the response that an event of the server belongs to."""
    found = event.get("response_id") or (event.get("response") or {}).get("id")
    return None if found is None else str(found)


def endpoint(url: str, model: str) -> SplitResult:
    """The WebSocket address that `url` means. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        usable = False
    if not usable:
        raise ConfigError(f"url: found {url!r}; expected one such as ws://127.0.0.1:8000/v1/realtime")
    path = parts.path.rstrip("/")
    if not path.endswith("/realtime"):
        path += "/realtime" if path.endswith("/v1") else "/v1/realtime"
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return SplitResult(_SCHEMES[parts.scheme], parts.netloc, path, urlencode({"model": model, **query}), "")


def key_of(address: SplitResult) -> str | None:
    """OPENAI_API_KEY, where it may go: over TLS, to a host that is neither this machine nor on a private network."""
    try:
        public = ip_address(str(address.hostname)).is_global
    except ValueError:  # a name
        public = not _is_here(address)
    return os.environ.get("OPENAI_API_KEY") if public and address.scheme == "wss" else None


def _is_here(address: SplitResult) -> bool:
    host = str(address.hostname)
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _connect(address: SplitResult, key: str | None, timeout: float, stack: ExitStack) -> ClientConnection:
    try:
        from websockets.exceptions import InvalidStatus, WebSocketException
        from websockets.sync.client import connect
    except ImportError as error:
        raise ConfigError(f"client: Python package websockets is missing ({error}); install it with: "
                          "pip install 'omnivox[chat]'") from error
    url, headers = urlunsplit(address), {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        return stack.enter_context(connect(
            url, additional_headers=headers, compression=None, open_timeout=timeout, close_timeout=2.0,
            max_size=_MESSAGE_LIMIT, max_queue=None, proxy=None if _is_here(address) else True))
    except InvalidStatus as error:
        status = error.response.status_code
        said = bytes(error.response.body or b"")[:200].decode(errors="replace").strip()
        told = f"(HTTP {status}{f': {said}' if said else ''})"
        if status == 401:
            given = "the API key was refused" if key else "an API key is needed; give api_key"
            raise ConfigError(f"{url}: {given} {told}") from error
        if status == 403:  # what some servers answer where there is nothing
            raise ConfigError(f"{url}: the server refuses the connection {told}; check the address and the "
                              "key") from error
        raise OmnivoxError(f"{url}: no Realtime server there {told}") from error
    except TimeoutError as error:
        raise OmnivoxError(f"{url}: no answer within {timeout:g} s") from error
    except (WebSocketException, EOFError) as error:
        raise OmnivoxError(f"{url}: what answers there is no Realtime server ({error})") from error
    except OSError as error:
        raise OmnivoxError(f"{url}: cannot connect ({error}); is the server running? "
                           "`omnivox serve` starts one") from error


def _merged(settings: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` with `more` laid over it, objects in objects likewise."""
    both = {name: _merged(settings[name], value) for name, value in more.items()
            if isinstance(value, Mapping) and isinstance(settings.get(name), Mapping)}
    return {**settings, **more, **both}


def _is_file(question: str) -> bool:
    return os.path.isfile(question) or Path(question).suffix.lower() in SOUND_FILES  # noqa: PTH113 (Path raises)


def raise_error(error: Mapping[str, Any]) -> None:
    raise OmnivoxError(f"the server answered with an error: {error.get('message')}"
                       f"{f' ({code})' if (code := error.get('code')) else ''}")
