"""The app as replicas on a Ray cluster. The slow tests start one on this machine, and come to it as clients do."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from omnivox.errors import ConfigError
from omnivox.runtime.engine import EngineSettings
from omnivox.serve import ray as module
from omnivox.serve.ray import REPLICA_HEADER, SESSION_HEADER, RaySettings, build, run
from omnivox.serve.settings import ServeSettings

WAIT = 240  # seconds until a test gives up
SERVER = """
import sys
import ray
from omnivox.runtime.engine import Engine, EngineSettings
from omnivox.serve.ray import RaySettings, run
from omnivox.serve.settings import ServeSettings

def make_engine():
    from tests import tiny
    return Engine(tiny.omni(end_ids=()), EngineSettings(slots=2, context=256, reply_tokens=200))

port, folder, sticky = sys.argv[1:]
ray.init(num_cpus=2, object_store_memory=80 * 2**20, include_dashboard=False, _temp_dir=folder)
run(make_engine, ServeSettings(model_name="tiny", port=int(port), drain_seconds=1),
    RaySettings(replicas=2, cpus=0.5, sticky=sticky == "sticky"))
"""


# -- without a cluster ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("changes", "message"), [
    ({"replicas": 0}, "replicas: found 0"), ({"replicas": 1.5}, "replicas: found 1.5"),
    ({"cpus": -1}, "cpus: found -1"), ({"gpus": "all"}, "gpus: found 'all'"),
])
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RaySettings(**changes)


def test_elsewhere_needs_a_key_here_too() -> None:
    with pytest.raises(ConfigError, match="no API key"):
        run(lambda: pytest.fail("nothing is loaded"), ServeSettings(host="0.0.0.0"), RaySettings())


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "ray.serve", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'omnivox\[ray,serve\]'"):
        module.application(lambda: pytest.fail("nothing is loaded"), ServeSettings(), RaySettings())


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `build` gives to `application`."""
    found: list[Any] = []
    monkeypatch.setattr(module, "application", lambda *args: found.extend(args))
    monkeypatch.delenv("OMNIVOX_API_KEYS", raising=False)
    return found


def test_a_configuration_file_says_everything(built: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIVOX_API_KEYS", "one two")
    build({"model": "nano", "slots": "4", "context": 512, "replicas": 3, "gpus": "0.5", "sticky": True,
           "max_sessions": "16", "log_content": "false", "allowed_origins": "https://a.example https://b.example"})
    make_engine, settings, cluster = built
    assert settings == ServeSettings(host="0.0.0.0", api_keys=("one", "two"), max_sessions=16, model_name="nano",
                                     allowed_origins=("https://a.example", "https://b.example"))
    assert cluster == RaySettings(replicas=3, gpus=0.5, sticky=True)
    assert callable(make_engine)


def test_the_engine_that_a_configuration_names_is_made(built: list[Any], nano_weights: Path) -> None:
    build({"slots": "3", "allow_public": "true", "device": "cpu", "dtype": "float32"})
    engine = built[0]()
    assert engine.settings == EngineSettings(slots=3)
    assert not engine.alive  # the replica starts it


def test_a_gpu_is_kept_for_each_replica_that_wants_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Any] = []
    monkeypatch.setattr(module, "run", lambda *args: ran.append(args[2]))
    for device in ("cpu", "cuda"):
        module.serve("nano", {"device": device}, EngineSettings(), ServeSettings(), 3)
    assert ran == [RaySettings(3), RaySettings(3, gpus=1.0)]


@pytest.mark.parametrize(("args", "message"), [
    ({}, "no API key"),
    ({"slots": "many", "allow_public": True}, "slots: found 'many'; expected such as 8"),
    ({"sticky": "perhaps", "allow_public": True}, "sticky: found 'perhaps'"),
    ({"slots": 0, "allow_public": True}, "slots: found 0"),
    ({"replica": 2, "allow_public": True}, "args: found replica; expected model, what"),
    ({"api_keys": "secret", "allow_public": True}, "args: found api_keys"),
    ({"port": 80, "allow_public": True}, "args: found port"),
])
def test_a_configuration_that_makes_no_sense_is_refused(args: dict[str, Any], message: str, built: list[Any]) -> None:
    with pytest.raises(ConfigError, match=message):
        build(args)
    assert not built


# -- a cluster --------------------------------------------------------------------------------------------------------

@dataclass
class Cluster:
    """The address of Ray's proxy, and the process that runs the cluster."""

    address: str
    process: subprocess.Popen[str]

    def replicas(self) -> set[int]:
        """Process ids of the replicas."""
        parents = {pid: parent for pid, parent, _ in processes()}

        def ours(pid: int) -> bool:
            while pid in parents and pid != self.process.pid:
                pid = parents[pid]
            return pid == self.process.pid

        return {pid for pid, _, name in processes() if name.startswith("ray::ServeReplica") and ours(pid)}

    def talk(self, **headers: str) -> ClientConnection:
        return connect(f"ws://{self.address}/v1/realtime?model=tiny", additional_headers=headers, open_timeout=60)

    def who(self, **headers: str) -> str:
        """The replica that answers a request."""
        found = httpx.get(f"http://{self.address}/v1/models", headers=headers, timeout=60)
        assert found.status_code == 200
        return found.headers[REPLICA_HEADER]


def processes() -> Iterator[tuple[int, int, str]]:
    """Each process's id, its parent's, and its command line."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            yield int(folder.name), parent, (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it has ended meanwhile
            continue


@contextmanager
def cluster(root: Path, kind: str) -> Iterator[Cluster]:
    """A server on a Ray cluster of its own; afterwards it is told to end, and must."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed: pip install '.[ray]'")
    if not Path("/proc/self/stat").exists():
        pytest.skip("the replicas' processes are found in /proc")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="ray")  # the path of a socket in it must be short
    # A token of this cluster's own, given so that Ray keeps none in the home directory.
    env = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "token",
                        "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with open(Path(folder) / "output", "w+") as output:  # noqa: PTH123
        process = subprocess.Popen([sys.executable, "-c", SERVER, str(port), folder, kind], cwd=root, env=env,
                                   stdout=output, stderr=subprocess.STDOUT, text=True)
        found = Cluster(f"127.0.0.1:{port}", process)
        try:
            wait_until(lambda: process.poll() is not None or ready(found), "it never became ready")
            assert process.poll() is None, Path(output.name).read_text()[-3000:]
            yield found
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                status = process.wait(WAIT)
            finally:
                process.kill()
                said = Path(output.name).read_text()
                shutil.rmtree(folder, ignore_errors=True)
        assert status == 0, said[-3000:]


def ready(found: Cluster) -> bool:
    """Whether both replicas answer."""
    try:
        answers = [httpx.get(f"http://{found.address}/readyz", timeout=60) for _ in range(8)]
    except httpx.TransportError:
        return False
    return len({answer.headers.get(REPLICA_HEADER) for answer in answers if answer.status_code == 200}) == 2


def wait_until(true: Any, otherwise: str) -> None:
    pause = threading.Event()
    for _ in range(4 * WAIT):
        if true():
            return
        pause.wait(0.25)
    pytest.fail(otherwise)


def begin_answer(talk: ClientConnection) -> None:
    """Ask, and hear the first of the answer."""
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "word1 word2"}]}
    talk.send(json.dumps({"type": "conversation.item.create", "item": item}))
    talk.send(json.dumps({"type": "response.create"}))
    while not json.loads(talk.recv(60))["type"].endswith(".delta"):
        pass


def end_answer(talk: ClientConnection) -> str:
    """Hear the rest of it."""
    while (event := json.loads(talk.recv(60)))["type"] != "response.done":
        pass
    return event["response"]["status"]


def cut_off(talk: ClientConnection) -> bool:
    """Whether the connection has ended before the answer has."""
    try:
        end_answer(talk)
    except ConnectionClosed:
        return True
    return False


@pytest.mark.slow
def test_a_replica_that_dies_takes_its_own_clients_with_it_and_they_find_another(root: Path) -> None:
    with cluster(root, "by load") as server, ExitStack() as stack:
        talks = [stack.enter_context(server.talk()) for _ in range(4)]
        where = [talk.response.headers[REPLICA_HEADER] for talk in talks]
        assert sorted(where.count(replica) for replica in set(where)) == [2, 2]  # two each
        before = server.replicas()
        for talk in talks:
            begin_answer(talk)
        os.kill(min(before), signal.SIGKILL)  # in mid-answer

        lost = [cut_off(talk) for talk in talks]
        gone = {replica for replica, cut in zip(where, lost, strict=True) if cut}
        assert len(gone) == 1  # all clients of one replica, none of the other
        assert lost.count(True) == lost.count(False) == 2
        for talk, cut in zip(talks, lost, strict=True):
            if not cut:  # the rest go on
                begin_answer(talk)
                assert end_answer(talk) == "incomplete"  # at its longest
        [left] = set(where) - gone
        for _ in range(2):  # and those who lost theirs find the other
            again = stack.enter_context(server.talk())
            assert again.response.headers[REPLICA_HEADER] == left
            begin_answer(again)
            assert end_answer(again) == "incomplete"

        wait_until(lambda: len(server.replicas()) == 2, "the dead replica was not replaced")
        wait_until(lambda: server.who() not in where, "the new replica is asked nothing")
    assert not server.replicas()


@pytest.mark.slow
def test_the_same_session_comes_to_the_same_replica(root: Path) -> None:
    with cluster(root, "sticky") as server:
        names = [f"visitor{i}" for i in range(12)]
        first = {name: server.who(**{SESSION_HEADER: name}) for name in names}
        assert len(set(first.values())) == 2  # visitors are spread over both
        for name in names:
            assert server.who(**{SESSION_HEADER: name}) == first[name]
            with server.talk(**{SESSION_HEADER: name}) as talk:
                assert talk.response.headers[REPLICA_HEADER] == first[name]
                assert json.loads(talk.recv(60))["type"] == "session.created"
        with pytest.raises(InvalidStatus) as caught, server.talk(Origin="http://evil.example"):
            pass
        assert caught.value.response.status_code == 403  # the app's own guard stands behind Ray's proxy
