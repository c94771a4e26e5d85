"""A Realtime server that says what a test tells it to, for clients to talk to."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

Event = dict[str, Any]


class Peer:
    """The server's end of one connection; `heard` holds what the client sent, sound as 16-bit samples in `sound`."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket, self.path, self.headers = socket, socket.request.path, socket.request.headers
        self.heard: list[Event] = []
        self.sound = np.zeros(0, np.int16)

    def send(self, kind: str, **fields: Any) -> None:
        self.socket.send(json.dumps({"type": kind, "event_id": "event_1", **fields}))

    def receive(self) -> Event:
        event = json.loads(self.socket.recv())
        if event["type"] == "input_audio_buffer.append":
            self.sound = np.concatenate([self.sound, np.frombuffer(base64.b64decode(event["audio"]), "<i2")])
        else:
            self.heard.append(event)
        return event

    def until(self, kind: str) -> Event:
        """The client's next event of this type."""
        while (event := self.receive())["type"] != kind:
            pass
        return event

    def greet(self) -> None:
        """What every session begins with."""
        self.send("session.created", session={"type": "realtime"})
        self.send("session.updated", session=self.until("session.update")["session"])

    def answer(self, metadata: Event | None, text: str = "", samples: np.ndarray | None = None, name: str = "resp_1",
               done: bool = True) -> None:
        """A response of that text and those samples in -1..1 at 24 kHz, or its beginning."""
        ids = {"response_id": name, "item_id": f"item_of_{name}", "output_index": 0, "content_index": 0}
        self.send("response.created", response={"id": name, "metadata": metadata, "status": "in_progress"})
        for word in text.split(" ") if text else []:
            self.send("response.output_audio_transcript.delta", delta=word + " ", **ids)
        if samples is not None:
            data = np.round(samples * 32767).astype("<i2").tobytes()
            for start in range(0, len(data), 4801):  # packets that end within a sample
                self.send("response.output_audio.delta", **ids,
                          delta=base64.b64encode(data[start:start + 4801]).decode())
        if done:
            self.finish(metadata, name)

    def finish(self, metadata: Event | None = None, name: str = "resp_1", status: str = "completed",
               details: Event | None = None) -> None:
        self.send("response.done", response={"id": name, "metadata": metadata, "status": status,
                                             "status_details": details, "output": []})


@contextmanager
def server(talk: Callable[[Peer], None], refuse: int | None = None) -> Iterator[tuple[str, list[Peer]]]:
    """A server at the URL given, which calls `talk` for each connection, or refuses all with that HTTP status."""
    peers: list[Peer] = []

    def handle(socket: ServerConnection) -> None:
        peers.append(Peer(socket))
        try:
            talk(peers[-1])
            while True:
                peers[-1].receive()
        except ConnectionClosed:
            pass

    def check(socket: ServerConnection, request: Request) -> Response | None:
        return None if refuse is None else Response(refuse, "no", Headers({"Connection": "close"}), b"because")

    with serve(handle, "127.0.0.1", 0, process_request=check) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{listening.socket.getsockname()[1]}/v1/realtime", peers
        finally:
            listening.shutdown()
            thread.join()
