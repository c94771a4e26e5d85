"""Does the model know that a question has ended? What `semantic_vad` builds on.

The certainty of nano's answer (the mean probability of its tokens up to the first sound) to held-out questions, and to
the same questions cut off. `auc`: how often a whole question is answered with more certainty than one that is cut; 0.5
would be chance. Ends in one JSON line.

    python bench/certainty.py
    python bench/certainty.py --quick
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import omnivox
from omnivox.nano.questions import held_out
from omnivox.runtime.engine import Engine, EngineSettings
from omnivox.runtime.events import Ready
from omnivox.runtime.history import History
from omnivox.runtime.job import Event

sys.path.insert(0, str(Path(__file__).resolve().parent))
from hardware import hardware

CUTS = (0.4, 0.6, 0.8)  # of a question's length


def certainty(engine: Engine, wave: np.ndarray[Any, Any]) -> float:
    """Of the answer to a question, as far as its first sound."""
    told: queue.SimpleQueue[Event] = queue.SimpleQueue()
    history = History(engine.omni)
    history.add(history.speech(torch.as_tensor(wave)))
    job = engine.reply(history.prompt(), told.put, held=True)
    ready = told.get(timeout=60)
    assert isinstance(ready, Ready)
    job.cancel()
    return ready.certainty


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="five questions, to see that it runs")
    options = parser.parse_args()
    described = hardware()
    waves = [question.audio for question in held_out("seen_voice")][::2][: 5 if options.quick else 100]
    with Engine(omnivox.load("nano", device="cpu"), EngineSettings(slots=1)) as engine:
        whole = np.array([certainty(engine, wave) for wave in waves])
        auc = {}
        for share in CUTS:
            cut = np.array([certainty(engine, wave[: int(share * len(wave))]) for wave in waves])
            auc[str(share)] = round(float((whole[:, None] > cut).mean()), 3)
            print(f"cut at {share:.0%}: median certainty {np.median(cut):.2f}, whole {np.median(whole):.2f}, "
                  f"auc {auc[str(share)]:.2f}")
    print(json.dumps({"bench": "certainty", "quick": options.quick, "auc": auc, "questions": len(waves),
                      "hardware": described}))


if __name__ == "__main__":
    main()
