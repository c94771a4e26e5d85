"""What does it save to compute stage 2's states once?

Everything before the speech decoder is frozen, so its states can be kept on disk. nano learns to speak for three epochs
twice in one run: from kept states, computing them included, and computing them at every step. The same rows, batches
and learning; processor time, for other programs share the machine. Ends in one JSON line, which has the same ratio for
the 8B recipe by its arithmetic.

    python bench/stage2_cache.py            # a minute or two
    python bench/stage2_cache.py --quick    # few rows, to see that it runs
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from omnivox.checkpoint.load import Loaded, load_checkpoint
from omnivox.model.speech_decoder import SpeechDecoder
from omnivox.nano.dialogues import sample
from omnivox.train.conversations import InMemory, SpokenConversation, SpokenTurn
from omnivox.train.examples import Examples
from omnivox.train.plan import speedup_of_keeping
from omnivox.train.recipes import llama_omni_8b
from omnivox.train.settings import Stage2Settings
from omnivox.train.speak import Answers, speaking_task
from omnivox.train.states import ComputedStates, KeptStates, SpokenStates, keep_states
from omnivox.train.trainer import train

sys.path.insert(0, str(Path(__file__).resolve().parent))
from hardware import hardware

SECONDS = (1.5, 3.0)  # of a question of nano's
UNITS_PER_WORD = 14  # of its answer voice, about


def conversations(rows: int, units: int) -> InMemory:
    """Noise for questions: what is computed does not depend on what is said. Answers are nano's own."""
    rng, made = random.Random(1), []
    while len(made) < rows:
        answer = sample(rng, "train").answer
        noise = torch.Generator().manual_seed(len(made))
        wave = 0.1 * torch.randn(int(16_000 * rng.uniform(*SECONDS)), generator=noise)
        said = torch.tensor([rng.randrange(units) for _ in range(UNITS_PER_WORD * len(answer.split()))])
        made.append(SpokenConversation(str(len(made)), (SpokenTurn(wave, answer, torch.unique_consecutive(said)),)))
    return InMemory(made)


def learn(loaded: Loaded, states: SpokenStates, settings: Stage2Settings, folder: Path) -> None:
    """Three epochs of a fresh decoder."""
    torch.manual_seed(0)
    decoder = SpeechDecoder(loaded.model.config.speech_decoder)
    answers = Answers(states, range(len(states)))
    train(speaking_task(decoder, answers, Answers(states, []), settings), settings, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rows, to see that it runs")
    parser.add_argument("--rows", type=int, default=96, help="answers (default: 96)")
    parser.add_argument("--epochs", type=int, default=3, help="default: 3")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = 8 if options.quick else options.rows
    described, loaded = hardware(), load_checkpoint("nano", device="cpu")
    assert loaded.tokenizer is not None
    data = conversations(rows, loaded.model.config.speech_decoder.units)
    examples = Examples(data, loaded.tokenizer, loaded.prompt, loaded.model.config, spoken=True)
    settings = Stage2Settings(lr=2e-4, batch=8, micro_batch=8, epochs=options.epochs, precision="float32", workers=0,
                              save_every=10**6, evaluate_every=10**6, samples=0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        warm = replace(settings, steps=1)
        learn(loaded, ComputedStates(loaded, examples, settings), warm, folder / "warm")
        began = time.process_time()
        kept = KeptStates(*keep_states(loaded, examples, folder / "states", settings))
        computing = time.process_time() - began
        learn(loaded, kept, settings, folder / "kept")
        with_kept = time.process_time() - began
        began = time.process_time()
        learn(loaded, ComputedStates(loaded, examples, settings), settings, folder / "computed")
        with_computed = time.process_time() - began
        bytes_kept = sum(path.stat().st_size for path in (folder / "states").rglob("*.safetensors"))
    print(json.dumps({
        "bench": "stage2_cache", "quick": options.quick, "model": "nano", "rows": rows, "epochs": options.epochs,
        "stage2_speedup": round(with_computed / with_kept, 2),
        "cpu_seconds_kept": round(with_kept, 1), "of_which_computing_states": round(computing, 1),
        "cpu_seconds_computed_at_each_epoch": round(with_computed, 1), "megabytes_kept": round(bytes_kept / 1e6, 1),
        "llama_omni_8b_by_arithmetic": round(speedup_of_keeping(llama_omni_8b(), options.epochs), 2),
        "hardware": described,
    }))


if __name__ == "__main__":
    main()
