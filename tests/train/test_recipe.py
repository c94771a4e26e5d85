"""`recipes/nano.sh` ends as a whole: what fails, or is told to stop, leaves nothing running."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "nano.sh"
STEPS = ["sentences", "words", "questions", "strange", "exams", "answers", "repeats", "units", "vocoder", "hear",
         "stage1", "stage2", "assemble"]


def recipe(folder: Path, **acts: str) -> subprocess.Popen[bytes]:
    """The recipe over a command that notes which steps it was asked for, and does what `acts` says for some."""
    acts = {"language": "true", "encoder": "true", **acts}
    cases = "\n".join(f"  {step}) {act};;" for step, act in acts.items())
    command = folder / "omnivox"
    command.write_text(f'#!/bin/bash\necho "$3" >> "{folder}/steps"\ncase "$3" in\n{cases}\nesac\n')
    command.chmod(0o755)
    environment = os.environ | {"OMNIVOX": str(command), "WORK": str(folder / "work")}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        return subprocess.Popen(["bash", str(RECIPE)], env=environment, stderr=subprocess.DEVNULL)
    finally:
        signal.signal(signal.SIGINT, before)


def asked(folder: Path) -> list[str]:
    return (folder / "steps").read_text().split()


def sleeper(folder: Path) -> str:
    """Stands for a long step; leaves its process id."""
    return f'echo $$ > "{folder}/pid"; exec sleep 600'


def gone(folder: Path) -> bool:
    """Whether the sleeper has ended, within a while."""
    for _ in range(200):
        try:
            os.kill(int((folder / "pid").read_text()), 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_every_step_runs_once_and_in_order(tmp_path: Path) -> None:
    job = recipe(tmp_path)
    assert job.wait(60) == 0
    steps = asked(tmp_path)
    assert [step for step in steps if step in STEPS] == STEPS
    assert sorted(steps) == sorted([*STEPS, "language", "encoder"])


def test_a_step_that_fails_ends_what_runs_beside_it(tmp_path: Path) -> None:
    waiting = f'until [ -s "{tmp_path}/pid" ]; do sleep .1; done; exit 2'
    job = recipe(tmp_path, language=sleeper(tmp_path), words=waiting)
    assert job.wait(60) == 2
    assert gone(tmp_path)
    assert "questions" not in asked(tmp_path)


def test_what_fails_beside_a_step_ends_it(tmp_path: Path) -> None:
    waiting = f'until [ -s "{tmp_path}/pid" ]; do sleep .1; done; exit 2'
    job = recipe(tmp_path, language=waiting, sentences=sleeper(tmp_path))
    assert job.wait(60) != 0
    assert gone(tmp_path)
    assert "words" not in asked(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_all_that_it_started(tmp_path: Path, number: signal.Signals) -> None:
    job = recipe(tmp_path, language=sleeper(tmp_path), sentences="exec sleep 600")
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        time.sleep(0.05)
    job.send_signal(number)
    assert job.wait(60) == 128 + number
    assert gone(tmp_path)
