"""`omnivox evaluate`: systems by their specs, tables, what is refused; and every command of docs/evaluate.md."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from omnivox.cli import app
from omnivox.evaluate import bundled
from tests import tiny
from tests.data.chat_server import serving
from tests.evaluate.answering import write_questions

ROOT = Path(__file__).resolve().parents[2]
SHORT = "max_new_tokens=6"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny.omni().save_pretrained(folder)
    return folder


def call(*words: str | float | Path) -> Result:
    return CliRunner().invoke(app, ["evaluate", *(str(word) for word in words)])


def well(*words: str | float | Path) -> dict[str, Any]:
    result = call(*words)
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    told: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return told


def refused(result: Result, *said: str) -> None:
    assert result.exit_code == 2, f"{result.output}\n{result.exception!r}"
    assert result.stdout == ""
    for words in said:
        assert words in " ".join(result.stderr.split()), result.stderr


def test_systems_answer_and_are_measured_and_the_same_again(model: Path, tmp_path: Path) -> None:
    asked = write_questions(tmp_path / "asked", 3)
    words = ("--system", f"omni:{model}?{SHORT}", "--system", f"omni:{model}?{SHORT}&omega=inf", "--questions", asked,
             "--measure", "exact", "--measure", "s2tif", "--work", tmp_path / "work")
    first = well(*words)
    assert [(run["answered"], run["failed"]) for run in first["runs"]] == [(3, 0), (3, 0)]
    assert first["runs"][0]["figures"]["exact"] == {"value": 0.0, "n": 3}
    assert "--judge-url" in first["runs"][0]["unavailable"]["s2tif_content"]
    assert Path(first["runs"][1]["folder"]).parent == tmp_path / "work" / "asked"
    result = call(*words, "--json")
    assert json.loads(result.stdout) == first
    tables = well("--tables", "--work", tmp_path / "work")
    assert set(tables) == {"tables", "report", "json"}
    assert "a judge is needed" in Path(tables["tables"]).read_text()
    assert Path(tables["report"]).read_text().count("<audio") == 1


def test_tables_go_on_without_a_system_that_is_not_there(model: Path, tmp_path: Path) -> None:
    asked = write_questions(tmp_path / "asked", 1)
    words = ("--system", f"omni:{model}?{SHORT}", "--system", f"omni:{tmp_path / 'nothing'}", "--questions", asked,
             "--work", tmp_path / "work")
    refused(call(*words), "nothing")
    told = well("--tables", *words)
    assert re.search(r"nothing could not be had: .*nothing", Path(told["tables"]).read_text())
    told = well("--tables", *words, "--system", "realtime:ws://127.0.0.1:9")
    assert re.search(r"127\.0\.0\.1:9 could not be had: .*cannot connect", Path(told["tables"]).read_text())


def test_a_measure_that_is_had_at_last_is_no_longer_missed(model: Path, tmp_path: Path) -> None:
    words = ("--system", f"omni:{model}?{SHORT}", "--questions", write_questions(tmp_path / "asked", 1), "--measure",
             "s2tif", "--work", tmp_path / "work")
    assert set(well(*words)["runs"][0]["unavailable"]) == {"s2tif_content", "s2tif_style"}
    with serving(reply=lambda prompt: '{"content": 4, "style": 5}') as served:
        told = well(*words, "--judge-url", served.url, "--judge-model", "tiny")["runs"][0]
    assert told["figures"]["s2tif_content"] == {"value": 4.0, "n": 1}
    assert told["unavailable"] == {}


def test_shards_answer_and_one_more_call_measures(model: Path, tmp_path: Path) -> None:
    words = ("--system", f"omni:{model}?{SHORT}", "--questions", write_questions(tmp_path / "asked", 3), "--work",
             tmp_path / "work")
    assert [well(*words, "--shard", f"{part}/2")["runs"][0]["answered"] for part in range(2)] == [2, 3]
    assert well(*words, "--measure", "exact")["runs"][0]["figures"]["exact"]["n"] == 3
    refused(call(*words, "--shard", "0/2", "--measure", "exact"), "--shard: answers alone; run again without it")
    refused(call(*words, "--shard", "2/2"), "--shard: found '2/2'")


def test_flags_that_make_no_sense(tmp_path: Path) -> None:
    work = ("--work", tmp_path)
    refused(call(*work), "MODEL: is missing; expected nano, or --system, or --tables")
    refused(call("nano", "--system", "omni"), "--system: goes without MODEL, found 'nano'")
    refused(call("nano", "--tables"), "--tables: goes without MODEL")
    refused(call("--tables", "--questions", "nano:decline", *work), "--questions: is for systems; add --system SPEC")
    refused(call("nano", "--measure", "exact"), "--measure: is for systems")
    refused(call("--system", "omni", "--measure", "beauty", *work), "measure: found 'beauty'; expected one of exact")
    refused(call("--system", "parrot", *work), "parrot", "omni, cascade")
    refused(call("--system", "omni", "--questions", "none", *work), "questions: found 'none'; expected nano")
    assert call("--system", "omni", "--judge-version", "v3", *work).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_the_bundled_tables_are_only_for_a_folder_of_their_own(tmp_path: Path) -> None:
    assert bundled.is_bundled(tmp_path)
    assert bundled.is_bundled(tmp_path / "new")
    (tmp_path / "nano" / "mine").mkdir(parents=True)
    (tmp_path / "nano" / "mine" / "run.json").write_text("{}")
    assert not bundled.is_bundled(tmp_path)
    (tmp_path / "bundled.json").write_text("{}")
    assert bundled.is_bundled(tmp_path)


# -- the page and the recipe ------------------------------------------------------------------------------------------

def commands() -> list[str]:
    blocks = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "docs" / "evaluate.md").read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, nano_weights: Path) -> None:
    """The bundled systems that the headline is of."""
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("jiwer")
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed")
    monkeypatch.setattr(bundled, "SPECS", bundled.SPECS[:4])


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_the_commands_of_the_page_run(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model, "my-model")
    write_questions(Path("my-questions"), 2)
    assert len(commands()) >= 8
    told = {}
    for line in commands():
        done = CliRunner().invoke(app, [*shlex.split(line)[1:], "--limit", "2"])
        assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"
        told[line] = json.loads(done.stdout.splitlines()[-1])
    headline = told["omnivox evaluate --tables"]
    assert headline["runs"] == 4
    assert headline["first_audio_ratio_vs_cascade"] > 0
    assert headline["wer_omega10_minus_offline"] is not None
    assert {"plcmos_omega10_minus_offline", "hardware", "questions", "report"} <= headline.keys()


def test_the_recipe_names_what_exists(tmp_path: Path) -> None:
    """It is run with `echo` in the place of omnivox; what it would call must parse."""
    from omnivox.evaluate.measures import named
    from tests.test_readme import parse_omnivox

    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    given = {"OMNI": "my-8b", "SPEECHGPT": "s", "SALMONN": "m", "QWEN2_AUDIO": "q", "JUDGE_URL": "http://127.0.0.1:9/v1",
             "JUDGE_MODEL": "gpt", "PATH": "/usr/bin:/bin", "OMNIVOX": "echo", "LIMIT": "3", "WORK": str(tmp_path)}
    for taken in (given, {key: given[key] for key in ("PATH", "OMNIVOX")}):
        done = subprocess.run(["bash", str(ROOT / "recipes" / "tables.sh")], env=taken, capture_output=True, text=True,
                              check=True)
        words = shlex.split(done.stdout.replace("?", "\\?").replace("&", "\\&"))
        parse_omnivox(words)
        assert named([words[i + 1] for i, word in enumerate(words) if word == "--measure"], "v1") is not None
        systems = [word.partition("=")[2] for word in words if word.startswith("--system=")]
        assert len(systems) == (23 if "OMNI" in taken else 0)
