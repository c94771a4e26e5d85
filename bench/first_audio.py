"""How long after the end of a question does nano's first sound come?

The bundled model over its bundled held-out questions at Ω = 10, greedy, with all the lookahead that makes the stream
equal to the offline waveform. Every question is answered to its end. Ends in one JSON line.

    python bench/first_audio.py
    python bench/first_audio.py --quick             # five questions
    python bench/first_audio.py --omega 40 --lookahead 0
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import omnivox
from omnivox.nano.questions import held_out
from omnivox.runtime.events import Done, Timings

sys.path.insert(0, str(Path(__file__).resolve().parent))
from hardware import hardware

PARTS = ("mel", "encode", "prefill", "first_token", "first_audio", "total")
WARM_UP = 3  # questions answered before the clock counts


def measure(omni: omnivox.Omni, waves: list[Any], **settings: Any) -> list[Timings]:
    """Timings of each reply that was spoken."""
    timings = []
    for i, wave in enumerate([*waves[:WARM_UP], *waves]):
        *_, done = omni.respond(wave, **settings)
        assert isinstance(done, Done)
        if i >= WARM_UP and len(done.reply.audio):
            timings.append(done.reply.timings)
    return timings


def percentile(timings: list[Timings], part: str, percent: float) -> float:
    return round(1000 * float(np.percentile([getattr(t, part) for t in timings], percent)), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="five questions, to see that it runs")
    parser.add_argument("--questions", type=int, default=100, help="how many (default: 100)")
    parser.add_argument("--omega", type=int, default=10, help="units gathered before the vocoder speaks (default: 10)")
    parser.add_argument("--lookahead", type=int, help="frames that the vocoder waits for (default: all that matters)")
    options = parser.parse_args()
    described = hardware()
    waves = [question.audio for question in held_out("seen_voice")][: 5 if options.quick else options.questions]
    omni = omnivox.load("nano", device="cpu")
    timings = measure(omni, waves, chunk_units=options.omega, lookahead=options.lookahead)
    if not timings:
        sys.exit("first_audio: nano spoke no reply at all")
    for part in PARTS:
        print(f"{part:12s} p50 {percentile(timings, part, 50):8.1f} ms   p95 {percentile(timings, part, 95):8.1f} ms")
    whole = [dataclasses.asdict(t) for t in timings]
    print(json.dumps({
        "bench": "first_audio", "quick": options.quick,
        "first_audio_ms_p50": percentile(timings, "first_audio", 50),
        "first_audio_ms_p95": percentile(timings, "first_audio", 95),
        "rtf": round(sum(t["total"] for t in whole) / sum(t["audio_seconds"] for t in whole), 4),
        "parts_ms_p50": {part: percentile(timings, part, 50) for part in PARTS},
        "questions": len(waves), "spoken": len(timings), "omega": options.omega,
        "lookahead": omni.vocoder.context[1] if options.lookahead is None else options.lookahead,
        "answer_seconds_mean": round(sum(t["audio_seconds"] for t in whole) / len(whole), 2),
        "torch_threads": torch.get_num_threads(), "hardware": described,
    }))


if __name__ == "__main__":
    main()
