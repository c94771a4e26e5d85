"""Tiny conversations, in memory and in files: noise that claims to be speech, and answers with a pattern."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

from omnivox.model.config import SpeechDecoderConfig
from omnivox.sound import write_wav
from omnivox.train.conversations import InMemory, SpokenConversation, SpokenTurn
from omnivox.train.settings import EncoderSizes, LLMSizes, Stage1Settings, Stage2Settings, TrainRecipe
from tests.train import families

ANSWERS = ("It is Rome.", "Six.", "No.", "Snow is white.", "A dog.")
UNITS = 7


def units_of(answer: str) -> torch.Tensor:
    """A few units a character, without equal neighbours."""
    found = [(3 * ord(character) + i) % UNITS for character in answer for i in range(2)]
    return torch.unique_consecutive(torch.tensor(found))


def conversation(number: int, turns: int = 1) -> SpokenConversation:
    rng = random.Random(number)
    made = []
    for turn in range(turns):
        answer = ANSWERS[(number + turn) % len(ANSWERS)]
        wave = 0.1 * torch.randn(rng.randrange(3200, 9600), generator=torch.Generator().manual_seed(99 * number + turn))
        made.append(SpokenTurn(wave, answer, units_of(answer)))
    return SpokenConversation(f"row-{number}", tuple(made))


def data(rows: int = 12, turns: int = 1) -> InMemory:
    return InMemory([conversation(number, 1 + number % turns) for number in range(rows)])


def write(folder: Path, rows: int = 12, turns: int = 1) -> Path:
    """The same as JSON lines with sounds beside."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for row in data(rows, turns).rows:
        made: list[dict[str, Any]] = []
        for number, turn in enumerate(row.turns):
            name = f"{row.id}-{number}.wav"
            write_wav(folder / name, turn.question, 16_000)
            assert turn.units is not None
            made.append({"question_audio": name, "answer": turn.answer, "units": turn.units.tolist()})
        lines.append(json.dumps({"id": row.id, "turns": made}))
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def recipe(folder: Path, family: str = "llama", **changes: Any) -> TrainRecipe:
    """Everything tiny; the LLM and the encoder are written into `folder`."""
    families.llm_folder(folder / family, family)
    families.whisper_folder(folder / "whisper")
    return recipe_of(folder, family, **changes)


def recipe_of(folder: Path, family: str = "llama", **changes: Any) -> TrainRecipe:
    """The same, of parts that are there."""
    decoder = SpeechDecoderConfig(width=16, layers=1, heads=2, ffn=24, upsample=6, units=UNITS)
    common = {"batch": 4, "micro_batch": 2, "epochs": 2, "precision": "float32", "workers": 0, "log_every": 1,
              "evaluate_every": 4, "save_every": 2, "held_rows": 2, "samples": 1, "lr": 1e-3, "pool": 2}
    settings: dict[str, Any] = {
        "name": "tiny", "llm": str(folder / family), "whisper": str(folder / "whisper" / "tiny.pt"), "k": 50,
        "adaptor_width": 16, "decoder": decoder,
        "llm_sizes": LLMSizes(2, 16, 32, 2, 1, 270), "encoder_sizes": EncoderSizes(1, 16),
        "system": "Be brief.", "instruction": "\nAnswer.",
        "stage1": Stage1Settings(**common, sample_tokens=4),  # type: ignore[arg-type]
        "stage2": Stage2Settings(**common, shard_rows=4),  # type: ignore[arg-type]
    } | changes
    return TrainRecipe(**settings)
