"""omnivox's own client, `omnivox chat` and openai's client against our server.

The snippets are those of README and docs/connect.md; a package that is not installed is skipped.
"""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("fastapi")
pytest.importorskip("websockets")

import omnivox
from omnivox.runtime.engine import EngineSettings
from omnivox.runtime.remote import Interrupted, talk
from omnivox.runtime.wire import AudioFormat, WireDecoder, WireEncoder
from omnivox.sound import read_audio
from tests import tiny
from tests.serve.live import served
from tests.serve.running import WAIT
from tests.serve.snippets import ANSWER, RATE, WORDS, loudness, run, snippet

MARK = "<!-- run with a server -->"
MANUAL = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}


def test_every_snippet_that_needs_a_server_is_run(root: Path) -> None:
    tests = "".join(file.read_text() for file in sorted((root / "tests" / "serve").glob("test_clients*.py")))
    for page in [root / "README.md", *(root / "docs").glob("*.md")]:
        for section in page.read_text().split("\n## ")[1:]:
            if MARK in section:
                assert page.name in ("README.md", "connect.md")
                assert section.count(MARK) == 1
                assert f'snippet("{section.splitlines()[0]}"' in tests


def test_the_snippet_of_the_readme(address: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(snippet("Serve, and connect your own app", "python", address, root, "README.md"))
    assert "Rome" in capsys.readouterr().out


# -- ours -------------------------------------------------------------------------------------------------------------

def test_our_own_client(address: str, root: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = run(snippet("omnivox", "python", address, root))
    said = capsys.readouterr().out
    assert ANSWER in said
    assert "Rome" in said
    assert len(names["reply"].audio) > names["client"].sample_rate // 2


def heard(question: Path, rate: int) -> torch.Tensor:
    """What the server hears of a question: it goes through the wire's rate."""
    encoder, decoder = WireEncoder(AudioFormat(), rate), WireDecoder(AudioFormat())
    sent = encoder.push(read_audio(question, rate).numpy()) + encoder.flush()
    return torch.from_numpy(np.concatenate([decoder.push(sent), decoder.flush()]))


def test_our_own_client_hears_what_the_model_says_itself(address: str, question: Path) -> None:
    with omnivox.Client(f"http://{address}") as client:
        *_, theirs = client.ask(question)
        *_, ours = omnivox.load("nano", device="cpu").respond(heard(question, client.sample_rate))
    assert theirs.reply.text == ours.reply.text
    assert len(theirs.reply.audio) == len(ours.reply.audio)
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


def test_a_key_is_asked_for_and_taken() -> None:
    with served(tiny.omni(), EngineSettings(context=256), api_keys=("secret",)) as address:
        with pytest.raises(omnivox.ConfigError, match="an API key is needed; give api_key"):
            omnivox.Client(f"http://{address}")
        with pytest.raises(omnivox.ConfigError, match="the API key was refused"):
            omnivox.Client(f"http://{address}", api_key="wrong")
        with omnivox.Client(f"http://{address}", api_key="secret", session={"max_output_tokens": 4}) as client:
            *_, done = client.ask("word1 word2")
            assert done.reply.text


def test_a_setting_that_the_model_lacks_is_refused_by_name() -> None:
    with served(tiny.omni(), EngineSettings(context=256)) as address:
        with pytest.raises(omnivox.ConfigError, match=r"session: the server refused it: .*audio\.output\.voice"):
            omnivox.Client(f"http://{address}", session={"audio": {"output": {"voice": "baritone"}}})
        with pytest.raises(omnivox.ConfigError, match="check the address"):
            omnivox.Client(f"http://{address}/elsewhere")


class Desk:
    """A microphone that hears the question, and once more over the answer; a speaker that plays nothing at all."""

    def __init__(self, question: torch.Tensor, again: bool) -> None:
        quiet = torch.zeros(12_000)
        self.blocks = list(torch.cat([quiet, question, quiet]).split(512))
        self.later = list(torch.cat([question, quiet]).split(512)) if again else []
        self.answered = threading.Event()
        self.queued = 0

    def record(self) -> torch.Tensor | None:
        if not self.blocks and self.later:
            assert self.answered.wait(WAIT)
            self.blocks, self.later = self.later, []
        return self.blocks.pop(0) if self.blocks else None

    def play(self, samples: torch.Tensor, rate: int) -> None:
        self.queued += len(samples)
        self.answered.set()

    def drain(self) -> None:
        self.queued = 0

    def stop(self) -> float:
        dropped, self.queued = self.queued, 0
        return dropped / 16_000


@pytest.mark.parametrize("headphones", [False, True])
def test_omnivox_chat(address: str, question: Path, headphones: bool) -> None:
    desk = Desk(read_audio(question), again=headphones)
    events = list(talk(f"http://{address}", desk, headphones=headphones, silence_ms=400, chunk_units=20))
    assert events[-1].reply.text == ANSWER  # type: ignore[union-attr]
    assert [event for event in events if isinstance(event, Interrupted)] == [Interrupted(0)] * headphones
    text = "".join(event.delta for event in events if isinstance(event, omnivox.Text))
    assert text.endswith(ANSWER)
    assert (desk.queued > 8_000) == headphones  # nobody waits until it has been heard


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
