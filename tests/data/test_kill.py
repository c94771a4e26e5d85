"""`kill -9` at any moment: run again, the result is the same, no row is lost or doubled, and no call is paid twice."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from omnivox.data.manifest import StageFolder
from omnivox.data.sources import SourceSettings, collect
from tests.data.chat_server import Handler, Served, serving, well

ROWS, SHARD, CONCURRENCY = 60, 25, 2  # a kill in a shard loses far more rows than there are calls under way
OMNIVOX = [sys.executable, "-c", "import sys; from omnivox.cli import app; app(sys.argv[1:])"]


def started(*words: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen([*OMNIVOX, "data", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)


def finished(*words: str | Path) -> None:
    process = started(*words)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said


def sources(build: Path) -> Path:
    path = build.parent / "questions.jsonl"
    path.write_text("".join(json.dumps({"instruction": f"Tell me about thing {'abcdefghij'[i % 10]} {i}."}) + "\n"
                            for i in range(ROWS)))
    collect(SourceSettings((str(path),), shard_rows=SHARD), build)
    return build


def flags(served: Served) -> list[str]:
    return ["--llm", served.url, "--llm-model", "tiny", "--concurrency", str(CONCURRENCY), "--yes"]


def contents(build: Path) -> dict[str, bytes]:
    return {str(path.relative_to(build)): path.read_bytes() for stage in ("sources", "rewrite", "answer")
            for path in sorted((build / stage).iterdir())}


def nonsense_at_times(prompt: str) -> str:
    """Some rows are rejected, some need a second attempt; a function of the prompt alone."""
    return "no JSON" if "thing c" in prompt else well(prompt)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_killed_at_random_moments(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    with serving(reply=nonsense_at_times, delay=0.01) as served:
        calm = sources(tmp_path / "calm")
        for stage in ("rewrite", "answer"):
            finished(stage, calm, *flags(served))
        expected, calls = contents(calm), dict(served.asked)
        assert set(calls.values()) <= {1, 3}  # three attempts at what is nonsense
        served.asked.clear()
        served.answered.clear()

        wild = sources(tmp_path / "wild")
        kills = 0
        for stage in ("rewrite", "answer"):
            for _ in range(3):
                process = started(stage, wild, *flags(served))
                wanted = len(served.answered) + rng.randrange(ROWS // 3)
                while len(served.answered) < wanted and process.poll() is None:
                    time.sleep(0.002)
                time.sleep(rng.random() * 0.03)
                process.send_signal(signal.SIGKILL)
                process.communicate()
                kills += 1
            finished(stage, wild, *flags(served))

        assert contents(wild) == expected
        rows = [row.id for row in StageFolder(wild, "answer").rows()]
        left = [one["id"] for stage in ("rewrite", "answer") for one in StageFolder(wild, stage).rejections()]
        assert len(rows) + len(left) == len({*rows, *left}) == ROWS
        # Only a call that was on its way when a kill came can have been made again.
        again = sum(served.asked.values()) - sum(calls.values())
        assert served.asked.keys() == calls.keys()
        assert 0 <= again <= kills * CONCURRENCY
        assert all(served.asked[prompt] >= count for prompt, count in calls.items())


def test_killed_while_the_sources_are_read(tmp_path: Path) -> None:
    calm = sources(tmp_path / "calm")
    wild = tmp_path / "wild"
    for _ in range(3):
        process = started("sources", tmp_path / "questions.jsonl", "--out", wild, "--shard-rows", str(SHARD))
        while not (wild / "sources" / "manifest.json").exists() and process.poll() is None:
            time.sleep(0.001)
        process.kill()
        process.communicate()
    finished("sources", tmp_path / "questions.jsonl", "--out", wild, "--shard-rows", str(SHARD))
    assert {path.name: path.read_bytes() for path in (wild / "sources").iterdir()} == {
        path.name: path.read_bytes() for path in (calm / "sources").iterdir()}


def test_killed_with_calls_under_way_pays_at_most_for_those(tmp_path: Path) -> None:
    """The server holds every call while the client dies."""
    build = sources(tmp_path / "b")
    held = []

    def hold(handler: Handler, body: object) -> bool:
        if len(handler.served.answered) >= 20 and len(held) < CONCURRENCY:
            held.append(body)
            time.sleep(1.0)
        return False

    with serving(fault=hold) as served:
        process = started("rewrite", build, *flags(served))
        while len(held) < CONCURRENCY and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        process.communicate()
        finished("rewrite", build, *flags(served))
        assert sum(served.asked.values()) <= ROWS + CONCURRENCY
        assert len(list(StageFolder(build, "rewrite").rows())) == ROWS


def test_sigterm_ends_it_well(tmp_path: Path) -> None:
    build = sources(tmp_path / "b")
    with serving(delay=0.05) as served:
        process = started("rewrite", build, *flags(served))
        while len(served.answered) < 10 and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=300)
        assert process.returncode == 130
        assert "Traceback" not in said
        assert not list((build / "rewrite").glob(".*"))
        finished("rewrite", build, *flags(served))
        assert sum(served.asked.values()) <= ROWS + 2 * CONCURRENCY
        assert len(list(StageFolder(build, "rewrite").rows())) == ROWS


def test_a_copy_of_the_cache_spares_every_call(tmp_path: Path) -> None:
    first = sources(tmp_path / "first")
    with serving() as served:
        finished("rewrite", first, *flags(served))
        second = sources(tmp_path / "second")
        shutil.copytree(first / "cache", second / "cache")
        for path in (second / "cache").rglob("*.jsonl"):  # as if cut by a kill in its last line
            path.write_bytes(path.read_bytes()[:-9])
        finished("rewrite", second, *flags(served))
        assert sum(served.asked.values()) <= ROWS + len(list((first / "cache").rglob("*.jsonl")))
        assert contents_of(second) == contents_of(first)


def contents_of(build: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (build / "rewrite").iterdir()}
