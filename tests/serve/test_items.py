"""The item of an answer that is still being made can be looked at, cut and deleted as any other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("websockets")

from omnivox.runtime.engine import Engine, EngineSettings
from omnivox.serve.app import create_app
from tests import tiny
from tests.engines import stalled
from tests.serve.live import Event, Wire, served
from tests.serve.running import serving

ITEM: Event = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "word1"}]}


def ask(wire: Wire, **response: object) -> None:
    wire.send("conversation.item.create", item=ITEM)
    wire.until("conversation.item.done")
    wire.send("response.create", response=response)


@pytest.fixture
def waiting() -> Iterator[tuple[Wire, str, ExitStack]]:
    """A session whose answer has been announced by an engine that stands still until the stack is closed, and the id
    of its item."""
    with Engine(tiny.omni(end_ids=()), EngineSettings(context=256)) as engine, serving(create_app(engine)) as address, \
            Wire(address) as wire, ExitStack() as still:
        still.enter_context(stalled(engine))
        ask(wire)
        yield wire, wire.until("conversation.item.added")["item"]["id"], still


def test_it_can_be_retrieved(waiting: tuple[Wire, str, ExitStack]) -> None:
    wire, item_id, _ = waiting
    wire.send("conversation.item.retrieve", item_id=item_id)
    item = wire.until("conversation.item.retrieved")["item"]
    assert item == {"id": item_id, "object": "realtime.item", "type": "message", "status": "in_progress",
                    "role": "assistant", "content": [{"type": "output_audio", "transcript": ""}]}
    assert "response.done" not in {event["type"] for event in wire.seen}


def test_deleted_it_does_not_come_back(waiting: tuple[Wire, str, ExitStack]) -> None:
    wire, item_id, still = waiting
    wire.send("conversation.item.delete", item_id=item_id)
    assert wire.until("conversation.item.deleted")["item_id"] == item_id
    still.close()
    done = wire.until("response.done")["response"]
    assert done["status"] == "cancelled"
    assert wire.seen[-2]["type"] == "response.output_item.done"  # and no conversation.item.done
    wire.send("conversation.item.retrieve", event_id="gone", item_id=item_id)
    assert wire.receive()["error"]["code"] == "item_retrieve_invalid_item_id"


def test_cut_to_nothing_it_is_empty(waiting: tuple[Wire, str, ExitStack]) -> None:
    wire, item_id, still = waiting
    wire.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=0)
    wire.until("conversation.item.truncated")
    still.close()
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
