"""One session: turns, prepared answers, interruptions, items."""

from __future__ import annotations

import asyncio
import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from omnivox.runtime.engine import Engine
from tests.engines import until
from tests.serve.talking import WAIT, Client, Talk


def test_a_spoken_turn_in_order(talk: Talk) -> None:
    async def script(client: Client) -> None:
        await client.ask()
        await client.until("response.done")

    client = talk(script)
    assert client.kinds() == [
        "session.created", "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed", "conversation.item.added", "conversation.item.done", "response.created",
        "response.output_item.added", "conversation.item.added", "response.content_part.added",
        "deltas", "response.output_audio.done",
        "response.output_audio_transcript.done", "response.content_part.done", "response.output_item.done",
        "conversation.item.done", "response.done"]
    ids = {event["item_id"] for event in client.events if event["type"].startswith("input_audio_buffer")}
    assert len(ids) == 1
    assert client.events[-1]["response"]["status"] == "incomplete"  # these models never end by themselves


def test_the_answer_was_prepared_while_the_speaker_paused(talk: Talk, engine: Engine) -> None:
    async def script(client: Client) -> None:
        await client.send("session.update", session={"omnivox": {"timings": True}})
        await client.sound(0.8)
        await client.sound(0.3, loud=False)
        prepared = client.session._responses._prepared
        assert prepared is not None
        async with asyncio.timeout(WAIT):
            while prepared.job.live:
                await asyncio.sleep(0.001)
        assert "response.created" not in client.kinds()
        await client.sound(0.4, loud=False)
        await client.until("response.output_audio.delta")
        assert client.session._responses.answer is None or client.session._responses.answer.job is prepared.job
        await client.until("response.done")

    client = talk(script)
    times = client.events[-1]["response"]["omnivox"]
    assert list(times) == ["pause_ms", "encode_ms", "prefill_ms", "first_token_ms", "first_audio_ms"]
    assert times["pause_ms"] <= times["first_audio_ms"]
    assert engine.stats().busy == 0


def test_pauses_without_end_keep_nobody_from_an_answer(engine: Engine) -> None:
    """As many as there are slots ask and send no more: others are answered, and they too once they go on."""
    async def script(pool: ThreadPoolExecutor) -> None:
        clients = [Client(engine, pool) for _ in range(engine.settings.slots + 1)]
        *pausing, other = clients
        async with asyncio.timeout(WAIT):
            for client in pausing:
                await client.sound(0.8)
                await client.sound(0.3, loud=False)
            while any(one is None or one.job.live for one in (c.session._responses._prepared for c in pausing)):
                await asyncio.sleep(0.001)
            await other.ask()
            await other.until("response.done")
            for client in pausing:
                await client.sound(0.4, loud=False)
            for client in pausing:
                assert (await client.until("response.done"))["response"]["status"] == "incomplete"  # to its full length
        for client in clients:
            assert not client.errors
            client.session.end()

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(script(pool))
    until(lambda: engine.stats().busy == engine.stats().queued == 0)


def test_what_was_prepared_is_thrown_away_where_the_speaker_goes_on(talk: Talk, engine: Engine) -> None:
    async def script(client: Client) -> None:
        await client.sound(0.8)
        await client.sound(0.3, loud=False)
        first = client.session._responses._prepared
        assert first is not None
        await client.sound(0.4)
        assert client.session._responses._prepared is None
        await client.sound(0.7, loud=False)
        await client.until("response.done")
        assert first.job.ended

    client = talk(script)
    assert client.kinds().count("response.created") == 1
    assert engine.stats().busy == 0


def test_speaking_over_the_answer_stops_it_and_what_was_not_heard_is_forgotten(talk: Talk) -> None:
    async def script(client: Client) -> None:
        await client.ask()
        await client.until("response.output_audio.delta")
        await client.sound(0.8)
        await client.until("input_audio_buffer.speech_started", 2)
        await client.until("response.done")
        item = client.events[-1]["response"]["output"][0]
        sounds = [e["delta"] for e in client.events if e["type"] == "response.output_audio.delta"]
        sent = sum(len(base64.b64decode(sound)) for sound in sounds)
        await client.send("conversation.item.truncate", item_id=item["id"], content_index=0, audio_end_ms=sent // 96)
        await client.send("conversation.item.retrieve", item_id=item["id"])
        await client.sound(0.7, loud=False)
        await client.until("response.done", 2)

    client = talk(script)
    first = next(event for event in client.events if event["type"] == "response.done")["response"]
    said = next(event for event in client.events if event["type"] == "response.output_audio_transcript.done")
    kept = next(event for event in client.events if event["type"] == "conversation.item.retrieved")["item"]
    transcript = kept["content"][0]["transcript"]
    assert said["transcript"].startswith(transcript)
    answer = next(item for item in client.remembered if item.role == "assistant")
    assert len(answer.content) < len(answer.whole)
    assert kept["status"] in ("completed", "incomplete")
    if first["status"] == "cancelled":  # else the answer had been made, and was still to be heard
        assert first["status_details"]["reason"] == "turn_detected"
    assert not client.errors


def test_a_cough_over_the_answer_interrupts_nothing(talk: Talk) -> None:
    async def script(client: Client) -> None:
        await client.ask()
        await client.until("response.output_audio.delta")
        await client.sound(0.3)
        await client.sound(0.7, loud=False)
        await client.until("response.done")

    client = talk(script)
    assert client.kinds().count("input_audio_buffer.speech_started") == 1
    assert client.events[-1]["response"]["status"] == "incomplete"


def test_manual_turns_and_a_cancellation_followed_at_once_by_a_new_question(talk: Talk) -> None:
    async def script(client: Client) -> None:
        await client.send("session.update", session={"audio": {"input": {"turn_detection": None}}})
        for turn in (1, 2):
            await client.sound(0.5)
            await client.send("input_audio_buffer.commit")
            await client.send("response.create")
            await client.until("response.content_part.added", turn)
            await client.send("response.cancel")
        await client.until("response.done", 2)
        await client.send("response.cancel", event_id="late")

    client = talk(script)
    dones = [event["response"] for event in client.events if event["type"] == "response.done"]
    assert [done["status_details"]["reason"] for done in dones] == ["client_cancelled"] * 2
    assert [(error["code"], error["event_id"]) for error in client.errors] == [("response_cancel_not_active", "late")]


def test_text_in_and_text_out(talk: Talk) -> None:
    async def script(client: Client) -> None:
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "word1 word2"}]}
        await client.send("conversation.item.create", item=item)
        await client.send("response.create", response={"output_modalities": ["text"], "max_output_tokens": 3,
                                                       "metadata": {"mine": "yes"}})
        await client.until("response.done")

    client = talk(script)
    assert "response.output_audio.done" not in client.kinds()
    deltas = "".join(e["delta"] for e in client.events if e["type"] == "response.output_text.delta")
    done = client.events[-1]["response"]
    assert done["output"][0]["content"] == [{"type": "output_text", "text": deltas}]
    assert done["status_details"]["reason"] == "max_output_tokens"
    assert done["metadata"] == {"mine": "yes"}
    assert done["usage"]["output_tokens"] == 3


def test_items_come_and_go(talk: Talk) -> None:
    def text(word: str, item_id: str) -> dict[str, Any]:
        return {"type": "message", "role": "user", "id": item_id, "content": [{"type": "input_text", "text": word}]}

    async def script(client: Client) -> None:
        await client.send("conversation.item.create", item=text("word1", "a"))
        await client.send("conversation.item.create", item=text("word2", "b"))
        await client.send("conversation.item.create", item=text("word3", "c"), previous_item_id="root")
        await client.send("conversation.item.create", item=text("word4", "d"), previous_item_id="a")
        assert client.session._history.prompt()[1:-1] == ((9,), (7,), (10,), (8,))
        await client.send("conversation.item.delete", item_id="a")
        assert client.session._history.prompt()[1:-1] == ((9,), (10,), (8,))
        await client.send("conversation.item.retrieve", item_id="d")
        await client.send("conversation.item.retrieve", item_id="a", event_id="e1")
        await client.send("conversation.item.create", item=text("word1", "b"), event_id="e2")

    client = talk(script)
    added = [(e["item"]["id"], e["previous_item_id"]) for e in client.events if e["type"] == "conversation.item.added"]
    assert added == [("a", None), ("b", "a"), ("c", None), ("d", "a")]
    assert [(error["code"], error["event_id"]) for error in client.errors] == [
        ("item_retrieve_invalid_item_id", "e1"), ("item_create_duplicate_item_id", "e2")]


def test_a_response_outside_the_conversation_leaves_no_trace(talk: Talk) -> None:
    async def script(client: Client) -> None:
        text = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "word1"}]}
        await client.send("response.create", response={"conversation": "none", "input": [text]})
        await client.until("response.done")

    client = talk(script)
    assert client.events[-1]["response"]["conversation_id"] is None
    assert client.remembered == []


def test_a_response_to_other_input_joins_the_conversation(talk: Talk) -> None:
    def said(word: str) -> dict[str, Any]:
        return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": word}]}

    async def script(client: Client) -> None:
        await client.send("conversation.item.create", item=said("word1"))
        await client.send("response.create", response={"input": [said("word2")], "max_output_tokens": 3})
        done = await client.until("response.done")
        await client.send("conversation.item.retrieve", item_id=done["response"]["output"][0]["id"])

    client = talk(script)
    assert client.events[-1]["type"] == "conversation.item.retrieved"
    assert [item.role for item in client.remembered] == ["user", "assistant"]


def test_semantic_turns_wait_longer_where_the_model_is_unsure(talk: Talk) -> None:
    async def script(client: Client) -> None:
        await client.send("session.update", session={"audio": {"input": {"turn_detection": {
            "type": "semantic_vad", "eagerness": "high"}}}})
        ears = client.session._hearing._ears
        assert ears is not None
        await client.sound(0.8)
        await client.sound(0.1, loud=False)
        async with asyncio.timeout(WAIT):
            while ears.silence_ms == 2000:
                await asyncio.sleep(0.001)
        certainty = 1 - (ears.silence_ms - 200) / 1800
        assert 0 < certainty < 1
        await client.sound(ears.silence_ms / 1000 - 0.2, loud=False)
        assert "input_audio_buffer.speech_stopped" not in client.kinds()
        await client.sound(0.3, loud=False)
        await client.until("response.done")

    talk(script)


def test_transcription_of_what_was_said(talk: Talk) -> None:
    async def script(client: Client) -> None:
        await client.send("session.update", session={"audio": {"input": {"transcription": {"model": "any"}}}})
        await client.ask()
        await client.until("conversation.item.input_audio_transcription.completed")
        await client.until("response.done")

    client = talk(script)
    told = next(e for e in client.events if e["type"] == "conversation.item.input_audio_transcription.completed")
    asked = next(e for e in client.events if e["type"] == "input_audio_buffer.committed")
    assert told["item_id"] == asked["item_id"]
    assert told["transcript"].startswith("word")


def test_g711_in_and_out(talk: Talk) -> None:
    async def script(client: Client) -> None:
        await client.send("session.update", session={"audio": {
            "input": {"format": {"type": "audio/pcmu"}, "turn_detection": None},
            "output": {"format": {"type": "audio/pcma"}}}})
        await client.send("input_audio_buffer.append", audio=base64.b64encode(bytes(range(256)) * 32).decode())
        await client.send("input_audio_buffer.commit")
        await client.send("response.create")
        await client.until("response.done")

    client = talk(script)
    sound = sum(len(base64.b64decode(e["delta"])) for e in client.events if e["type"] == "response.output_audio.delta")
    assert sound > 800
    assert client.events[-1]["response"]["audio"]["output"]["format"] == {"type": "audio/pcma"}
