"""Two minutes of many unruly clients: does anything break, leak or grow?

Sixteen clients at a time talk to one real server (nano): questions spoken and written, pauses, interruptions,
cancellations, hang-ups in the middle of an answer, and garbage. A well-behaved session fails where it is told of an
error, or where an answer does not end. Memory is compared between the end of the warm-up and the end, each time when
everybody has gone and what they left has gone back to the system. Loopback only. Ends in one JSON line.

    python bench/soak.py
    python bench/soak.py --quick
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from omnivox.nano.questions import held_out
from omnivox.serve.memory import SECONDS

sys.path.insert(0, str(Path(__file__).resolve().parent))
from hardware import hardware
from server import Running, running

RATE = 24_000
ANSWERED_WITHIN = 60.0  # seconds
REST = SECONDS + 2.0  # until the server has given back what is free
GARBAGE = ("{", "[]", "null", '{"type": 7}', '{"type": "nonsense"}', '{"type": "input_audio_buffer.append"}',
           '{"type": "input_audio_buffer.append", "audio": "%%%"}', '{"type": "session.update", "session": 3}',
           '{"type": "conversation.item.truncate", "item_id": "x", "audio_end_ms": 5}', b"\x00\xff", "x" * 10_000)


class Client:
    """One session, and what it is in the mood for."""

    def __init__(self, socket: ClientConnection, rng: random.Random, waves: list[np.ndarray[Any, Any]]) -> None:
        self.socket, self.rng, self.waves = socket, rng, waves

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def speak(self, seconds: float | None = None) -> None:
        """A question, faster than in real time, and the silence that ends it."""
        wave = self.rng.choice(self.waves)
        wave = np.concatenate([wave if seconds is None else wave[: int(seconds * RATE)], np.zeros(RATE, np.float32)])
        pcm = (np.clip(wave, -1, 1) * 32767).astype("<i2").tobytes()
        for start in range(0, len(pcm), 9600):
            await self.send("input_audio_buffer.append", audio=base64.b64encode(pcm[start:start + 9600]).decode())
            await asyncio.sleep(0.02)

    async def write(self) -> None:
        """A written question."""
        text = self.rng.choice(("what is the capital of france", "what is two plus two", "tell me a joke"))
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        await self.send("conversation.item.create", item=item)
        await self.send("response.create")

    async def until(self, *kinds: str) -> dict[str, Any]:
        """The next event of one of these kinds. Raises where an error comes first, or nothing in time."""
        async with asyncio.timeout(ANSWERED_WITHIN):
            async for message in self.socket:
                event: dict[str, Any] = json.loads(message)
                if event["type"] in kinds:
                    return event
                if event["type"] == "error":
                    raise RuntimeError(event["error"]["message"])
        raise RuntimeError("hung up")

    async def good(self) -> None:
        """A few turns, as they should be."""
        for _ in range(self.rng.randint(1, 4)):
            await (self.speak() if self.rng.random() < 0.7 else self.write())
            if self.rng.random() < 0.3:
                await self.until("response.output_audio.delta")
                await self.speak()  # over the answer
                await self.until("response.done")
            await self.until("response.done")
            await asyncio.sleep(self.rng.random())

    async def rude(self) -> None:
        """Hang up somewhere in the middle."""
        await (self.speak(self.rng.random()) if self.rng.random() < 0.5 else self.write())
        await asyncio.sleep(0.5 * self.rng.random())
        if self.rng.random() < 0.5:
            self.socket.transport.abort()

    async def mad(self) -> None:
        """Garbage, then a question after all."""
        for _ in range(self.rng.randint(1, 30)):
            await self.socket.send(self.rng.choice(GARBAGE))
        await self.send("response.cancel")
        await self.write()
        await asyncio.sleep(self.rng.random())


async def one(url: str, rng: random.Random, waves: list[np.ndarray[Any, Any]], counts: dict[str, int]) -> None:
    mood = rng.choices(("good", "rude", "mad"), (6, 2, 2))[0]
    try:
        async with connect(url, max_size=None, max_queue=1024) as socket:
            counts["sessions"] += 1
            await getattr(Client(socket, rng, waves), mood)()
    except (ConnectionClosed, RuntimeError, TimeoutError, OSError) as error:
        if mood == "good":
            counts["failed"] += 1
            print(f"a good session failed: {error!r}", flush=True)


async def soak(server: Running, seconds: float, clients: int, seed: int) -> dict[str, int]:
    waves = [soxr.resample(q.audio, 16_000, RATE) for q in held_out("seen_voice")[:30]]
    counts = {"sessions": 0, "failed": 0}
    end = time.monotonic() + seconds

    async def busy(number: int) -> None:
        rng = random.Random(f"{seed} {number}")
        while time.monotonic() < end:
            await one(server.url, rng, waves, counts)

    await asyncio.gather(*(busy(number) for number in range(clients)))
    return counts


def settled(server: Running) -> float:
    """Slots still taken when everybody has gone."""
    end = time.monotonic() + 20
    while time.monotonic() < end and server.metric("omnivox_slots_busy") + server.metric("omnivox_sessions_open"):
        time.sleep(0.2)
    return server.metric("omnivox_slots_busy")


def rested(server: Running) -> float:
    """Resident memory in MB when nobody has been there for a while."""
    time.sleep(REST)
    return server.memory_mb


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ten seconds of four clients, to see that it runs")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long (default: 120)")
    parser.add_argument("--clients", type=int, default=16, help="at a time (default: 16)")
    options = parser.parse_args()
    described = hardware()
    seconds, clients = (10.0, 4) if options.quick else (options.seconds, options.clients)
    # From one address, far more sessions than a person would open.
    with running("--sessions-per-minute", "100000") as server:
        warm = asyncio.run(soak(server, seconds / 4, clients, seed=1))
        settled(server)
        before = rested(server)
        counts = asyncio.run(soak(server, seconds, clients, seed=2))
        leaked = settled(server)
        after = rested(server)
    print(json.dumps({
        "bench": "soak", "quick": options.quick, "sessions": counts["sessions"],
        "failed": counts["failed"] + warm["failed"], "leaked_slots": int(leaked),
        "rss_growth_mb": round(after - before, 1), "rss_mb": round(after, 1), "seconds": seconds, "clients": clients,
        "hardware": described}))


if __name__ == "__main__":
    main()
