"""Whole exchanges of the Realtime protocol, byte for byte, with a tiny random model.

tests/fixtures/wire holds what client and server say, one message a line, in order. Ids are numbered as they appear. Of
sound there stand its length and its level, which rounding may change from machine to machine. After a change that is
meant, `python -m tests.serve.test_wire` writes the files again; read the difference before you commit it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("websockets")

from omnivox.runtime.engine import Engine, EngineSettings
from omnivox.serve.app import create_app
from omnivox.sound import read_audio
from tests import tiny
from tests.engines import stalled, until
from tests.serve.live import Event, Wire, pcm
from tests.serve.running import serving

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "fixtures" / "wire"
QUESTION = ROOT.parent / "docs" / "question.wav"
ID = re.compile(r"\b(conv|event|item|resp|sess)_[0-9a-f]{24}\b")
SOUND = {"input_audio_buffer.append": "audio", "response.output_audio.delta": "delta"}  # where it is in base64
SETTINGS = EngineSettings(slots=2, queue=4, context=256, reply_tokens=24)


class Tape(Wire):
    """A connection that writes down both sides."""

    def __init__(self, address: str, engine: Engine) -> None:
        super().__init__(address)
        self.engine = engine
        self.lines: list[str] = []
        self.ids: dict[str, str] = {}

    def send(self, kind: str, **fields: Any) -> None:
        super().send(kind, **fields)
        self._note("client", {"type": kind, **fields})

    def receive(self) -> Event:
        raw = self.socket.recv(timeout=60)
        event = json.loads(raw)
        assert raw == json.dumps(event, ensure_ascii=False)  # so that a line below holds the bytes
        self._note("server", event)
        return event

    def until(self, kind: str) -> Event:
        while (event := self.receive())["type"] != kind:
            pass
        return event

    def _note(self, side: str, event: Event) -> None:
        field = SOUND.get(event["type"])
        shown = {name: sound(value) if name == field else value for name, value in event.items()}
        line = json.dumps({side: shown}, ensure_ascii=False)
        self.lines.append(ID.sub(lambda found: self.ids.setdefault(found[0], self._number(found[1])), line))

    def _number(self, kind: str) -> str:
        return f"{kind}_{1 + sum(name.startswith(kind) for name in self.ids.values())}"


def sound(encoded: str) -> Event:
    """What is kept of it."""
    samples = np.frombuffer(base64.b64decode(encoded), "<i2") / 32768
    return {"samples": len(samples), "rms": round(float(np.sqrt(np.mean(samples**2))), 4)}


def spoken(tape: Tape) -> None:
    """A question in manual turns, its spoken answer, and what can be done with an answer."""
    question = pcm(read_audio(QUESTION, 24_000).numpy()[:24_000])
    tape.receive()
    tape.send("session.update", event_id="settle", session={
        "type": "realtime", "instructions": "word1 word2", "max_output_tokens": 24,
        "audio": {"input": {"turn_detection": None}, "output": {"format": {"type": "audio/pcm", "rate": 24000}}}})
    tape.receive()
    tape.append(question, packet=24_000)
    tape.send("input_audio_buffer.commit")
    tape.until("conversation.item.done")
    tape.send("response.create", response={"metadata": {"turn": "1"}})
    answer = tape.until("response.done")["response"]["output"][0]["id"]
    tape.send("conversation.item.truncate", event_id="cut", item_id=answer, content_index=0, audio_end_ms=400)
    tape.receive()
    tape.send("conversation.item.retrieve", item_id=answer)
    tape.receive()
    tape.send("conversation.item.delete", item_id=answer)
    tape.receive()
    tape.send("conversation.item.retrieve", event_id="gone", item_id=answer)
    tape.receive()
    tape.send("input_audio_buffer.commit", event_id="empty")
    tape.receive()
    tape.send("input_audio_buffer.clear")
    tape.receive()


def written(tape: Tape) -> None:
    """Items of text, an answer in text, one that is cancelled, and mistakes."""
    tape.receive()
    tape.send("session.update", session={"type": "realtime", "output_modalities": ["text"]})
    tape.receive()
    said = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "word7 word8"}]}
    tape.send("conversation.item.create", item={**said, "id": "asked"})
    tape.until("conversation.item.done")
    tape.send("conversation.item.create", previous_item_id="root",
              item={"type": "message", "role": "system", "content": [{"type": "input_text", "text": "word9"}]})
    tape.until("conversation.item.done")
    tape.send("response.create")
    tape.until("response.done")
    tape.send("response.cancel", event_id="late")
    tape.receive()
    tape.send("conversation.item.create", event_id="again", item={**said, "id": "asked"})
    tape.receive()
    tape.send("session.update", event_id="loud", session={"type": "realtime", "volume": 11})
    tape.receive()
    tape.send("sing", event_id="what")
    tape.receive()
    with stalled(tape.engine):  # or the answer might be quicker
        tape.send("response.create", response={"output_modalities": ["audio"]})
        tape.send("response.cancel")
        until(lambda: bool(tape.engine._orders))
    tape.until("response.done")


def turns(tape: Tape) -> None:
    """A question whose end the server finds."""
    stream = np.concatenate([np.zeros(12_000), read_audio(QUESTION, 24_000).numpy(), np.zeros(24_000)])
    tape.receive()
    tape.append(pcm(stream))
    tape.until("response.done")


EXCHANGES: list[Callable[[Tape], None]] = [spoken, written, turns]


def record(exchange: Callable[[Tape], None]) -> list[str]:
    with Engine(tiny.omni(), SETTINGS) as engine, serving(create_app(engine)) as address, \
            Tape(address, engine) as tape:
        exchange(tape)
        return settled(tape.lines)


def settled(lines: list[str]) -> list[str]:
    """With what depends on chance taken out: how far a cancelled answer came."""
    cancelled = next((line for line in lines if '"status": "cancelled"' in line), None)
    if cancelled is None:
        return lines
    response = json.loads(cancelled)["server"]["response"]
    kept = []
    for line in lines:
        if response["id"] in line or response["output"][0]["id"] in line:
            if '.delta"' in line:
                continue
            line = re.sub(r'"transcript": "[^"]*"', '"transcript": "as far as it came"', line)
            line = re.sub(r'"(\w+_tokens)": \d+', r'"\1": 0', line)
        kept.append(line)
    return renumbered(kept)


def renumbered(lines: list[str]) -> list[str]:
    """Event ids counted again, without those of lines that were left out."""
    numbers: dict[str, str] = {}
    return [re.sub(r"\bevent_\d+\b", lambda found: numbers.setdefault(found[0], f"event_{len(numbers) + 1}"), line)
            for line in lines]


def levels(line: str) -> tuple[str, list[float]]:
    """The line without the levels of its sound, and those."""
    found = [float(value) for value in re.findall(r'"rms": ([\d.e-]+)', line)]
    return re.sub(r'"rms": [\d.e-]+', '"rms": 0', line), found


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.__name__)
def test_an_exchange_is_as_it_was(exchange: Callable[[Tape], None]) -> None:
    if exchange is turns:
        pytest.importorskip("silero_vad")
    golden = (FOLDER / f"{exchange.__name__}.jsonl").read_text().splitlines()
    for number, (now, then) in enumerate(zip(record(exchange), golden, strict=True), 1):
        (words, heard), (expected, level) = levels(now), levels(then)
        assert words == expected, f"line {number}"
        assert heard == pytest.approx(level, rel=0.02, abs=2e-4), f"line {number}"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each in EXCHANGES:
        (FOLDER / f"{each.__name__}.jsonl").write_text("\n".join(record(each)) + "\n")
