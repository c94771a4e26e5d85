"""A real HTTP server on loopback that answers as an OpenAI-compatible endpoint does, well or badly, and counts."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = Callable[["Handler", dict[str, Any]], bool]
"""Does something bad to a request and returns True, or lets it be answered well."""


def written(prompt: str) -> str:
    """What was to be rewritten or answered in a prompt of ours."""
    found = re.search(r"Instruction:\n(.+)\Z", prompt, re.DOTALL) or re.search(r"They say: (.+)\Z", prompt, re.DOTALL)
    assert found, prompt
    return found[1].strip()


def well(prompt: str) -> str:
    """A good reply, a function of the prompt alone."""
    text = re.sub(r"[^a-z' ]", "", written(prompt).lower()).strip()
    if "Instruction:" in prompt:
        return json.dumps({"sayable": True, "question": f"So, {text}?"})
    return json.dumps({"answer": f"You asked: {text}."})


def completion(content: str) -> dict[str, Any]:
    return {"id": "c", "object": "chat.completion", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}}


@dataclass
class Served:
    """What the server saw: requests by prompt, those it answered in whole with the time, and how many at once."""

    url: str = ""
    reply: Callable[[str], str] = well
    fault: Fault | None = None
    delay: float = 0.0
    asked: Counter[str] = field(default_factory=Counter)
    answered: list[tuple[float, str]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def times(self, text: str) -> int:
        """How often a prompt about `text` came."""
        return sum(count for prompt, count in self.asked.items() if text in written(prompt))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Served

    def log_message(self, *words: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/chat/completions"
        served, prompt = self.served, body["messages"][-1]["content"]
        with served.lock:
            served.asked[prompt] += 1
            served.bodies.append(body)
            served.keys.add(self.headers.get("Authorization"))
            served.at_once += 1
            served.most_at_once = max(served.most_at_once, served.at_once)
        try:
            time.sleep(served.delay)
            if served.fault and served.fault(self, body):
                return
            self.say(200, completion(served.reply(prompt)))
            with served.lock:
                served.answered.append((time.monotonic(), prompt))
        except OSError:  # the client was killed
            self.close_connection = True
        finally:
            with served.lock:
                served.at_once -= 1

    def say(self, status: int, content: Any, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", headers.pop("length", str(len(data))))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def reset(self) -> None:
        """Ends the connection with RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *words: Any) -> None:
        pass


@contextmanager
def serving(**settings: Any) -> Iterator[Served]:
    served = Served(**settings)
    server = _Server(("127.0.0.1", 0), type("Bound", (Handler,), {"served": served}))
    served.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def at_first(fault: Fault, times: int = 1) -> Fault:
    """The fault happens to the first `times` requests of each prompt."""
    seen: Counter[str] = Counter()

    def some(handler: Handler, body: dict[str, Any]) -> bool:
        prompt = body["messages"][-1]["content"]
        with handler.served.lock:
            seen[prompt] += 1
            late = seen[prompt] > times
        return not late and fault(handler, body)

    return some
