"""The command line: what it prints, where, and with which exit status; through the real console script where it can."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer

from omnivox.cli import app
from omnivox.sound import read_audio, write_wav
from tests import tiny
from tests.command import call, clear, script

COMMANDS = {
    "respond": {"--output", "-o", "--model", "--omega", "--lookahead", "--temperature", "--top-p", "--seed",
                "--max-new-tokens", "--device", "--dtype", "--whisper", "--vocoder", "--json"},
    "chat": {"--model", "--omega", "--lookahead", "--temperature", "--top-p", "--seed", "--max-new-tokens",
             "--silence-ms", "--server", "--api-key", "--headphones", "--device", "--dtype", "--whisper",
             "--vocoder"},
    "serve": {"--model", "--host", "--port", "--api-key", "--allow-public", "--allow-origin", "--slots", "--queue",
              "--context", "--sessions-per-minute", "--max-sessions", "--drain-seconds", "--log-content", "--ray",
              "--replicas", "--device", "--dtype", "--whisper", "--vocoder"},
    "info": {"--whisper", "--vocoder", "--json"},
    "convert": {"--whisper", "--vocoder", "--dtype"},
    "evaluate": {"--limit", "--work", "--system", "--questions", "--measure", "--tables", "--shard", "--seed", "--asr",
                 "--judge-url", "--judge-model", "--judge-key", "--judge-version", "--api-key", "--device", "--json"},
    "train": {"--work", "--scale", "--data", "--held", "--llm", "--whisper", "--vocoder", "--model", "--set",
              "--hubert", "--centres", "--plan",
              "--gpus", "--gpu-memory", "--gpu-tflops"},
    "bench": {"--shape", "--omega", "--lookahead", "--device", "--dtype", "--whisper", "--vocoder", "--questions",
              "--seconds", "--runs", "--max-new-tokens", "--published", "--json"},
    "data": set(),  # a group: tests/data/test_command.py has its commands
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model in our layout."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny.omni().save_pretrained(folder)
    return folder


# -- help -------------------------------------------------------------------------------------------------------------

def test_commands_and_flags_are_these() -> None:
    group = typer.main.get_command(app)
    found = {name: {flag for parameter in command.params for flag in parameter.opts if flag.startswith("-")}
             for name, command in group.commands.items()}  # type: ignore[attr-defined]
    assert found == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_that_parses(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    examples = re.findall(rf"omnivox {command}[^\n│|]*", result.output.split("Example", 1)[1])
    assert examples
    group = typer.main.get_command(app)
    for example in examples:
        group.commands[command].make_context(command, example.split()[2:])  # type: ignore[attr-defined]


def test_no_arguments_show_the_commands() -> None:
    result = call()
    assert all(command in result.output for command in COMMANDS)


def test_version() -> None:
    assert re.fullmatch(r"omnivox \d+\.\d+\.\d+\n", call("--version").output)


def test_help_needs_no_torch(tmp_path: Path) -> None:
    code = "import sys, omnivox.cli; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0


# -- respond ----------------------------------------------------------------------------------------------------------

def test_text_goes_to_stdout_and_timings_to_stderr(model: Path, question: Path, tmp_path: Path) -> None:
    result = call("respond", question, "--model", model, "-o", tmp_path / "reply.wav", "--max-new-tokens", 8)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip()
    for part in ["encode", "prefill", "first token", "first audio", "total", "real-time factor", "reply.wav"]:
        assert part in result.stderr
        assert part not in result.stdout


def test_json_is_all_of_stdout_and_tells_what_the_file_holds(model: Path, question: Path, tmp_path: Path) -> None:
    reply = tmp_path / "reply.wav"
    result = call("respond", question, "--model", model, "--json", "-o", reply, "--max-new-tokens", 8)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert set(told) == {"text", "units", "sample_rate", "output", "cut", "timings"}
    assert set(told["timings"]) >= {"encode", "prefill", "first_token", "first_audio", "total", "real_time_factor"}
    assert told["output"] == str(reply)
    assert told["cut"] is True
    with wave.open(str(reply)) as file:
        assert file.getframerate() == told["sample_rate"]
        assert file.getnframes() / file.getframerate() == pytest.approx(told["timings"]["audio_seconds"])


def test_with_and_without_json_it_says_the_same(model: Path, question: Path) -> None:
    words = ("respond", question, "--model", model, "--max-new-tokens", 8, "--temperature", 0.9, "--seed", 3)
    assert json.loads(call(*words, "--json").stdout)["text"] == call(*words).stdout.removesuffix("\n")


def test_flags_reach_the_model(model: Path, question: Path) -> None:
    def answer(*flags: str | int | float) -> dict[str, object]:
        words = [str(flag) for flag in flags]
        result = call("respond", question, "--model", model, "--json", "--max-new-tokens", 8, *words)
        assert result.exit_code == 0, result.output
        told: dict[str, object] = json.loads(result.stdout)
        return told

    greedy = answer()
    assert answer("--omega", 3)["units"] == greedy["units"]
    hot = [answer("--temperature", 5, "--seed", seed)["text"] for seed in (1, 1, 2)]
    assert hot[0] == hot[1] != hot[2]
    assert answer("--temperature", 5, "--top-p", 1e-6, "--seed", 1)["text"] == greedy["text"]
    assert len(str(answer("--max-new-tokens", 2)["text"])) < len(str(greedy["text"]))


def test_a_question_that_is_not_there(model: Path, tmp_path: Path) -> None:
    clear(call("respond", tmp_path / "none.wav", "--model", model), "none.wav: no such file")


def test_a_question_that_is_no_sound(model: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.wav").write_text("Dear model, what is the time?")
    clear(call("respond", tmp_path / "letter.wav", "--model", model, "--json"), "letter.wav: not a sound file")


def test_an_empty_question(model: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "empty.wav", torch.zeros(0), 16_000)
    clear(call("respond", tmp_path / "empty.wav", "--model", model), "empty.wav: holds no samples")


def test_a_model_that_is_not_there(question: Path, tmp_path: Path) -> None:
    clear(call("respond", question, "--model", tmp_path / "nothing"), "nothing")


def test_a_reply_that_could_not_be_written_is_refused_before_the_work(question: Path, tmp_path: Path) -> None:
    # The model does not exist either: the folder is looked at first.
    clear(call("respond", question, "--model", tmp_path / "nothing", "-o", tmp_path / "no" / "reply.wav"),
          "--output", "create it first")


@pytest.mark.parametrize(("flag", "value"), [("--omega", "0"), ("--lookahead", "-1"), ("--temperature", "-0.1"),
                                             ("--top-p", "1.5"), ("--max-new-tokens", "0"), ("--seed", "one"),
                                             ("--device", "abacus"), ("--dtype", "int3"), ("--loud", "yes")])
def test_a_flag_that_makes_no_sense(flag: str, value: str, question: Path) -> None:
    clear(call("respond", question, flag, value), flag)


def test_the_console_script_answers(model: Path, question: Path, tmp_path: Path) -> None:
    done = script("respond", question, "--model", model, "-o", "reply.wav", "--json", "--max-new-tokens", 8,
                  cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output"] == "reply.wav"
    assert [file.name for file in tmp_path.iterdir()] == ["reply.wav"]


def test_the_console_script_ends_well_on_bad_input(model: Path, tmp_path: Path) -> None:
    done = script("respond", "none.wav", "--model", model, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("omnivox: none.wav")


def test_ctrl_c_is_130_and_leaves_nothing(model: Path, question: Path, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **kwargs: object) -> Iterator[object]:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
        yield

    monkeypatch.setattr("omnivox.runtime.respond.Omni.respond", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        result = call("respond", question, "--model", model, "-o", tmp_path / "reply.wav")
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == 130
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_nano_answers_the_bundled_question(nano_weights: Path, question: Path, tmp_path: Path) -> None:
    done = script("respond", question, "-o", "reply.wav", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "The capital of France is Paris.\n"
    assert len(read_audio(tmp_path / "reply.wav")) > 16_000


# -- info -------------------------------------------------------------------------------------------------------------

def test_info_counts_what_is_there(model: Path) -> None:
    result = call("info", model, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    omni = tiny.omni()
    assert told["parameters"]["encoder"] == sum(p.numel() for p in omni.model.encoder.parameters())
    assert told["parameters"]["vocoder"] == sum(p.numel() for p in omni.vocoder.parameters())
    assert told["parameters"]["total"] == sum(count for name, count in told["parameters"].items() if name != "total")
    assert told["rates"] == {"question_samples": 16_000, "mel_frames": 100, "encoder_frames": 25, "llm_positions": 12.5,
                             "unit_frames": 25, "reply_samples": 16_000}
    assert told["settings"]["units"] == tiny.UNITS
    assert told["settings"]["llm"] == "llama"
    assert told["settings"]["question_seconds"] == 8.0


def test_info_for_people_shows_every_group(model: Path) -> None:
    result = call("info", model)
    for words in ["parameters", "megabytes", "rates", "settings", "speech decoder", "llm positions"]:
        assert words in result.stdout


def test_info_of_nothing(tmp_path: Path) -> None:
    clear(call("info", tmp_path / "nothing", "--json"), "nothing")


def test_info_of_nano(nano_weights: Path) -> None:
    told = json.loads(call("info", "nano", "--json").stdout)
    assert told["settings"]["vocoder"] == "SourceFilter"
    assert 1e6 < told["parameters"]["total"] < 15e6


# -- convert ----------------------------------------------------------------------------------------------------------

def test_convert_gives_a_folder_that_answers_the_same(model: Path, question: Path, tmp_path: Path) -> None:
    result = call("convert", model, tmp_path / "copy")
    assert (result.exit_code, result.stdout) == (0, ""), result.output
    first, second = (json.loads(call("respond", question, "--model", folder, "--json", "--max-new-tokens", 8).stdout)
                     for folder in (model, tmp_path / "copy"))
    assert (first["text"], first["units"]) == (second["text"], second["units"])


def test_convert_does_not_write_over_a_model(model: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "config.json").write_text("{}")
    clear(call("convert", model, tmp_path / "copy"), "copy")
    assert (tmp_path / "copy" / "config.json").read_text() == "{}"


def test_convert_of_nothing_writes_nothing(tmp_path: Path) -> None:
    clear(call("convert", tmp_path / "nothing", tmp_path / "copy"), "nothing")
    assert list(tmp_path.iterdir()) == []


# -- chat, evaluate, train --------------------------------------------------------------------------------------------

def test_chat_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    clear(call("chat"), "pip install 'omnivox[chat]'")


def test_chat_talks_until_the_microphone_ends(model: Path, question: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("silero_vad")
    from tests.runtime.test_chat import Recording

    class Opened(Recording):
        def __init__(self) -> None:
            super().__init__(torch.cat([torch.zeros(16_000), read_audio(question), torch.zeros(16_000)]))

        def __enter__(self) -> Opened:
            return self

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr("omnivox.runtime.chat.SoundDevice", Opened)
    result = call("chat", "--model", model, "--max-new-tokens", 8)
    assert result.exit_code == 0, result.output
    assert len(result.stdout.strip().splitlines()) == 1
    assert "Listening" in result.stderr


def test_chat_with_a_server_says_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("websockets")
    import numpy as np

    from tests.realtime import Peer, server
    from tests.runtime.test_remote import Desk

    class Opened(Desk):
        def __init__(self) -> None:
            super().__init__()
            self.drained.set()
            self.microphone.put(None)

        def __enter__(self) -> Opened:
            return self

        def __exit__(self, *error: object) -> None:
            pass

    def talk(peer: Peer) -> None:
        peer.greet()
        peer.send("input_audio_buffer.committed", item_id="item_1", previous_item_id=None)
        peer.send("conversation.item.input_audio_transcription.completed", item_id="item_1", content_index=0,
                  transcript="What is it?")
        peer.answer(None, "It is Paris.", np.zeros(2400))
        peer.until("input_audio_buffer.clear")
        peer.send("input_audio_buffer.cleared")

    monkeypatch.setattr("omnivox.runtime.chat.SoundDevice", Opened)
    monkeypatch.setenv("OMNIVOX_API_KEY", "mine")
    with server(talk) as (url, peers):
        result = call("chat", "--server", url, "--silence-ms", 300, "--omega", 20, "--max-new-tokens", 9)
    assert result.exit_code == 0, result.output
    assert result.stdout == "It is Paris. \n"
    assert "> What is it?" in result.stderr
    session = peers[0].heard[0]["session"]
    assert peers[0].headers["Authorization"] == "Bearer mine"
    assert session["audio"]["input"]["turn_detection"] == {"type": "server_vad", "silence_duration_ms": 300}
    assert session["omnivox"] == {"chunk_units": 20}  # and nothing that was not asked for: others refuse it
    assert session["max_output_tokens"] == 9


def test_chat_flags_that_do_not_go_together() -> None:
    clear(call("chat", "--server", "ws://127.0.0.1:9", "--device", "cpu"), "--device", "the server decides")
    clear(call("chat", "--headphones"), "--headphones", "add --server URL")


def test_evaluate_ends_in_one_json_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def score(model: str, limit: int | None, work: Path | None, echo: bool) -> dict[str, object]:
        print("a table" * echo)
        return {"model": model, "limit": limit, "work": str(work)}

    monkeypatch.setattr("omnivox.nano.evaluate.evaluate", score)
    result = call("evaluate", "nano", "--limit", 3, "--work", tmp_path)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1]) == {"model": "nano", "limit": 3, "work": str(tmp_path)}


def test_evaluate_of_nothing(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx")
    clear(call("evaluate", tmp_path / "nothing"), "nothing")


def test_train_knows_its_recipe_and_its_steps(tmp_path: Path) -> None:
    clear(call("train", "giga", "stage1", "--work", tmp_path), "giga", "expected nano")
    clear(call("train", "nano", "stage3", "--work", tmp_path), "stage3", "stage1", "assemble")


def test_a_training_step_without_what_it_needs_says_so(tmp_path: Path) -> None:
    clear(call("train", "nano", "stage1", "--work", tmp_path), str(tmp_path))
