"""The pages on training: every command of theirs runs, with tiny parts in the place of large ones."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from omnivox.cli import app
from tests.checkpoint import published
from tests.train import spoken

ROOT = Path(__file__).resolve().parents[2]
COMMAND = re.compile(r"^omnivox (train|respond) .*$", re.MULTILINE)
TINY = ("decoder.width=16", "decoder.layers=1", "decoder.heads=2", "decoder.ffn=24", f"decoder.units={spoken.UNITS}",
        "k=50", "adaptor_width=16", *(f"stage{i}.{change}" for i in (1, 2) for change in (
            "batch=2", "micro_batch=2", "steps=2", "precision=float32", "workers=0", "held_rows=1", "samples=1")),
        "stage1.sample_tokens=2", "stage1.parallel=auto", "stage1.lora_rank=2")


def commands(page: str) -> list[str]:
    blocks = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)
    return [match[0] for block in blocks for match in COMMAND.finditer(block) if "--hubert" not in match[0]]


def tiny(line: str, parts: Path) -> list[str]:
    """The command's own words, and after them what makes everything small."""
    words = shlex.split(line)[1:]
    if words[0] != "train" or "--plan" in words:
        return words + (["--max-new-tokens", "4"] if words[0] == "respond" else [])
    words = ["conversations" if word == "other-voice" else word for word in words]
    small = [word for change in TINY for word in ("--set", change) if not any(
        change.split("=")[0] == own.split("=")[0] for own in words)]
    return [*words, "--llm", str(parts / "llama"), "--whisper", str(parts / "whisper" / "tiny.pt"), *small]


@pytest.mark.slow
@pytest.mark.parametrize("page", ["train.md", "change.md"])
def test_the_commands_of_a_page_run_one_after_the_other(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                        ) -> None:
    spoken.recipe(tmp_path / "parts")
    spoken.write(tmp_path / "conversations", 6)
    published.unit_vocoder(tmp_path / "vocoder", spoken.UNITS)
    shutil.copy(ROOT / "docs" / "question.wav", tmp_path)
    monkeypatch.chdir(tmp_path)
    found = commands(page)
    assert len(found) >= 4
    for line in found:
        if "decoder.units=" in line or "decoder.upsample=" in line:
            line = re.sub(r"decoder.units=\d+", f"decoder.units={spoken.UNITS}", line)
            shutil.rmtree(tmp_path / "build" / "qwen" / "stage2", ignore_errors=True)
        done = CliRunner().invoke(app, tiny(line, tmp_path / "parts"))
        assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"
    if page == "train.md":
        assert (tmp_path / "reply.wav").stat().st_size > 44


def test_every_launch_in_the_pages_fits_the_command_line() -> None:
    from tests.test_readme import parse_omnivox

    launches = re.findall(r"^(?:torchrun|accelerate launch) .*?omnivox (train .*)$",
                          (ROOT / "docs" / "train.md").read_text(), re.MULTILINE)
    assert len(launches) == 4
    for line in launches:
        parse_omnivox(shlex.split(line))


def test_the_shell_recipe_uses_flags_that_exist() -> None:
    text = (ROOT / "recipes" / "llama-omni-8b.sh").read_text()
    flags = set(re.findall(r"(?<= )--(?:gpus|gpu-memory|data|work|vocoder|plan)\b", text))
    assert flags == {"--gpus", "--gpu-memory", "--data", "--work", "--vocoder", "--plan"}
