"""The item of an answer that is still being made can be looked at, cut and deleted as any other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("websockets")

from omnivox.runtime.engine import EngineSettings
from tests import tiny
from tests.serve.live import Event, Wire, served

ITEM: Event = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "word1"}]}


def ask(wire: Wire, **response: object) -> None:
    wire.send("conversation.item.create", item=ITEM)
    wire.until("conversation.item.done")
    wire.send("response.create", response=response)


@pytest.fixture
def waiting() -> Iterator[tuple[Wire, str]]:
    """A session whose answer has been announced and waits behind others, and the id of its item."""
    engine = EngineSettings(slots=1, queue=8, context=256, reply_tokens=200)
    with served(tiny.omni(end_ids=()), engine) as address, ExitStack() as stack:
        for _ in range(4):
            ask(stack.enter_context(Wire(address)))
        wire = stack.enter_context(Wire(address))
        ask(wire)
        yield wire, wire.until("conversation.item.added")["item"]["id"]


def test_it_can_be_retrieved(waiting: tuple[Wire, str]) -> None:
    wire, item_id = waiting
    wire.send("conversation.item.retrieve", item_id=item_id)
    item = wire.until("conversation.item.retrieved")["item"]
    assert item == {"id": item_id, "object": "realtime.item", "type": "message", "status": "in_progress",
                    "role": "assistant", "content": [{"type": "output_audio", "transcript": ""}]}
    assert "response.done" not in {event["type"] for event in wire.seen}


def test_deleted_it_does_not_come_back(waiting: tuple[Wire, str]) -> None:
    wire, item_id = waiting
    wire.send("conversation.item.delete", item_id=item_id)
    assert wire.until("conversation.item.deleted")["item_id"] == item_id
    done = wire.until("response.done")["response"]
    assert done["status"] == "cancelled"
    assert wire.seen[-2]["type"] == "response.output_item.done"  # and no conversation.item.done
    wire.send("conversation.item.retrieve", event_id="gone", item_id=item_id)
    assert wire.receive()["error"]["code"] == "item_retrieve_invalid_item_id"


def test_cut_to_nothing_it_is_empty(waiting: tuple[Wire, str]) -> None:
    wire, item_id = waiting
    wire.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=0)
    wire.until("conversation.item.truncated")
    done = wire.until("response.done")["response"]
    assert done["status"] == "cancelled"
    assert done["output"][0]["content"] == [{"type": "output_audio", "transcript": ""}]
    wire.send("conversation.item.retrieve", item_id=item_id)
    assert wire.until("conversation.item.retrieved")["item"]["status"] == "incomplete"


def test_an_answer_outside_the_conversation_is_no_item_of_it() -> None:
    with served(tiny.omni(), EngineSettings(context=256, reply_tokens=8)) as address, Wire(address) as wire:
        ask(wire, conversation="none")
        done = wire.until("response.done")["response"]
        assert done["conversation_id"] is None
        names = [event["item"]["role"] for event in wire.seen if event["type"].startswith("conversation.item.")]
        assert set(names) == {"user"}
        wire.send("conversation.item.retrieve", item_id=done["output"][0]["id"])
        assert wire.receive()["error"]["code"] == "item_retrieve_invalid_item_id"
