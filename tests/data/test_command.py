"""`omnivox data`: flags, what is said, what is refused; and whole builds with the engines of this machine."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from omnivox.cli import app
from omnivox.cli.data import data
from omnivox.data.manifest import StageFolder
from tests.data.chat_server import serving

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "docs" / "instructions.jsonl"
QUESTIONS = ROOT.parent / "shared" / "questions" / "alpaca_eval_209.jsonl"
OF_SOURCES = {"--out", "--limit", "--turns", "--licence", "--split", "--config", "--reextract", "--shard-rows"}
OF_LLM = {"--llm", "--llm-model", "--llm-key", "--temperature", "--concurrency", "--timeout", "--tries", "--price-in",
          "--price-out", "--yes", "--dry-run", "--language", "--words", "--seed", "--device"}
OF_VOICES = {"--question-voices", "--answer-voice", "--female-voices", "--male-voices", "--answer-name", "--tts-url",
             "--tts-model", "--tts-key", "--tts-concurrency", "--seed", "--device", "--ray", "--gpus"}
OF_UNITS = {"--quantiser", "--centres", "--layer", "--device", "--ray", "--gpus"}
OF_FILTER = {"--recogniser", "--question-wer", "--answer-wer", "--upsample", "--tokenizer", "--language",
             "--device", "--ray", "--gpus"}
COMMANDS = {
    "build": OF_SOURCES | OF_LLM | {"--fillers", "--placeholders"} | OF_VOICES | OF_UNITS | OF_FILTER,
    "sources": OF_SOURCES, "rewrite": OF_LLM | {"--fillers"}, "answer": OF_LLM | {"--placeholders"},
    "speak": OF_VOICES, "quantise": OF_UNITS, "filter": OF_FILTER, "write": set[str]()}


def call(*words: str | float | Path) -> Result:
    return CliRunner().invoke(app, ["data", *(str(word) for word in words)])


def well(*words: str | float | Path) -> str:
    result = call(*words)
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.stderr


def refused(result: Result, *said: str) -> None:
    assert result.exit_code == 2, f"{result.output}\n{result.exception!r}"
    assert "Traceback" not in result.output
    assert result.stdout == ""
    for words in said:
        assert words in " ".join(result.stderr.split()), result.stderr


def rows(build: Path, stage: str) -> list[Any]:
    return list(StageFolder(build, stage).rows())


def test_commands_and_flags_are_these() -> None:
    group = typer.main.get_command(data)
    found = {name: {flag for parameter in command.params for flag in parameter.opts if flag.startswith("-")}
             for name, command in group.commands.items()}  # type: ignore[attr-defined]
    assert found == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_that_parse(command: str) -> None:
    found = typer.main.get_command(data).commands[command]  # type: ignore[attr-defined]
    examples = re.findall(rf"omnivox data {command} [^\n]+", found.help)
    assert examples
    for example in examples:
        found.make_context(command, shlex.split(example)[3:])
    assert call(command, "--help").exit_code == 0


# -- text -------------------------------------------------------------------------------------------------------------

def test_stages_one_by_one_by_rules(tmp_path: Path) -> None:
    build = tmp_path / "b"
    assert "sources: 12 rows\n" in well("sources", SAMPLE, "--out", build, "--licence", "CC0-1.0")
    assert "rewrite: 11 rows, 1 left out (link 1; each with its row: " in well("rewrite", build, "--fillers", 0)
    assert "answer: 10 rows, 1 left out (code 1; " in well("answer", build)
    said = {row.turns[0].question: row.turns[0].answer for row in rows(build, "answer")}
    assert said["Convert to kilometres: ten miles."] == "ten miles are about sixteen point one kilometres."
    assert said["Name three ways to save water at home."].startswith("Take shorter showers")
    assert [one["reason"][:5] for one in StageFolder(build, "rewrite").rejections()] == ["link:"]
    assert {row.licence for row in rows(build, "answer")} == {"CC0-1.0"}


def test_a_stage_before_its_time(tmp_path: Path) -> None:
    refused(call("rewrite", tmp_path / "b"), "run the stage 'sources' first")
    refused(call("write", tmp_path / "b"), "run the stage 'sources' first")


def test_other_flags_than_before(tmp_path: Path) -> None:
    well("sources", SAMPLE, "--out", tmp_path)
    with serving() as served:
        served.fault = lambda handler, body: handler.say(404, {"error": "no such model"}) or True
        refused(call("rewrite", tmp_path, "--llm", served.url, "--llm-model", "typo", "--yes"), "404 no such model")
    well("rewrite", tmp_path)
    refused(call("rewrite", tmp_path, "--seed", 3), "seed was 0, now 3 is asked for", "remove")


@pytest.mark.parametrize(("flags", "said"), [
    (("--llm", "gpt"), "--llm: found 'gpt'; expected rules, local, or the URL"),
    (("--llm", "http://127.0.0.1:9/v1"), "--llm-model: is missing"), (("--fillers", "2"), "--fillers"),
    (("--language", "German"), "the rules know English"),
    (("--llm-model", "llama"), "--llm-model: found 'llama', but rules write the texts; expected --llm local or --llm")])
def test_flags_that_make_no_sense(flags: tuple[str, ...], said: str, tmp_path: Path) -> None:
    well("sources", SAMPLE, "--out", tmp_path)
    refused(call("rewrite", tmp_path, *flags), said)
    assert not (tmp_path / "rewrite").exists()


def test_nothing_is_paid_before_the_estimate_is_agreed_to(tmp_path: Path) -> None:
    well("sources", SAMPLE, "--out", tmp_path)
    with serving() as served:
        flags = ["--llm", served.url, "--llm-model", "tiny", "--price-in", 1, "--price-out", 2]
        told = well("rewrite", tmp_path, *flags, "--dry-run")
        assert "rewrite: 12 calls (0 more are in the cache), about" in told
        assert "cost 0.0" in told
        refused(call("rewrite", tmp_path, *flags), "rewrite: 12 calls", "--yes: is missing")
        assert not served.asked
        well("rewrite", tmp_path, *flags, "--yes")
        assert sum(served.asked.values()) == 12
        assert "answer: 12 calls" in well("answer", tmp_path, *flags, "--dry-run")
        assert "no model will be asked" in well("rewrite", tmp_path, *flags, "--dry-run")
        shutil.rmtree(tmp_path / "rewrite")
        told = well("rewrite", tmp_path, *flags)  # all is in the cache: there is nothing to agree to
        assert "rewrite: 0 calls (12 more are in the cache)" in told
        assert sum(served.asked.values()) == 12


def test_a_stage_that_leaves_nothing_ends_the_build_and_says_why(tmp_path: Path) -> None:
    """Questions without answers, and rules: there would be an empty data set at the end."""
    source = tmp_path / "q.jsonl"
    source.write_text('{"instruction": "What is rain?"}\n{"instruction": "What is tea?"}\n')
    for _ in range(2):
        refused(call("build", source, "--out", tmp_path / "b", "--question-voices", "flite:slt"),
                "answer: 0 rows, 2 left out (unanswered 2; ",
                "answer: no row is left; the first was left out because: unanswered: the source has no answer",
                "--placeholders")
    assert not (tmp_path / "b" / "speak").exists()


@pytest.mark.parametrize(("flags", "said"), [
    (("--centres", "km.bin"), "--centres: found km.bin, but no --quantiser"),
    (("--answer-wer", "0.3"), "--answer-wer: found 0.3, but nobody listens"),
    (("--gpus", "1"), "--gpus: found 1, but no --ray"),
    (("--question-voices", "flite:slt", "--female-voices", "flite:slt"), "--female-voices, --male-voices: found flite"),
    (("--tts-url", "http://127.0.0.1:9/v1"), "--tts-url: found")])
def test_flags_that_nobody_would_use_are_refused(flags: tuple[str, ...], said: str, tmp_path: Path) -> None:
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed")
    refused(call("build", SAMPLE, "--out", tmp_path, *flags), said)
    assert not (tmp_path / "rewrite").exists()


def test_an_endpoint_that_is_down_is_the_machines_fault(tmp_path: Path) -> None:
    well("sources", SAMPLE, "--out", tmp_path)
    result = call("rewrite", tmp_path, "--llm", "http://127.0.0.1:9/v1", "--llm-model", "m", "--yes", "--tries", 1)
    assert result.exit_code == 1
    assert "no answer after 1 tries (ConnectError" in result.stderr
    assert "Traceback" not in result.output


def test_a_missing_package_is_told_by_its_extra(tmp_path: Path) -> None:
    code = ("import sys; sys.modules['httpx'] = None; from omnivox.cli import app; "
            f"app(['data', 'rewrite', {str(tmp_path)!r}])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "pip install 'omnivox[data]'" in done.stderr


# -- whole builds -----------------------------------------------------------------------------------------------------

def whole(source: Path, build: Path, *flags: str | float) -> list[Any]:
    """A build by rules, spoken by flite, with units; its rows."""
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed")
    pytest.importorskip("pyarrow")
    from tests.data.speaking import units_file

    units = units_file(build.parent / "units.safetensors")
    result = call("build", source, "--out", build, "--quantiser", units, *flags)
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    assert result.stdout.strip() == str(build / "write")
    assert "word error rates: not measured, for there was no --recogniser" in result.stderr
    found = rows(build, "write")
    left = [one["id"] for stage in ("sources", "rewrite", "answer", "speak", "quantise", "filter", "write")
            for one in StageFolder(build, stage).rejections()]
    ids = [row.id for row in found] + left
    assert len(ids) == len(set(ids)) == sum(1 for line in source.read_text().splitlines() if line)
    for row in found:
        for turn in row.turns:
            assert turn.units
            assert 0.3 < turn.question_audio.seconds < 60
            assert (build / turn.answer_audio.path).exists()
            assert all(one != other for one, other in zip(turn.units, turn.units[1:], strict=False))
    assert (build / "write" / "README.md").exists()
    assert list((build / "write").rglob("*.parquet"))
    return found


def few(path: Path, count: int) -> Path:
    """The first of the 209 questions."""
    if not QUESTIONS.exists():
        pytest.skip("the 209 questions are not here")
    path.write_text("\n".join(QUESTIONS.read_text().splitlines()[:count]) + "\n")
    return path


def test_the_bundled_sample_is_built_end_to_end(tmp_path: Path) -> None:
    found = whole(SAMPLE, tmp_path / "b", "--question-voices", "flite:slt")
    assert len(found) >= 8
    assert {turn.answer_audio.voice for row in found for turn in row.turns} == {"flite:rms"}


def test_some_of_the_209_questions_end_to_end(tmp_path: Path) -> None:
    found = whole(few(tmp_path / "q.jsonl", 5), tmp_path / "b", "--question-voices", "flite:slt", "--placeholders")
    assert len(found) >= 4


@pytest.mark.slow
def test_all_209_questions_end_to_end(tmp_path: Path) -> None:
    found = whole(few(tmp_path / "q.jsonl", 209), tmp_path / "b", "--placeholders", "--shard-rows", 50)
    assert len(found) >= 180
    voices = Counter(row.turns[0].question_audio.voice for row in found)
    assert len(voices) >= 10
    print(json.dumps({"rows": len(found), "voices": len(voices)}))
