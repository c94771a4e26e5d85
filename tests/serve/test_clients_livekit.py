"""LiveKit's realtime model without a room, against our server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("livekit.plugins.openai", exc_type=ImportError)

from tests.serve.running import WAIT
from tests.serve.snippets import ANSWER, RATE, WORDS, loudness, run, snippet


@pytest.fixture
def livekit_model(address: str, root: Path) -> Any:
    return run(snippet("LiveKit Agents", "python", address, root))["model"]


@asynccontextmanager
async def livekit_session(model: Any) -> AsyncIterator[tuple[Any, asyncio.Queue[Any], list[Any]]]:
    """A session without a room, what it generates of itself, and its errors."""
    session = model.session()
    generated: asyncio.Queue[Any] = asyncio.Queue()
    errors: list[Any] = []
    session.on("generation_created", generated.put_nowait)
    session.on("error", errors.append)
    try:
        async with asyncio.timeout(WAIT):
            yield session, generated, errors
    finally:
        await session.aclose()
        await model.aclose()


async def livekit_reply(generation: Any) -> tuple[str, str, bytes]:
    """Id, text and sound of its one message."""
    async for message in generation.message_stream:
        async def write(stream: Any = message.text_stream) -> str:
            return "".join([str(delta) async for delta in stream])

        async def hear(stream: Any = message.audio_stream) -> bytes:
            return b"".join([bytes(frame.data) async for frame in stream])

        text, sound = await asyncio.gather(write(), hear())
        return message.message_id, text, sound
    raise AssertionError("no message came")


def frame_of(data: bytes) -> Any:
    from livekit import rtc

    return rtc.AudioFrame(data=data, sample_rate=RATE, num_channels=1, samples_per_channel=len(data) // 2)


def test_livekit_is_spoken_to_and_answers(livekit_model: Any, spoken: bytes) -> None:
    """By its own default, semantic_vad."""
    async def talk() -> None:
        async with livekit_session(livekit_model) as (session, generated, errors):
            started, stopped = asyncio.Event(), asyncio.Event()
            session.on("input_speech_started", lambda event: started.set())
            session.on("input_speech_stopped", lambda event: stopped.set())
            stream = bytes(RATE) + spoken + bytes(2 * RATE * 5)  # semantic_vad may wait for some seconds
            for start in range(0, len(stream), 960):
                session.push_audio(frame_of(stream[start:start + 960]))
            _, text, sound = await livekit_reply(await generated.get())
            assert text == ANSWER
            assert loudness(sound) > 0.01
            assert started.is_set()
            assert stopped.is_set()
            assert not errors

    asyncio.run(talk())


def test_livekit_pushes_to_talk(livekit_model: Any, spoken: bytes) -> None:
    async def talk() -> None:
        async with livekit_session(livekit_model) as (session, _, errors):
            session.update_options(turn_detection=None)
            session.push_audio(frame_of(spoken))
            session.commit_audio()
            generation = await session.generate_reply()
            assert generation.user_initiated
            _, text, sound = await livekit_reply(generation)
            assert text == ANSWER
            assert len(sound) > RATE
            assert not errors

    asyncio.run(talk())


def test_livekit_writes_its_history_and_asks(livekit_model: Any) -> None:
    async def talk() -> None:
        from livekit.agents import llm

        async with livekit_session(livekit_model) as (session, _, errors):
            context = llm.ChatContext.empty()
            context.add_message(role="user", content="What is the capital of Italy?")
            context.add_message(role="assistant", content="The capital of Italy is Rome.")
            asked = context.add_message(role="user", content=WORDS)
            await session.update_chat_ctx(context)
            assert [item.id for item in session.chat_ctx.items] == [item.id for item in context.items]
            message, text, _ = await livekit_reply(await session.generate_reply())
            assert text == ANSWER
            assert [item.id for item in session.chat_ctx.items] == [*(item.id for item in context.items), message]

            context.items.remove(asked)  # and takes a line back
            await session.update_chat_ctx(context)
            assert [item.id for item in session.chat_ctx.items] == [item.id for item in context.items]
            assert not errors

    asyncio.run(talk())


def test_livekit_interrupts_and_truncates(livekit_model: Any) -> None:
    async def talk() -> None:
        from livekit.agents import llm

        async with livekit_session(livekit_model) as (session, _, errors):
            context = llm.ChatContext.empty()
            context.add_message(role="user", content=WORDS)
            await session.update_chat_ctx(context)
            message, text, _ = await livekit_reply(await session.generate_reply())
            assert text == ANSWER
            session.truncate(message_id=message, modalities=["audio", "text"], audio_end_ms=100)
            again = await session.generate_reply()
            session.interrupt()
            await livekit_reply(again)
            session.truncate(message_id=message, modalities=["audio", "text"], audio_end_ms=0)  # nothing was heard
            context.add_message(role="user", content=WORDS)
            await session.generate_reply()
            assert not errors

    asyncio.run(talk())
