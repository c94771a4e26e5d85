"""How many can talk at once, and what does sharing every step bring?

1, 2, 4, 8 and 16 sessions ask at the same moment (nano goes on to 32 and 64), beside the same questions one after
another; nano on its held-out questions, and a random model of 150M + 28M parameters that says 24 tokens to each. A
session is held in real time while its sound is made faster than it is heard, from the question's end on. Ends in one
JSON line.

    python bench/concurrency.py
    python bench/concurrency.py --quick
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

import omnivox
from omnivox.checkpoint.prompt import Prompt
from omnivox.model.config import AdaptorConfig, EncoderConfig, MelConfig, OmniConfig, SourceFilterConfig
from omnivox.model.omni import SpokenLM
from omnivox.model.source_filter import SourceFilter
from omnivox.nano.questions import held_out
from omnivox.runtime.engine import Engine, EngineSettings
from omnivox.runtime.events import Audio, Done, Failed, Reply
from omnivox.runtime.history import History
from omnivox.runtime.job import Event
from omnivox.runtime.respond import Omni, ReplySettings

sys.path.insert(0, str(Path(__file__).resolve().parent))
from decode_growth import build, millions
from hardware import hardware

AT_ONCE = (1, 2, 4, 8, 16)
MORE = (32, 64)  # for nano
TOKENS = 24  # of each of the random model's replies


@dataclass
class Heard:
    """One reply, and whether a listener who plays it as it comes ever had to wait."""

    reply: Reply
    first_audio: float
    in_time: bool


class Listener:
    """Listens to one reply as it comes."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.began = perf_counter()
        self.first: float | None = None
        self.until = 0.0  # when what has come has been heard
        self.in_time, self.reply = True, Reply("", [], [], torch.empty(0), 16000)

    def __call__(self, event: Event) -> None:
        now = perf_counter()
        if isinstance(event, Audio):
            if self.first is None:
                self.first, self.until = now - self.began, now
            self.in_time = self.in_time and now <= self.until
            self.until = self.until + len(event.samples) / 16000
        elif isinstance(event, Done):
            self.reply = event.reply
            self.ended.set()
        elif isinstance(event, Failed):
            raise event.error

    def heard(self) -> Heard:
        self.ended.wait(600)
        return Heard(self.reply, self.first or 0.0, self.in_time)


def ask(engine: Engine, wave: Any, settings: ReplySettings) -> Listener:
    history, listener = History(engine.omni, context=engine.context), Listener()
    history.add(history.speech(torch.as_tensor(wave)))
    engine.reply(history.prompt(), listener, settings)
    return listener


def together(engine: Engine, waves: Sequence[Any], settings: ReplySettings) -> tuple[float, list[Heard]]:
    """Seconds until all replies are made that were asked for at once."""
    began = perf_counter()
    listeners = [ask(engine, wave, settings) for wave in waves]
    heard = [listener.heard() for listener in listeners]
    return perf_counter() - began, heard


def in_turn(engine: Engine, waves: Sequence[Any], settings: ReplySettings) -> float:
    """Seconds until all are made one after another."""
    began = perf_counter()
    for wave in waves:
        ask(engine, wave, settings).heard()
    return perf_counter() - began


def measure(omni: Omni, waves: Sequence[Any], counts: Sequence[int], settings: ReplySettings) -> list[dict[str, Any]]:
    rows = []
    slots = EngineSettings(slots=max(counts), queue=max(counts), context=512, reply_tokens=64)
    with Engine(omni, slots) as engine:
        together(engine, waves[:2], settings)  # warm
        for count in counts:
            asked = [waves[i % len(waves)] for i in range(count)]
            alone = in_turn(engine, asked, settings)
            shared, heard = together(engine, asked, settings)
            first = [1000 * one.first_audio for one in heard if len(one.reply.audio)]
            seconds = sum(one.reply.timings.audio_seconds for one in heard)
            rows.append({"sessions": count, "throughput_ratio": round(alone / shared, 2),
                         "first_audio_ms_p50": round(float(np.percentile(first, 50)), 1),
                         "first_audio_ms_p95": round(float(np.percentile(first, 95)), 1),
                         "rtf": round(shared / seconds, 4), "in_time": sum(one.in_time for one in heard) / count})
            row = rows[-1]
            print(f"{count:3d} at once: {row['throughput_ratio']:5.2f} times the throughput of one after another, "
                  f"first audio p50 {row['first_audio_ms_p50']:7.1f} p95 {row['first_audio_ms_p95']:7.1f} ms, "
                  f"real-time factor of all together {row['rtf']:.3f}, in time {row['in_time']:.0%}", flush=True)
    return rows


def random_model(quick: bool) -> Omni:
    """150M of LLM, 28M of speech decoder, and small parts around them; its replies never end by themselves."""
    torch.manual_seed(0)
    llm, decoder = build(quick)
    config = OmniConfig(MelConfig(80, pad_to_chunk=False), EncoderConfig(80, 192, 4, heads=4, positions=750),
                        AdaptorConfig(5, 192, 512, decoder.config.llm_width), decoder.config)
    model = SpokenLM(config, llm)
    model.speech_decoder = decoder
    vocoder = SourceFilter(SourceFilterConfig(units=decoder.config.units))
    return Omni(model, vocoder, None, Prompt(before=(1,), after=(2,), end_ids=()))


def real_time(rows: Sequence[dict[str, Any]]) -> int:
    """The most sessions that were all in time."""
    return max((row["sessions"] for row in rows if row["in_time"] == 1.0), default=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few sessions and toys, to see that it runs")
    options = parser.parse_args()
    described = hardware()
    waves = [question.audio for question in held_out("seen_voice")][:64]
    counts = AT_ONCE[:3] if options.quick else AT_ONCE
    print("nano")
    nano = measure(omnivox.load("nano", device="cpu"), waves, counts if options.quick else (*counts, *MORE),
                   ReplySettings())
    other = random_model(options.quick)
    name = f"random, {millions(other.model.llm)}M + {millions(other.model.speech_decoder)}M"
    print(name)
    rows = measure(other, waves, counts, ReplySettings(max_new_tokens=TOKENS))
    eight = next((row for row in rows if row["sessions"] == 8), rows[-1])
    nano_eight = next((row for row in nano if row["sessions"] == 8), nano[-1])
    print(json.dumps({
        "bench": "concurrency", "quick": options.quick, "sessions_in_real_time": real_time(nano),
        "sessions_in_real_time_150m": real_time(rows), "throughput_ratio_at_8": eight["throughput_ratio"],
        "throughput_ratio_at_8_nano": nano_eight["throughput_ratio"],
        "first_audio_ms_p95_at_8": nano_eight["first_audio_ms_p95"], "nano": nano, "other_model": name, "other": rows,
        "torch_threads": torch.get_num_threads(), "hardware": described}))


if __name__ == "__main__":
    main()
