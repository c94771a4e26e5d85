"""`omnivox bench`: what it prints and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from omnivox.cli import app
from tests import tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model in our layout."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny.omni(end_ids=()).save_pretrained(folder)
    return folder


def bench(*words: str | float | Path) -> Result:
    return CliRunner().invoke(app, ["bench", *map(str, words)])


def refused(result: Result, *said: str) -> None:
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    for words in said:
        assert words in result.stderr


def test_a_model_is_measured_and_the_last_line_is_json(model: Path) -> None:
    result = bench(model, "--seconds", 0.5, "--runs", 2, "--max-new-tokens", 12, "--omega", 4, "--lookahead", 3)
    assert result.exit_code == 0, result.output
    table, last = result.stdout.rstrip("\n").rsplit("\n", 1)
    assert "first audio" in table
    assert "real-time factor" in table
    told = json.loads(last)
    assert (told["bench"], told["model"], told["weights"]) == ("latency", str(model), "trained")
    assert told["settings"] == {"omega": 4, "lookahead": 3, "max_new_tokens": 12, "runs": 2, "published": False}
    assert (told["questions"], told["question_seconds"]) == (1, 0.5)
    assert told["variants"]["ours"]["replies"] == 2
    assert told["hardware"]["cpu"]
    assert "ratios" not in told


def test_json_is_all_of_stdout(model: Path) -> None:
    result = bench(model, "--seconds", 0.5, "--runs", 1, "--max-new-tokens", 12, "--published", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert set(told["variants"]) == {"ours", "published"}
    assert told["same_tokens"] == told["same_units"] == 1
    assert told["ratios"]["total"] > 0


def test_a_shape_is_built_and_answers_as_long_as_it_is_told(nano_weights: Path) -> None:
    result = bench("--shape", "nano", "--questions", 2, "--max-new-tokens", 6, "--device", "cpu", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["model"], told["weights"], told["questions"]) == ("nano", "random", 2)
    ours = told["variants"]["ours"]
    assert (ours["tokens"], ours["units"], ours["spoken"]) == (6, 60, 2)
    assert ours["words_per_second"] is None
    assert ours["lagging_words"] is None


def test_a_shape_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnivox.evaluate.shapes.bytes_free", lambda device: int(8e9))
    refused(bench("--shape", "llama-omni-8b", "--device", "cpu"), "--shape llama-omni-8b: needs 40.", "in float32",
            "cpu has 8.0 GB free", "--dtype bfloat16", "llama-omni-1b")


def test_what_makes_no_sense_is_refused(model: Path) -> None:
    refused(bench("--shape", "70b"), "--shape: found '70b'; expected nano, 150m")
    refused(bench(model, "--shape", "nano"), "leave out")
    refused(bench(model, "--questions", 3, "--seconds", 2), "--questions, --seconds: found both")
    refused(bench("--shape", "150m", "--vocoder", "folder"), "--whisper, --vocoder")
    refused(bench(model, "--runs", 0), "--runs")
    refused(bench("no/such/model"), "no/such/model")
    for long in ("inf", "1e12"):
        refused(bench(model, "--seconds", long), f"--seconds: found {float(long):g}; at most 600 s are heard")
