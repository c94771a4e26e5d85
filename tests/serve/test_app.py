"""The app over real connections: health, headers, limits, keys, slow readers, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi")

from typer.testing import CliRunner
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from omnivox.cli import app as cli
from omnivox.errors import ConfigError
from omnivox.runtime.engine import Engine
from omnivox.serve.app import create_app
from omnivox.serve.run import address as address_of
from omnivox.serve.run import bind
from omnivox.serve.settings import ServeSettings
from tests.serve.running import WAIT, serving

TEXT = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "word1"}]}


@contextlib.contextmanager
def served(engine: Engine, **settings: Any) -> Iterator[tuple[str, Any]]:
    """The address, and the app."""
    app = create_app(engine, ServeSettings(**settings))
    with serving(app, ws_max_size=settings.get("max_message_bytes", 2**20)) as address:
        yield address, app


def realtime(address: str, **options: Any) -> contextlib.AbstractContextManager[ClientConnection]:
    return connect(f"ws://{address}/v1/realtime", open_timeout=WAIT, **options)


def until(socket: ClientConnection, kind: str) -> dict[str, Any]:
    while (event := json.loads(socket.recv(timeout=WAIT)))["type"] != kind:
        pass
    return event  # type: ignore[no-any-return]


def ask(socket: ClientConnection, **response: Any) -> None:
    socket.send(json.dumps({"type": "conversation.item.create", "item": TEXT}))
    socket.send(json.dumps({"type": "response.create", "response": response}))


def closed(socket: ClientConnection) -> int:
    """The close code, when the server has hung up."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            socket.recv(timeout=WAIT)
    assert socket.close_code is not None
    return socket.close_code


def test_health_metrics_and_headers(engine: Engine) -> None:
    with served(engine) as (address, _), httpx.Client(base_url=f"http://{address}") as http:
        assert http.get("/healthz").json() == {"status": "ok"}
        assert http.get("/readyz").status_code == 200
        with realtime(address) as socket:
            ask(socket)
            until(socket, "response.done")
        text = http.get("/metrics").text
        assert 'omnivox_responses_total{status="incomplete"} 1.0' in text
        assert "omnivox_slots 4.0" in text
        page = http.get("/")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert http.get("/v1/models").json()["data"][0]["id"] == "nano"
        assert http.get("/web/examples/99.wav").status_code == 404


def test_who_has_no_key_stays_outside(engine: Engine) -> None:
    with served(engine, api_keys=("right",)) as (address, _):
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            with pytest.raises(InvalidStatus) as refused:
                realtime(address, additional_headers=headers).__enter__()
            assert refused.value.response.status_code == 401
            assert b"invalid_api_key" in refused.value.response.body
        assert httpx.get(f"http://{address}/metrics").status_code == 401
        with realtime(address, additional_headers={"Authorization": "Bearer right"}) as socket:
            until(socket, "session.created")
        with realtime(address, subprotocols=["realtime", "openai-insecure-api-key.right"]) as socket:
            assert socket.subprotocol == "realtime"
            until(socket, "session.created")


def test_a_page_of_another_site_stays_outside(engine: Engine) -> None:
    with served(engine) as (address, _), pytest.raises(InvalidStatus) as refused:
        realtime(address, additional_headers={"Origin": "https://evil.example"}).__enter__()
    assert refused.value.response.status_code == 403


def test_only_so_many_at_once(engine: Engine) -> None:
    with served(engine, max_sessions=1) as (address, _), realtime(address):
        with pytest.raises(InvalidStatus) as refused:
            realtime(address).__enter__()
        assert refused.value.response.status_code == 429


@pytest.mark.parametrize(("settings", "code"), [({"idle_seconds": 0.3}, 1008), ({"total_seconds": 0.3}, 1008)])
def test_nobody_stays_for_ever(engine: Engine, settings: dict[str, float], code: int) -> None:
    with served(engine, **settings) as (address, _), realtime(address) as socket:
        assert closed(socket) == code


def test_a_message_that_is_too_long_ends_the_session_alone(engine: Engine) -> None:
    with served(engine, max_message_bytes=5000) as (address, _), realtime(address) as good, realtime(address) as bad:
        bad.send("x" * 6000)
        assert closed(bad) == 1009
        ask(good)
        until(good, "response.done")


def test_a_slow_reader_is_hung_up_on(engine: Engine) -> None:
    """Its answers fill the connection, then the queue; others do not notice."""
    limits = {"send_queue": 100, "send_seconds": 0.5}  # room for all of a short answer
    with served(engine, **limits) as (address, app), realtime(address, max_queue=1) as slow:
        sessions = app.state.connections
        end = time.monotonic() + WAIT
        with contextlib.suppress(ConnectionClosed):
            while sessions._open and time.monotonic() < end:
                slow.send(json.dumps({"type": "session.update", "session": {"instructions": "x" * 20_000}}))
        assert not sessions._open
        with realtime(address) as good:
            ask(good, max_output_tokens=3)
            until(good, "response.done")


def test_draining_lets_answers_end_and_sends_everybody_away(engine: Engine) -> None:
    with served(engine) as (address, app), realtime(address) as talking, realtime(address) as idle:
        until(idle, "session.created")
        ask(talking)
        until(talking, "response.created")
        connections = app.state.connections
        loop = next(iter(connections._open)).closing.get_loop()
        draining = asyncio.run_coroutine_threadsafe(connections.drain(WAIT), loop)
        assert until(talking, "response.done")["response"]["status"] == "incomplete"  # to its full length
        assert closed(talking) == closed(idle) == 1012
        draining.result(WAIT)
        assert httpx.get(f"http://{address}/readyz").status_code == 503
        with pytest.raises(InvalidStatus) as refused:
            realtime(address).__enter__()
        assert refused.value.response.status_code == 503


def test_draining_does_not_wait_for_a_reader_that_does_not_read(engine: Engine) -> None:
    with served(engine, send_seconds=WAIT) as (address, app), realtime(address, max_queue=1) as slow:
        until(slow, "session.created")
        connections = app.state.connections
        connection = next(iter(connections._open))
        slow.send(json.dumps({"type": "session.update", "session": {"instructions": "x" * 4000}}))
        until(slow, "session.updated")
        while connection._queue.qsize() < 100:  # the socket is full, and what follows waits
            slow.send(json.dumps({"type": "session.update", "session": {}}))
        loop = connection.closing.get_loop()
        asyncio.run_coroutine_threadsafe(connections.drain(0.0), loop).result(WAIT)
        assert not connections._open


def a_port() -> tuple[socket.socket, int]:
    """One that is taken while the socket is open."""
    taken = socket.create_server(("127.0.0.1", 0))
    return taken, taken.getsockname()[1]


def test_a_port_that_is_taken_is_told_in_a_line_before_the_model_is_loaded() -> None:
    taken, port = a_port()
    with taken:
        result = CliRunner().invoke(cli, ["serve", "--model", "no/such/model", "--port", str(port)])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"omnivox: port: found {port} at 127.0.0.1, where this server cannot listen (")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1:"), ("::1", "[::1]:"), ("[::1]", "[::1]:")])
def test_a_free_port_is_shown_as_it_stands_in_a_url(host: str, shown: str) -> None:
    try:
        sockets = bind(ServeSettings(host=host, port=0))
    except ConfigError:
        pytest.skip(f"this machine has no {host}")
    port = sockets[0].getsockname()[1]
    assert port > 0
    assert address_of(sockets) == f"{shown}{port}"
    for one in sockets:
        one.close()


def test_a_host_of_several_addresses_has_one_port_at_all() -> None:
    sockets = bind(ServeSettings(host="localhost", port=0))
    assert len({one.getsockname()[1] for one in sockets}) == 1
    for one in sockets:
        one.close()


@pytest.mark.parametrize("model", [".", "../bundle", "link"])
def test_a_folder_is_served_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "link").symlink_to(tmp_path / "bundle")
    monkeypatch.chdir(tmp_path / "bundle")
    served: list[str] = []
    monkeypatch.setattr("omnivox.cli.serve._serve", lambda *given: served.append(given[3].model_name))
    assert CliRunner().invoke(cli, ["serve", "--model", model]).exit_code == 0
    assert served == ["link" if model == "link" else "bundle"]


def test_a_real_process_ends_in_peace(nano_weights: Path) -> None:
    script = Path(sys.executable).with_name("omnivox")
    if not script.exists():
        pytest.skip("the console script is not installed")
    process = subprocess.Popen([script, "serve", "--port", "0", "--drain-seconds", "20"], stderr=subprocess.PIPE,
                               text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert process.stderr is not None
    try:
        address = next(line.split("http://")[1].split()[0] for line in process.stderr if "is the page" in line)
        with realtime(address) as socket:
            ask(socket)
            until(socket, "response.output_audio.delta")
            process.send_signal(signal.SIGTERM)
            assert until(socket, "response.done")["response"]["status"] == "completed"
            assert closed(socket) == 1012
        assert process.wait(WAIT) == 0
    finally:
        process.kill()
        process.stderr.close()
        process.wait()
