"""nano on a port of its own, for tests that come as strangers do, and the folder that a page's snippet runs in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import tiny

if TYPE_CHECKING:
    from openai import OpenAI

    from omnivox.runtime.engine import Engine
    from omnivox.runtime.respond import Omni
    from tests.serve.asking import Running
    from tests.serve.talking import Talk


@pytest.fixture(scope="module")
def address(nano_weights: Path) -> Iterator[str]:
    """Where nano is served, such as 127.0.0.1:54321."""
    pytest.importorskip("fastapi")
    pytest.importorskip("websockets")
    import omnivox
    from tests.serve.live import served

    with served(omnivox.load("nano", device="cpu")) as found:
        yield found


@pytest.fixture(scope="session")
def spoken(question: Path) -> bytes:
    """The bundled question as the protocol's sound."""
    from omnivox.sound import read_audio
    from tests.serve.live import pcm

    return pcm(read_audio(question, 24_000).numpy())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: Path, spoken: bytes) -> Path:
    """The current folder, with the question in it as file and as bare sound."""
    shutil.copy(question, tmp_path / "question.wav")
    (tmp_path / "question.pcm").write_bytes(spoken)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def omni() -> Omni:
    """A tiny model whose answers never end by themselves."""
    return tiny.omni(end_ids=())


@pytest.fixture(scope="module")
def engine(omni: Omni) -> Iterator[Engine]:
    """That model at work."""
    from omnivox.runtime.engine import Engine, EngineSettings

    with Engine(omni, EngineSettings(slots=4, reply_tokens=60)) as running:
        yield running


@pytest.fixture(scope="module")
def server(omni: Omni) -> Iterator[Running]:
    """That model behind the whole app."""
    from omnivox.runtime.engine import Engine, EngineSettings
    from tests.serve.asking import TOKENS, running

    with Engine(omni, EngineSettings(slots=4, context=256, reply_tokens=TOKENS)) as engine, running(engine) as found:
        yield found


@pytest.fixture
def client(server: Running) -> Iterator[OpenAI]:
    """OpenAI's own client of it."""
    with server.client() as found:
        yield found


@pytest.fixture
def talk(engine: Engine) -> Iterator[Talk]:
    """Runs a script with a client of its own, and gives the client afterwards."""
    from tests.serve.talking import talks

    with ThreadPoolExecutor(1) as pool:
        yield talks(engine, pool)
