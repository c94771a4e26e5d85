"""How long does a person wait for an answer? From the last speech sample sent to the first sound received.

Held-out questions are played in real time over a WebSocket to a real server (nano, server_vad), as a client does:
20 ms a message, silence behind the question. The end of a question is where its own sound falls below 1 % of its peak
for good. Ends in one JSON line.

    python bench/response.py
    python bench/response.py --quick
    python bench/response.py --silence 500 --questions 100
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from websockets.asyncio.client import connect

from omnivox.nano.questions import held_out

sys.path.insert(0, str(Path(__file__).resolve().parent))
from hardware import hardware
from server import running

RATE, PACKET = 24_000, 480  # samples a second, and a message
PARTS = ("pause_ms", "encode_ms", "prefill_ms", "first_token_ms", "first_audio_ms")
GIVE_UP = 6.0  # seconds of silence after which a question counts as not answered


def end_of_speech(wave: np.ndarray[Any, Any]) -> int:
    """The sample behind the last one that can be heard."""
    loud = np.flatnonzero(np.abs(wave) > 0.01 * np.abs(wave).max())
    return int(loud[-1]) + 1


async def ask(url: str, wave: np.ndarray[Any, Any], silence_ms: int, semantic: str | None) -> dict[str, float] | None:
    """Milliseconds until the first sound, with the server's parts; None where none came."""
    detection: dict[str, Any] = {"type": "server_vad", "silence_duration_ms": silence_ms}
    if semantic:
        detection = {"type": "semantic_vad", "eagerness": semantic}
    session = {"type": "realtime", "audio": {"input": {"turn_detection": detection}}, "omnivox": {"timings": True}}
    async with connect(url, max_size=None) as socket:
        await socket.send(json.dumps({"type": "session.update", "session": session}))
        sent: list[float] = []

        async def play() -> None:
            data = np.concatenate([wave, np.zeros(int(GIVE_UP * RATE), np.float32)])
            pcm = (np.clip(data, -1, 1) * 32767).astype("<i2")
            end, began = end_of_speech(wave), time.monotonic()
            for start in range(0, len(pcm), PACKET):
                await asyncio.sleep(max(0.0, began + start / RATE - time.monotonic()))
                audio = base64.b64encode(pcm[start:start + PACKET].tobytes()).decode()
                await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
                if start < end <= start + PACKET:
                    sent.append(time.monotonic())

        playing = asyncio.create_task(play())
        first = None
        try:
            async with asyncio.timeout(len(wave) / RATE + GIVE_UP):
                async for message in socket:
                    event = json.loads(message)
                    if event["type"] == "response.output_audio.delta" and first is None and sent:
                        first = 1000 * (time.monotonic() - sent[0])
                    elif event["type"] == "response.done" and event["response"]["status"] == "completed":
                        break
        except TimeoutError:
            return None
        finally:
            playing.cancel()
        return None if first is None else {"response_ms": first, **event["response"]["omnivox"]}


def percentile(rows: Sequence[dict[str, float]], name: str, percent: float) -> float:
    return round(float(np.percentile([row[name] for row in rows if row[name] is not None], percent)), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three questions, to see that it runs")
    parser.add_argument("--questions", type=int, default=40, help="how many (default: 40)")
    parser.add_argument("--silence", type=int, default=200, help="ms of silence that end a turn (default: 200)")
    parser.add_argument("--semantic", metavar="EAGERNESS", help="semantic_vad instead: low, medium or high")
    options = parser.parse_args()
    described = hardware()
    questions = held_out("seen_voice")[:: 4][: 3 if options.quick else options.questions]
    rows = []
    with running() as server:
        for question in questions:
            wave = soxr.resample(question.audio, 16_000, RATE)
            row = asyncio.run(ask(server.url, wave, options.silence, options.semantic))
            rows += [row] if row else []
    if not rows:
        sys.exit("response: no question was answered")
    for name in ("response_ms", *PARTS):
        print(f"{name:15s} p50 {percentile(rows, name, 50):7.1f}   p95 {percentile(rows, name, 95):7.1f}")
    print(json.dumps({
        "bench": "response", "quick": options.quick, "response_ms_p50": percentile(rows, "response_ms", 50),
        "response_ms_p95": percentile(rows, "response_ms", 95),
        "parts_ms_p50": {name: percentile(rows, name, 50) for name in PARTS}, "questions": len(questions),
        "answered": len(rows), "silence_ms": options.silence, "semantic": options.semantic, "hardware": described}))


if __name__ == "__main__":
    main()
