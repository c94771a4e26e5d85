"""What does the next token of a reply cost, as the reply grows?

One step of the LLM and of the speech decoder at 10, 50, 100, 200 and 300 tokens: ours, which keeps the decoder's keys
and values, beside running the decoder over its whole prefix again at each token, as the published code does. The same
random weights, in turns, in one process; the fastest of a few runs, for other programs only ever slow one down. Ends in
one JSON line.

    python bench/decode_growth.py            # minutes: the re-run at 300 tokens is what takes them
    python bench/decode_growth.py --quick    # small models, seconds
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from omnivox.model.config import SpeechDecoderConfig
from omnivox.model.llm import StreamingLLM
from omnivox.model.speech_decoder import SpeechDecoder
from omnivox.streaming import Chunk

sys.path.insert(0, str(Path(__file__).resolve().parent))
from hardware import hardware

TOKENS = (10, 50, 100, 200, 300)
PROMPT = 100  # positions of the question and what surrounds it
FILL = 10  # tokens at a time when a state is brought to where it is measured


def build(quick: bool) -> tuple[LlamaForCausalLM, SpeechDecoder]:
    """An LLM of 150M and a speech decoder of 28M parameters (quick: toys)."""
    width, layers, ffn = (128, 4, 512) if quick else (768, 14, 2048)
    llm = LlamaForCausalLM(LlamaConfig(hidden_size=width, num_hidden_layers=layers, intermediate_size=ffn,
                                       num_attention_heads=width // 64, num_key_value_heads=width // 64,
                                       vocab_size=4000 if quick else 32000, max_position_embeddings=2048))
    config = SpeechDecoderConfig(llm_width=width, width=64 if quick else 1024, layers=2, heads=1 if quick else 16,
                                 ffn=128 if quick else 2880, upsample=25, units=1000)
    return llm.eval(), SpeechDecoder(config).eval()


def millions(module: nn.Module) -> float:
    return round(sum(p.numel() for p in module.parameters()) / 1e6, 1)


def milliseconds(run: Callable[[], Any]) -> float:
    began = perf_counter()
    run()
    return 1000 * (perf_counter() - began)


class GrowingReply:
    """One reply that grows; `step` costs what its next token costs, again and again at the same place."""

    def __init__(self, llm: LlamaForCausalLM, decoder: SpeechDecoder, tokens: int) -> None:
        self.decoder, self.width = decoder, llm.config.hidden_size
        self.llm = StreamingLLM(llm, capacity=PROMPT + tokens)
        self.llm_state = self.llm.initial_state(1)
        self.decoder_state = decoder.initial_state(1, capacity=tokens)
        self.states = torch.randn(1, tokens, self.width)
        self.llm.step(Chunk.full(torch.randn(1, PROMPT, self.width)), self.llm_state)
        self.length = 0

    def grow(self, tokens: int) -> None:
        """Bring the reply to `tokens` tokens."""
        while self.length < tokens:
            new = min(FILL, tokens - self.length)
            chunk = Chunk.full(self.states[:, self.length : self.length + new])
            self.llm.step(chunk, self.llm_state)
            self.decoder.step(chunk, self.decoder_state)
            self.length += new

    def step_llm(self) -> None:
        hidden, _ = self.llm.step(Chunk.full(self.states[:, self.length : self.length + 1]), self.llm_state)
        self.llm.logits(hidden.data)
        self.llm_state.position.sub_(1)  # the same place again the next time

    def step_decoder(self) -> None:
        self.decoder.step(Chunk.full(self.states[:, self.length : self.length + 1]), self.decoder_state)
        self.decoder_state.position.sub_(self.decoder.config.upsample)

    def rerun_decoder(self) -> None:
        self.decoder(self.states[:, : self.length + 1])


@torch.inference_mode()
def measure(llm: LlamaForCausalLM, decoder: SpeechDecoder, repeats: int) -> list[dict[str, float]]:
    reply, table = GrowingReply(llm, decoder, max(TOKENS)), []
    for tokens in TOKENS:
        reply.grow(tokens - 1)
        parts: dict[str, list[float]] = {"llm": [], "decoder": [], "rerun": []}
        for _ in range(repeats):
            parts["llm"].append(milliseconds(reply.step_llm))
            parts["decoder"].append(milliseconds(reply.step_decoder))
            if len(parts["rerun"]) < 3 or sum(parts["rerun"]) < 5000:  # each may take seconds
                parts["rerun"].append(milliseconds(reply.rerun_decoder))
        ms = {name: min(values) for name, values in parts.items()}
        row = {"tokens": tokens, "llm_ms": ms["llm"], "decoder_ms": ms["decoder"], "rerun_decoder_ms": ms["rerun"],
               "ours_ms": ms["llm"] + ms["decoder"], "rerun_ms": ms["llm"] + ms["rerun"]}
        row["ratio"] = row["rerun_ms"] / row["ours_ms"]
        print("  ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)
        table.append(row)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small models, to see that it runs")
    parser.add_argument("--repeats", type=int, default=9, help="measurements of each step (default: 9)")
    options = parser.parse_args()
    torch.manual_seed(0)
    llm, decoder = build(options.quick)
    described = hardware()
    table = measure(llm, decoder, options.repeats)
    print(json.dumps({
        "bench": "decode_growth", "quick": options.quick,
        "ratio_at_300": round(table[-1]["ratio"], 1),
        "growth_300_over_10": round(table[-1]["ours_ms"] / table[0]["ours_ms"], 2),
        "llm_millions": millions(llm), "decoder_millions": millions(decoder), "prompt_positions": PROMPT,
        "table": [{name: round(value, 2) for name, value in row.items()} for row in table],
        "hardware": described,
    }))


if __name__ == "__main__":
    main()
