"""What a session keeps of its items, and what it forgets."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.serve.talking import Client, Talk


def test_what_is_said_without_an_answer_does_not_pile_up(talk: Talk) -> None:
    async def script(client: Client) -> None:
        await client.send("session.update", session={"audio": {"input": {"turn_detection": None}}})
        for _ in range(12):
            await client.sound(3.0)
            await client.send("input_audio_buffer.commit")
        kept = len(client.session._history.items)
        assert 0 < kept < 12
        assert len(client.session._items._entries) == kept
        last = client.events[-1]["item"]["id"]
        await client.send("conversation.item.create", previous_item_id=last, item={
            "type": "message", "role": "user", "content": [{"type": "input_text", "text": "word3"}]})
        assert client.session._history.items[-1].content == (9,)
        first = next(e["item"]["id"] for e in client.events if e["type"] == "conversation.item.added")
        await client.send("conversation.item.retrieve", item_id=first)
        await client.send("response.create")
        await client.until("response.done")

    client = talk(script)
    assert [error["code"] for error in client.errors] == ["item_retrieve_invalid_item_id"]
    assert client.events[-1]["response"]["status"] == "incomplete"  # to its full length


def test_of_an_item_of_many_parts_the_oldest_leave_first(talk: Talk) -> None:
    words = [{"type": "input_text", "text": "word1 " * 100}, {"type": "input_text", "text": "word2 " * 100}]

    async def script(client: Client) -> None:
        for i in range(2):
            await client.send("conversation.item.create", item={
                "id": f"item{i}", "type": "message", "role": "user", "content": words})
        await client.send("conversation.item.create", previous_item_id="item1", item={
            "type": "message", "role": "user", "content": [{"type": "input_text", "text": "word3"}]})

    client = talk(script)
    assert not client.errors
    assert [item.content[0] for item in client.remembered] == [8, 9]  # type: ignore[index]


def test_items_that_are_forgotten_for_their_number_leave_nothing(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnivox.serve.items.MOST", 5)

    async def script(client: Client) -> None:
        for i in range(9):
            await client.send("conversation.item.create", item={
                "type": "message", "role": "user", "content": [{"type": "input_text", "text": f"word{i}"}]})

    assert [item.content for item in talk(script).remembered] == [(6 + i,) for i in range(4, 9)]


def test_only_what_the_model_spoke_can_be_truncated_and_not_beyond_its_end(talk: Talk) -> None:
    def item(role: str, **more: Any) -> dict[str, Any]:
        kind = "output_text" if role == "assistant" else "input_text"
        return {"type": "message", "role": role, "content": [{"type": kind, "text": "word1"}], **more}

    async def script(client: Client) -> None:
        async def answer(number: int, **options: Any) -> str:
            await client.send("response.create", response=options)
            done = await client.until("response.done", number)
            return str(done["response"]["output"][0]["id"])

        async def cut(item_id: str, at: int) -> None:
            await client.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=at)

        await client.send("conversation.item.create", item=item("assistant", id="written"))
        await client.send("conversation.item.create", item=item("user"))
        old = await answer(1)
        text = await answer(2, output_modalities=["text"])
        await answer(3)
        before = [one.content for one in client.session._history.items]
        await cut("written", 0)
        await cut(text, 0)
        await cut(old, 600_000)
        assert [one.content for one in client.session._history.items] == before
        assert len(client.errors) == 3
        await cut(old, 0)
        assert () in [one.content for one in client.session._history.items]
        await client.send("response.create", response={"output_modalities": ["text"]})
        making = client.session._responses.answer
        assert making is not None
        await cut(making.item_id, 0)
        assert (await client.until("response.done", 4))["response"]["status"] == "incomplete"  # and not cancelled

    client = talk(script)
    assert [(error["param"], error["message"][:28]) for error in client.errors] == [
        ("item_id", "Only spoken answers of the m"), ("item_id", "Only spoken answers of the m"),
        ("audio_end_ms", client.errors[2]["message"][:28]), ("item_id", "Only spoken answers of the m")]
    assert re.fullmatch(r"Audio content of \d+ms is already shorter than 600000ms", client.errors[2]["message"])
