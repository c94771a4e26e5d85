"""@openai/agents-realtime, and what a browser does, in node, against our server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.serve.running import WAIT
from tests.serve.snippets import ANSWER, RATE, loudness, snippet


@pytest.fixture(scope="module")
def packages(request: pytest.FixtureRequest) -> Path:
    """A folder with node's packages, filled once and kept in pytest's cache."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    folder = request.config.cache.mkdir("javascript")
    if not (folder / "node_modules" / "ws").exists():
        wanted = ["@openai/agents-realtime@0.20", "ws@8"]
        done = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", folder, *wanted],
                              capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            pytest.skip(f"npm cannot install {' '.join(wanted)}: {done.stderr.strip()[-200:]}")
    return folder


def node(code: str, packages: Path, folder: Path) -> str:
    """What a module prints."""
    script = packages / f"{folder.name}.mjs"
    script.write_text(code)
    try:
        done = subprocess.run(["node", script], cwd=folder, capture_output=True, text=True, timeout=WAIT, check=False,
                              env={name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"})
    finally:
        script.unlink()
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


def test_openai_agents(address: str, root: Path, folder: Path, packages: Path) -> None:
    said = node(snippet("OpenAI Agents, JavaScript", "js", address, root), packages, folder)
    assert said == ANSWER
    assert loudness((folder / "answer.pcm").read_bytes()) > 0.01


def test_openai_agents_session_with_turns_history_and_an_interruption(address: str, root: Path, folder: Path,
                                                                       packages: Path) -> None:
    """The whole of its RealtimeSession: its own defaults, history kept from items, and truncation."""
    code = """
        import { readFileSync } from "node:fs";
        import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession } from "@openai/agents-realtime";
        const transport = new OpenAIRealtimeWebSocket({ url: "ws://ADDRESS/v1/realtime?model=nano" });
        const session = new RealtimeSession(new RealtimeAgent({ name: "nano", instructions: "" }),
                                            { transport, model: "nano" });
        session.on("error", (error) => {
          if (error.error.error?.code === "response_cancel_not_active") return; // the answer was quicker
          console.error(JSON.stringify(error));
          process.exit(1);
        });
        const turn = () => new Promise((resolve) => transport.once("turn_done", resolve));
        await session.connect({ apiKey: "none" });
        let done = turn();
        session.sendAudio(new Uint8Array(readFileSync("stream.pcm")).buffer);
        await done;
        const interrupted = new Promise((resolve) => session.once("audio_interrupted", resolve));
        const retrieved = new Promise((resolve) => transport.once("conversation.item.retrieved", resolve));
        done = turn();
        session.sendMessage("Tell me a poem.");
        session.once("audio", () => session.interrupt());
        await Promise.all([interrupted, retrieved, done]);
        done = turn();
        session.sendMessage("What is the capital of France?");
        await done;
        const said = session.history.map(({ role, content, status }) => [role, status, content[0]?.type,
                                                                         content[0]?.transcript ?? content[0]?.text]);
        console.log(JSON.stringify(said));
        session.close();
    """
    spoken = (folder / "question.pcm").read_bytes()
    (folder / "stream.pcm").write_bytes(bytes(RATE) + spoken + bytes(2 * RATE * 5))
    said = json.loads(node(code.replace("ADDRESS", address), packages, folder))
    assert [(role, kind) for role, _, kind, _ in said] == [
        ("user", "input_audio"), ("assistant", "output_audio"), ("user", "input_text"), ("assistant", "output_audio"),
        ("user", "input_text"), ("assistant", "output_audio")]
    assert {status for _, status, _, _ in said[:3] + said[4:]} == {"completed"}
    assert said[1][3] == said[5][3] == ANSWER


def test_from_a_browser(address: str, root: Path, folder: Path, packages: Path) -> None:
    """With node's WebSocket of the same interface; the browser itself is driven by the tests of the page."""
    heard = 'import { WebSocket } from "ws";\nlet bytes = 0;\nconst play = (delta) => (bytes += delta.length);\n'
    code = snippet("From a browser", "js", address, root)
    said = node(f"{heard}{code}\nsocket.on('close', () => console.log(bytes, socket.protocol));", packages, folder)
    *words, last = said.splitlines()
    assert "".join(words) == ANSWER
    size, protocol = last.split()
    assert int(size) > RATE
    assert protocol == "realtime"
