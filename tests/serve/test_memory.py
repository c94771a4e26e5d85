"""What sessions leave behind: nothing."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import platform
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from omnivox.serve import memory
from tests.engines import until
from tests.serve.talking import Client, Talk


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Python does not look for cycles."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("answered", [True, False])
def test_what_was_heard_and_said_is_gone_with_its_session(talk: Talk, no_collector: None, answered: bool) -> None:
    known: list[weakref.ref[object]] = []

    async def script(client: Client) -> None:
        responses = client.session._responses
        if answered:
            await client.ask()
            await client.until("response.output_audio.delta")
            answer = responses.answer or responses.sounding
            assert answer is not None
            known.extend(map(weakref.ref, (answer, answer.job)))
            await client.until("response.done")
        else:  # prepared, and thrown away
            await client.sound(0.8)
            await client.sound(0.3, loud=False)
            assert responses._prepared is not None
            known.append(weakref.ref(responses._prepared.job))
        known.append(weakref.ref(responses))

    talk(script)
    until(lambda: all(one() is None for one in known))


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_goes_back_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SECONDS", 0.0)
    library = ctypes.CDLL(None)
    library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    size = 100_000
    blocks = [library.malloc(size) for _ in range(1000)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks[::2]:  # what is between stays
        library.free(block)
    before = resident()

    async def some() -> None:
        tidying = asyncio.create_task(memory.tidy())
        while resident() > before - 250 * size:
            await asyncio.sleep(0.01)
        tidying.cancel()

    try:
        asyncio.run(asyncio.wait_for(some(), 60))
    finally:
        for block in blocks[1::2]:
            library.free(block)
