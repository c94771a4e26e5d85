"""Real clients of the Realtime protocol, as they are installed, against our server.

Their snippets are those of docs/connect.md, word for word but the address. A package that is not installed is skipped.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("websockets")

import omnivox
from omnivox.sound import read_audio
from tests.serve.live import pcm, served
from tests.serve.running import WAIT
from tests.test_readme import blocks

RATE = 24_000  # of the protocol's sound
WORDS = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
MANUAL = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
PLACE = "127.0.0.1:8000"  # as the page writes it


@pytest.fixture(scope="module")
def address(nano_weights: Path) -> Iterator[str]:
    with served(omnivox.load("nano", device="cpu")) as found:
        yield found


@pytest.fixture(scope="module")
def spoken(question: Path) -> bytes:
    """The bundled question on the wire."""
    return pcm(read_audio(question, RATE).numpy())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: Path, spoken: bytes) -> Path:
    """The folder that a snippet runs in."""
    shutil.copy(question, tmp_path / "question.wav")
    (tmp_path / "question.pcm").write_bytes(spoken)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def snippet(heading: str, language: str, address: str, root: Path) -> str:
    """The code below that heading of docs/connect.md, with another address."""
    page = root / "docs" / "connect.md"
    lines = page.read_text().splitlines()
    [start] = [number for number, line in enumerate(lines, 1) if line == f"## {heading}"]
    code = next(block for block in blocks(page, language) if block.line > start)
    assert PLACE in code.text
    return code.text.replace(PLACE, address)


def run(code: str) -> dict[str, Any]:
    """Runs it as a script; gives its names."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, "docs/connect.md", "exec"), names)
    return names


def loudness(sound: bytes) -> float:
    """Root mean square of 16-bit sound, of full scale."""
    samples = np.frombuffer(sound, "<i2").astype(np.float64) / 32768
    return float(np.sqrt(np.mean(samples**2)))


# -- ours -------------------------------------------------------------------------------------------------------------

def test_our_own_client(address: str, root: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = run(snippet("omnivox", "python", address, root))
    said = capsys.readouterr().out
    assert ANSWER in said
    assert "Rome" in said
    assert len(names["reply"].audio) > names["client"].sample_rate // 2


def test_our_own_client_hears_what_the_model_says_itself(address: str, question: Path) -> None:
    *_, ours = omnivox.load("nano", device="cpu").respond(question)
    with omnivox.Client(f"http://{address}") as client:
        *_, theirs = client.ask(question)
    assert theirs.reply.text == ours.reply.text
    assert abs(len(theirs.reply.audio) - len(ours.reply.audio)) <= 400  # the question went through 24 kHz
    with omnivox.Client(f"http://{address}", session={"output_modalities": ["text"]}) as client:
        events = list(client.ask(question))
    assert not any(isinstance(event, omnivox.Audio) for event in events)
    assert events[-1].reply.text == ours.reply.text


def test_stopping_early_leaves_the_conversation_whole(address: str) -> None:
    with omnivox.Client(f"http://{address}") as client:
        for event in client.ask("Tell me a poem."):
            if isinstance(event, omnivox.Audio):
                break
        *_, done = client.ask(WORDS)
        assert done.reply.text == ANSWER


# -- openai -----------------------------------------------------------------------------------------------------------

def check(event: Any) -> None:
    """Asserts that an event has every field of openai's own type, of its type, and no other."""
    from openai.types.realtime import RealtimeServerEvent
    from pydantic import TypeAdapter

    shown = event.to_dict(mode="json")
    whole = TypeAdapter(RealtimeServerEvent).validate_python(shown)
    assert type(whole) is type(event), shown

    def extra(model: Any, path: str) -> list[str]:
        if isinstance(model, list):
            return [name for i, each in enumerate(model) for name in extra(each, f"{path}[{i}]")]
        if not hasattr(model, "model_extra"):
            return []
        return [f"{path}.{name}" for name in model.model_extra or {}] + [
            name for field in type(model).model_fields for name in extra(getattr(model, field), f"{path}.{field}")]

    # openai's type of a session is that of a request, which lacks these two; its type of a response has them.
    assert set(extra(whole, event.type)) <= {f"{event.type}.session.id", f"{event.type}.session.object"}


@asynccontextmanager
async def openai_connection(address: str) -> AsyncIterator[Any]:
    from openai import AsyncOpenAI

    client = AsyncOpenAI(api_key="none", base_url=f"http://{address}/v1", websocket_base_url=f"ws://{address}/v1")
    async with client, client.realtime.connect(model="nano") as connection:
        yield connection


async def listen(connection: Any, kind: str = "response.done") -> list[Any]:
    """Every event up to the first of that type, each checked."""
    seen = []
    async with asyncio.timeout(WAIT):
        async for event in connection:
            check(event)
            seen.append(event)
            if event.type == kind:
                break
    return seen


def kinds(events: list[Any]) -> list[str]:
    """Their types, repeated ones once, as text and sound come interleaved."""
    found: list[str] = []
    for event in events:
        if not (event.type.endswith(".delta") and event.type in found):
            found.append(event.type)
    return found


OPENED = ["response.created", "response.output_item.added", "conversation.item.added", "response.content_part.added"]
CLOSED = ["response.output_audio.done", "response.output_audio_transcript.done", "response.content_part.done",
          "response.output_item.done", "conversation.item.done", "response.done"]
DELTAS = {"response.output_audio_transcript.delta", "response.output_audio.delta"}


def answered(events: list[Any]) -> None:
    """Asserts that these are a whole spoken answer, in order, with the right words."""
    names = kinds(events)
    assert names[:4] == OPENED
    assert set(names[4:-6]) == DELTAS
    assert names[-6:] == CLOSED
    done = events[-1].response
    assert done.status == "completed"
    assert done.output[0].content[0].transcript == ANSWER
    assert "".join(event.delta for event in events if event.type.endswith("transcript.delta")) == ANSWER
    sound = b"".join(base64.b64decode(event.delta) for event in events if event.type == "response.output_audio.delta")
    assert len(sound) > RATE
    assert loudness(sound) > 0.01
    assert {event.response_id for event in events if hasattr(event, "response_id")} == {done.id}
    assert {event.item_id for event in events if hasattr(event, "item_id")} == {done.output[0].id}
    usage = done.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens > 0


def test_openai_as_the_page_says(address: str, root: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openai")
    run(snippet("openai", "python", address, root))
    assert capsys.readouterr().out == ANSWER
    assert loudness((folder / "answer.pcm").read_bytes()) > 0.01


def test_openai_with_manual_turns(address: str, spoken: bytes) -> None:
    pytest.importorskip("openai")

    async def talk() -> None:
        async with openai_connection(address) as connection:
            await connection.session.update(session=MANUAL)
            await connection.input_audio_buffer.append(audio=base64.b64encode(spoken).decode())
            await connection.input_audio_buffer.commit()
            await connection.response.create()
            events = await listen(connection)
            start = ["session.created", "session.updated", "input_audio_buffer.committed", "conversation.item.added",
                     "conversation.item.done"]
            assert [event.type for event in events[:5]] == start
            assert events[1].session.audio.input.turn_detection is None
            assert events[2].item_id == events[3].item.id == events[4].item.id
            assert events[3].item.role == "user"
            assert events[3].item.content[0].type == "input_audio"
            answered(events[5:])

    asyncio.run(talk())


def test_openai_with_the_server_deciding_about_turns(address: str, spoken: bytes) -> None:
    pytest.importorskip("openai")

    async def talk() -> None:
        async with openai_connection(address) as connection:
            stream = bytes(RATE) + spoken + bytes(2 * RATE)  # half a second of silence, the question, a second
            for start in range(0, len(stream), 960):  # packets of 20 ms
                await connection.input_audio_buffer.append(audio=base64.b64encode(stream[start:start + 960]).decode())
            events = await listen(connection)
            assert [event.type for event in events[:6]] == [
                "session.created", "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped",
                "input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]
            assert events[0].session.audio.input.turn_detection.type == "server_vad"
            started, stopped, committed, added = events[1:5]
            assert started.item_id == stopped.item_id == committed.item_id == added.item.id
            length = len(spoken) // 48
            assert 0 <= started.audio_start_ms <= 700
            assert 0.6 * length <= stopped.audio_end_ms - started.audio_start_ms <= length + 700
            answered(events[6:])

    asyncio.run(talk())


def test_openai_with_a_written_question(address: str) -> None:
    pytest.importorskip("openai")

    async def talk() -> None:
        async with openai_connection(address) as connection:
            content = [{"type": "input_text", "text": WORDS}]
            await connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
            await connection.response.create()
            events = await listen(connection)
            assert [event.type for event in events[:3]] == ["session.created", "conversation.item.added",
                                                            "conversation.item.done"]
            answered(events[3:])
            await connection.response.create(response={"output_modalities": ["text"], "metadata": {"turn": "2"}})
            events = await listen(connection)
            assert events[0].response.metadata == events[-1].response.metadata == {"turn": "2"}
            assert "response.output_text.done" in kinds(events)
            assert not DELTAS & set(kinds(events))
            assert events[-1].response.output[0].content[0].type == "output_text"

    asyncio.run(talk())


def test_openai_cancels(address: str) -> None:
    pytest.importorskip("openai")

    async def talk() -> None:
        async with openai_connection(address) as connection:
            content = [{"type": "input_text", "text": "Tell me a poem."}]
            await connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
            await connection.response.create()
            await connection.response.cancel()
            events = await listen(connection)
            done = events[-1].response
            assert done.status == "cancelled"
            assert done.status_details.reason == "client_cancelled"
            assert kinds(events)[-6:] == CLOSED
            await connection.response.create()  # the session goes on
            assert (await listen(connection))[-1].response.status == "completed"

    asyncio.run(talk())


def test_openais_push_to_talk_example(address: str, spoken: bytes) -> None:
    """It cancels first, whether there is anything to cancel or not."""
    pytest.importorskip("openai")

    async def talk() -> None:
        async with openai_connection(address) as connection:
            await connection.session.update(session=MANUAL)
            for turn in range(2):
                await connection.send({"type": "response.cancel"})
                for start in range(0, len(spoken), 4800):
                    await connection.input_audio_buffer.append(
                        audio=base64.b64encode(spoken[start:start + 4800]).decode())
                await connection.input_audio_buffer.commit()
                await connection.response.create()
                events = await listen(connection)
                [refused] = [event for event in events if event.type == "error"]
                assert refused.error.code == "response_cancel_not_active"
                answered(events[events.index(refused) + 4:])
                assert len(events[:events.index(refused)]) == (0 if turn else 2)

    asyncio.run(talk())


# -- Pipecat ----------------------------------------------------------------------------------------------------------

def pipecat(llm: Any, frames: list[Any], until: type) -> list[Any]:
    """Puts `frames` into a pipeline of `llm` alone; gives what comes out, up to the first frame of that type."""
    from pipecat.frames.frames import EndFrame, ErrorFrame
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineWorker
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
    from pipecat.workers.runner import WorkerRunner

    class Sink(FrameProcessor):
        """Keeps what comes; an error travels up, so there is one at either end."""

        async def process_frame(self, frame: Any, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            came.append(frame)
            if isinstance(frame, until | ErrorFrame):
                finished.set()
            await self.push_frame(frame, direction)

    came: list[Any] = []

    async def talk() -> None:
        worker = PipelineWorker(Pipeline([Sink(), llm, Sink()]), cancel_on_idle_timeout=False, enable_rtvi=False)
        started = asyncio.Event()

        @worker.event_handler("on_pipeline_started")
        async def on_started(worker: Any, frame: Any) -> None:
            started.set()

        async def push() -> None:
            await asyncio.wait_for(started.wait(), WAIT)
            for frame in frames:
                await worker.queue_frame(frame)
            await asyncio.wait_for(finished.wait(), WAIT)
            await worker.queue_frame(EndFrame())

        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        await asyncio.gather(runner.run(), push())

    finished = asyncio.Event()
    asyncio.run(talk())
    errors = [frame for frame in came if isinstance(frame, ErrorFrame)]
    assert not errors, errors
    return came


@pytest.fixture
def pipecat_service(address: str, root: Path) -> Any:
    pytest.importorskip("pipecat")
    return run(snippet("Pipecat", "python", address, root))["llm"]


def audio_frames(spoken: bytes) -> list[Any]:
    """A microphone's: a little silence, the question, a second of silence, in frames of 20 ms."""
    from pipecat.frames.frames import InputAudioRawFrame

    stream = bytes(RATE) + spoken + bytes(2 * RATE)
    return [InputAudioRawFrame(stream[start:start + 960], RATE, 1) for start in range(0, len(stream), 960)]


def test_pipecat_is_spoken_to_and_answers(pipecat_service: Any, spoken: bytes) -> None:
    from pipecat.frames import frames

    came = pipecat(pipecat_service, audio_frames(spoken), frames.TTSStoppedFrame)
    heard = "".join(frame.text for frame in came if isinstance(frame, frames.TTSTextFrame))
    assert heard == ANSWER
    sound = b"".join(frame.audio for frame in came if isinstance(frame, frames.TTSAudioRawFrame))
    assert len(sound) > RATE
    assert loudness(sound) > 0.01
    order = [type(frame) for frame in came if isinstance(frame, frames.LLMFullResponseStartFrame
                                                         | frames.TTSStartedFrame | frames.TTSStoppedFrame)]
    assert order == [frames.LLMFullResponseStartFrame, frames.TTSStartedFrame, frames.TTSStoppedFrame]
    proposed = {type(frame) for frame in came}
    assert {frames.ProposedUserStartedSpeakingFrame, frames.ProposedUserStoppedSpeakingFrame} <= proposed


def test_pipecat_sends_its_context(pipecat_service: Any) -> None:
    from pipecat.frames import frames
    from pipecat.processors.aggregators.llm_context import LLMContext

    context = LLMContext(messages=[{"role": "user", "content": WORDS}])
    came = pipecat(pipecat_service, [frames.LLMContextFrame(context)], frames.TTSStoppedFrame)
    assert "".join(frame.text for frame in came if isinstance(frame, frames.TTSTextFrame)) == ANSWER


def test_pipecat_is_interrupted(pipecat_service: Any) -> None:
    """It truncates what it has not played; that must not be an error, for any error ends its session."""
    from pipecat.frames import frames
    from pipecat.processors.aggregators.llm_context import LLMContext

    context = LLMContext(messages=[{"role": "user", "content": WORDS}])
    seen: list[str] = []
    truncate = pipecat_service._truncate_current_audio_response

    async def noted() -> None:
        seen.append("truncate" if pipecat_service._current_audio_response else "nothing to truncate")
        await truncate()

    pipecat_service._truncate_current_audio_response = noted
    handle = pipecat_service._handle_evt_audio_delta

    async def speak_over(event: Any) -> None:
        await handle(event)
        await pipecat_service._handle_interruption()

    pipecat_service._handle_evt_audio_delta = speak_over
    pipecat(pipecat_service, [frames.LLMContextFrame(context)], frames.LLMFullResponseEndFrame)
    assert "truncate" in seen


# -- LiveKit ----------------------------------------------------------------------------------------------------------

@pytest.fixture
def livekit_model(address: str, root: Path) -> Any:
    pytest.importorskip("livekit.plugins.openai")
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


# -- JavaScript -------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def packages(request: pytest.FixtureRequest) -> Path:
    """A folder with node's packages, filled once and kept in pytest's cache."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    folder = request.config.cache.mkdir("javascript")
    if not (folder / "node_modules" / "ws").exists():
        wanted = ["@openai/agents-realtime@0.20", "ws@8"]
        done = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", folder, *wanted],
                              capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            pytest.skip(f"npm cannot install {' '.join(wanted)}: {done.stderr.strip()[-200:]}")
    return folder


def node(code: str, packages: Path, folder: Path) -> str:
    """What a module prints."""
    script = packages / f"{folder.name}.mjs"
    script.write_text(code)
    try:
        done = subprocess.run(["node", script], cwd=folder, capture_output=True, text=True, timeout=WAIT, check=False,
                              env={name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"})
    finally:
        script.unlink()
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


def test_openai_agents(address: str, root: Path, folder: Path, packages: Path) -> None:
    said = node(snippet("OpenAI Agents, JavaScript", "js", address, root), packages, folder)
    assert said == ANSWER
    assert loudness((folder / "answer.pcm").read_bytes()) > 0.01


def test_openai_agents_session_with_turns_history_and_an_interruption(address: str, root: Path, folder: Path,
                                                                       packages: Path) -> None:
    """The whole of its RealtimeSession: its own defaults, history kept from items, and truncation."""
    code = """
        import { readFileSync } from "node:fs";
        import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession } from "@openai/agents-realtime";
        const transport = new OpenAIRealtimeWebSocket({ url: "ws://ADDRESS/v1/realtime?model=nano" });
        const session = new RealtimeSession(new RealtimeAgent({ name: "nano", instructions: "" }),
                                            { transport, model: "nano" });
        session.on("error", (error) => { console.error(JSON.stringify(error)); process.exit(1); });
        const turn = () => new Promise((resolve) => transport.once("turn_done", resolve));
        await session.connect({ apiKey: "none" });
        let done = turn();
        session.sendAudio(new Uint8Array(readFileSync("stream.pcm")).buffer);
        await done;
        const interrupted = new Promise((resolve) => session.once("audio_interrupted", resolve));
        const retrieved = new Promise((resolve) => transport.once("conversation.item.retrieved", resolve));
        done = turn();
        session.sendMessage("Tell me a poem.");
        session.once("audio", () => session.interrupt());
        await Promise.all([interrupted, retrieved, done]);
        done = turn();
        session.sendMessage("What is the capital of France?");
        await done;
        const said = session.history.map(({ role, content, status }) => [role, status, content[0]?.type,
                                                                         content[0]?.transcript ?? content[0]?.text]);
        console.log(JSON.stringify(said));
        session.close();
    """
    spoken = (folder / "question.pcm").read_bytes()
    (folder / "stream.pcm").write_bytes(bytes(RATE) + spoken + bytes(2 * RATE * 5))
    said = json.loads(node(code.replace("ADDRESS", address), packages, folder))
    assert [line[:3] for line in said] == [
        ["user", "completed", "input_audio"], ["assistant", "completed", "output_audio"],
        ["user", "completed", "input_text"], ["assistant", "incomplete", "output_audio"],
        ["user", "completed", "input_text"], ["assistant", "completed", "output_audio"]]
    assert said[1][3] == said[5][3] == ANSWER


def test_from_a_browser(address: str, root: Path, folder: Path, packages: Path) -> None:
    """With node's WebSocket of the same interface; the browser itself is driven by the tests of the page."""
    heard = 'import { WebSocket } from "ws";\nlet bytes = 0;\nconst play = (delta) => (bytes += delta.length);\n'
    code = snippet("From a browser", "js", address, root)
    said = node(f"{heard}{code}\nsocket.on('close', () => console.log(bytes, socket.protocol));", packages, folder)
    *words, last = said.splitlines()
    assert "".join(words) == ANSWER
    size, protocol = last.split()
    assert int(size) > RATE
    assert protocol == "realtime"
