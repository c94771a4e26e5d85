"""Stages over shards: order, rejections, going on, and what is refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from omnivox.data.manifest import StageFolder
from omnivox.data.records import Rejected, Row, Turn
from omnivox.data.stage import ShardTask, Stage, at_once, in_turn, run_stage
from omnivox.errors import DataError


class Shout(Stage):
    """Rejects what holds a "no"; fails at `fail`, as often as it meets it."""

    name = "rewrite"

    def __init__(self, mark: str = "!", fail: str = "") -> None:
        self.mark, self.fail, self.done, self.seen, self.closed = mark, fail, list[str](), 0, 0

    def settings(self) -> Mapping[str, Any]:
        return {"mark": self.mark, "nested": {"pair": (1, 2)}}

    def begin(self, build: Path, rows: Iterable[Row]) -> None:
        self.seen = len(list(rows))

    def apply(self, rows: Sequence[Row], build: Path) -> Iterator[Row | Rejected]:
        for row in rows:
            text = row.turns[0].instruction
            if text == self.fail:
                raise RuntimeError("power cut")
            self.done.append(text)
            yield Rejected("no: it says no") if "no" in text else row.with_turns(
                [replace(row.turns[0], question=text + self.mark)])

    def close(self) -> None:
        self.closed += 1


TEXTS = ["one", "two", "no three", "four\u2028lines", "five", "no six", "seven"]


@pytest.fixture
def build(tmp_path: Path) -> Path:
    folder = StageFolder(tmp_path / "b", "sources")
    manifest = folder.claim({}, "")
    rows = [Row(f"r{i}", "s", "", (Turn(text),)) for i, text in enumerate(TEXTS)]
    reports = [folder.write_shard(i, rows[i * 2:i * 2 + 2], rows[i * 2:i * 2 + 2]) for i in range(4)]
    folder.finish(manifest, reports)
    return tmp_path / "b"


def contents(build: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((build / "rewrite").iterdir())}


def test_rows_keep_their_order_and_rejected_ones_their_reason(build: Path) -> None:
    manifest = run_stage(Shout(), build, "sources")
    folder = StageFolder(build, "rewrite")
    assert [row.turns[0].question for row in folder.rows()] == ["one!", "two!", "four\u2028lines!", "five!", "seven!"]
    rejected = list(folder.rejections())
    assert [(one["id"], one["stage"], one["reason"]) for one in rejected] == [
        ("r2", "rewrite", "no: it says no"), ("r5", "rewrite", "no: it says no")]
    assert rejected[0]["row"]["turns"][0]["instruction"] == "no three"
    assert (manifest.rows, manifest.rejected) == (5, 2)
    assert sum(1 for _ in StageFolder(build, "sources").rows()) == manifest.rows + manifest.rejected


def test_every_way_of_running_gives_the_same_bytes(build: Path, tmp_path: Path) -> None:
    run_stage(Shout(), build, "sources", in_turn)
    first = contents(build)
    for path in (build / "rewrite").iterdir():
        path.unlink()
    run_stage(Shout(), build, "sources", at_once(3))
    assert contents(build) == first
    for path in (build / "rewrite").iterdir():
        path.unlink()

    def backwards(task: ShardTask, indices: Sequence[int], count: Any) -> None:
        task = pickle.loads(pickle.dumps(task))
        for index in reversed(indices):
            count(task(index).rows)

    run_stage(Shout(), build, "sources", backwards)
    assert contents(build) == first


def test_a_finished_shard_is_not_made_again(build: Path) -> None:
    broken = Shout(fail="five")
    with pytest.raises(RuntimeError, match="power cut"):
        run_stage(broken, build, "sources")
    assert broken.closed == 1
    with pytest.raises(DataError, match="stopped before its end"):
        list(StageFolder(build, "rewrite").rows())
    (build / "rewrite" / ".shard-00002.jsonl.ab12_xyz.jsonl").write_text("half")  # as a kill leaves it
    (build / "rewrite" / ".keep").write_text("mine")
    again = Shout()
    manifest = run_stage(again, build, "sources")
    assert again.done == TEXTS[4:]
    assert again.seen == len(TEXTS)
    assert manifest.rows == 5
    assert [path.name for path in (build / "rewrite").glob(".*")] == [".keep"]
    third = Shout()
    assert run_stage(third, build, "sources") == manifest
    assert (third.done, third.closed) == ([], 0)


def test_other_settings_are_refused_by_name(build: Path) -> None:
    run_stage(Shout(), build, "sources")
    before = contents(build)
    with pytest.raises(DataError, match=r"manifest\.json: mark was '!', now '\?' is asked for; expected the same, or"):
        run_stage(Shout("?"), build, "sources")
    assert contents(build) == before


def test_what_a_stage_left_before_its_first_shard_is_not_taken_for_that_of_other_settings(build: Path) -> None:
    """A stage that was killed in its first shard may have written much beside it."""
    class Writes(Shout):
        def apply(self, rows: Sequence[Row], build: Path) -> Iterator[Row | Rejected]:
            for row in rows:
                file = build / "rewrite" / "made" / row.id
                file.parent.mkdir(exist_ok=True)
                if not file.exists():
                    file.write_text(self.mark)
            yield from super().apply(rows, build)

    made = build / "rewrite" / "made"
    for mark, expected in [("!", "!"), ("!", "!"), ("?", "?")]:
        with pytest.raises(RuntimeError, match="power cut"):
            run_stage(Writes(mark, fail="two"), build, "sources")
        (made / "old").write_text(mark)
        assert (made / "r0").read_text() == expected
    with pytest.raises(RuntimeError, match="power cut"):
        run_stage(Writes("?", fail="two"), build, "sources")
    assert (made / "old").exists()  # the same settings go on with it
    run_stage(Writes("."), build, "sources")
    assert {path.name: path.read_text() for path in made.iterdir()} == {f"r{i}": "." for i in range(len(TEXTS))}


def test_another_input_is_refused(build: Path) -> None:
    run_stage(Shout(), build, "sources")
    manifest = json.loads((build / "sources" / "manifest.json").read_text())
    manifest["shards"].pop()
    (build / "sources" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="made from another input"):
        run_stage(Shout(), build, "sources")


def test_the_stage_before_must_be_done(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run the stage 'sources' first"):
        run_stage(Shout(), tmp_path, "sources")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", ["a word", "a line", "half a row", "bytes", "all"])
def test_a_changed_shard_is_noticed(change: str, build: Path) -> None:
    shard = build / "sources" / "shard-00001.jsonl"
    whole = shard.read_bytes()
    new = {"a word": whole.replace(b"no three", b"no trees"), "a line": whole[:whole.index(b"\n") + 1],
           "half a row": b'{"id":', "bytes": b"\xff" + whole}
    shard.unlink()
    if change in new:
        shard.write_bytes(new[change])
    said = "cannot be read" if change == "all" else r"was changed since it was written, .* remove .*sources and run"
    with pytest.raises(DataError, match=rf"shard-00001\.jsonl: {said}"):
        list(StageFolder(build, "sources").rows())
    with pytest.raises(DataError, match=rf"shard-00001\.jsonl: {said}"):
        ShardTask(Shout(), build, "sources")(1)


def test_two_builds_do_not_share_a_folder(build: Path) -> None:
    with FileLock(build / "lock"), pytest.raises(DataError, match="another process is building here"):
        run_stage(Shout(), build, "sources")


def test_one_outcome_for_each_row(build: Path) -> None:
    class Loses(Shout):
        def apply(self, rows: Sequence[Row], build: Path) -> Iterator[Row | Rejected]:
            yield from rows[1:]

    with pytest.raises(AssertionError):
        run_stage(Loses(), build, "sources")
    assert not (build / "rewrite" / "shard-00000.jsonl").exists()


def test_a_full_disk_leaves_no_half_shard(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str, *words: object, **more: object) -> int:
        path.write_bytes(text.encode()[:5])
        raise OSError(28, "No space left on device", str(path))

    stage = Shout()
    run = StageFolder(build, "rewrite")
    run.claim(stage.settings(), StageFolder(build, "sources").complete().digest)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        run_stage(stage, build, "sources")
    assert sorted(path.name for path in (build / "rewrite").iterdir()) == ["manifest.json"]
