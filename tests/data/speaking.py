"""Rows to be spoken, a speaker without an engine, builds of them, and a real server of speech on the loopback."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from safetensors.torch import save_file

from omnivox.data.manifest import StageFolder
from omnivox.data.records import Row, Turn, row_id
from omnivox.errors import DataError
from omnivox.model.config import MfccConfig
from omnivox.model.units import MfccKmeans
from omnivox.nano.voices import Samples

Reply = tuple[int, dict[str, str], bytes]
"""Status, headers, body; a Content-Length among the headers may lie."""


def tone(text: str, rate: int = 24_000) -> bytes:
    """A wav file whose length and pitch tell of the text."""
    time = np.arange(rate // 50 * (5 + len(text))) / rate
    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(2 * np.pi * (200 + len(text)) * time), rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def spoken(body: dict[str, Any]) -> Reply:
    return 200, {"Content-Type": "audio/wav"}, tone(body["input"])


class SpeechApi:
    """What the server was asked, and how it is to answer: a function of the body and the number of the call."""

    def __init__(self, answer: Callable[[dict[str, Any], int], Reply]) -> None:
        self.answer, self.bodies, self.headers = answer, list[dict[str, Any]](), list[dict[str, str]]()
        self.lock = threading.Lock()


@contextmanager
def serving(answer: Callable[[dict[str, Any], int], Reply]) -> Iterator[tuple[str, SpeechApi]]:
    """The URL of a server, and its record."""
    api = SpeechApi(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            assert self.path == "/v1/audio/speech"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with api.lock:
                number = len(api.bodies)
                api.bodies.append(body)
                api.headers.append(dict(self.headers))
            status, headers, data = api.answer(body, number)
            try:
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(data))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
                if int(({"Content-Length": str(len(data))} | headers)["Content-Length"]) > len(data):
                    self.close_connection = True
            except OSError:  # the client has gone
                self.close_connection = True

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that was killed resets its connection."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def rows(count: int, turns: int = 1, source: str = "test") -> list[Row]:
    """Conversations that are written and not spoken."""
    return [Row(row_id(source, i, "text"), source, "CC0-1.0", tuple(
        Turn(f"Question {i} {t}?", question=f"What is question {'very ' * (i % 5)}number {'abcdefghij'[i % 10]}?",
             answer=f"It is {'really ' * (i % 3 + 1)}answer {'klmnopqrst'[(i + t) % 10]}.") for t in range(turns)))
        for i in range(count)]


@dataclass(frozen=True)
class Hum:
    """A speaker whose sound is a function of what it is asked: bursts of noise, 0.3 s a word."""

    voices: Mapping[str, Sequence[str]]
    at_once: int = 1

    def settings(self) -> Mapping[str, Any]:
        return {"engine": "hum"}

    def speak(self, text: str, voice: str, seed: int | None) -> Samples:
        if "unspeakable" in text:
            raise DataError(f"text {text!r}: cannot be hummed")
        rng = np.random.default_rng([seed or 0, *text.encode(), *voice.encode()])
        loudness = np.repeat(rng.uniform(0.05, 0.2, len(text.split()) * 3), 1600)
        return (loudness * rng.uniform(-1, 1, len(loudness))).astype(np.float32)


ASKING = Hum({"female": ("f1", "f2"), "male": ("m1",)})
ANSWERING = Hum({"any": ("one",)})


def written(build: Path, some: Sequence[Row], shard_rows: int = 3, stage: str = "answer") -> Path:
    """A build in which the stage has given these rows."""
    folder = StageFolder(build, stage)
    manifest = folder.claim({}, "")
    shards = [some[start:start + shard_rows] for start in range(0, len(some), shard_rows)]
    folder.finish(manifest, [folder.write_shard(i, shard, shard) for i, shard in enumerate(shards)])
    return build


def units_file(path: Path, units: int = 9) -> Path:
    """A quantiser of ours, whose centres are frames of such speech."""
    quantiser = MfccKmeans(MfccConfig(units=units))
    features = quantiser.features(torch.from_numpy(ASKING.speak("some words " * units, "f1", 0)))
    mean, deviation = features.mean(0), features.std(0) + 1e-4
    centres = ((features - mean) / deviation)[:: len(features) // units][:units].contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"mean": mean, "deviation": deviation, "centres": centres}, path)
    return path
