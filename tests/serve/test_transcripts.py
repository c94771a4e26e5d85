"""What a session heard, in writing."""

from __future__ import annotations

import asyncio

from omnivox.runtime.engine import Engine
from omnivox.serve.transcripts import BACKLOG
from tests.engines import stalled
from tests.serve.talking import WAIT, Client, Talk


def test_one_is_written_down_at_a_time_and_none_behind_the_client(talk: Talk, engine: Engine) -> None:
    kind = "conversation.item.input_audio_transcription"

    async def script(client: Client) -> None:
        await client.send("session.update", session={"audio": {"input": {
            "transcription": {"model": "any"}, "turn_detection": None}}})

        async def say(times: int) -> None:
            for _ in range(times):
                await client.sound(0.3)
                await client.send("input_audio_buffer.commit")
                await asyncio.sleep(0)  # what is to follow the answer is asked for

        with stalled(engine):
            await say(BACKLOG + 3)
            assert engine.stats().queued == 1
        await client.until(f"{kind}.completed", BACKLOG + 1)
        with stalled(engine):
            await say(3)
            client.session.end()
        said = [event["type"] for event in client.events]
        async with asyncio.timeout(WAIT):
            while engine.stats().busy or engine.stats().queued or engine._orders:
                await asyncio.sleep(0.01)
        assert [event["type"] for event in client.events] == said
        client.session.end = lambda: None  # type: ignore[method-assign]

    client = talk(script)
    heard = [event["item_id"] for event in client.events if event["type"] == "input_audio_buffer.committed"]
    told = [event["item_id"] for event in client.events if event["type"] == f"{kind}.completed"]
    failed = [event for event in client.events if event["type"] == f"{kind}.failed"]
    assert told == heard[:BACKLOG + 1]
    assert [event["item_id"] for event in failed] == heard[BACKLOG + 1:BACKLOG + 3]
    assert "wait to be written down" in failed[0]["error"]["message"]
