"""What a stage's folder holds: shards of rows, the rows it rejected, and a manifest that says from what they were made.

    BUILD/<stage>/manifest.json         settings, the input's digest, and, once complete, every shard with its digest
                  shard-00000.jsonl     rows, in the order of the input
                  shard-00000.rejected  those of this shard that left: {"id", "stage", "reason", "row"}
                  rejected.jsonl        all of them, once complete

A shard is written beside its place and renamed, its rejected rows first: a shard that is there is finished, whatever
happened to the process, and is never made again.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omnivox.data.records import Rejected, Row, from_json, to_json
from omnivox.errors import DataError
from omnivox.writing import atomic

_TEMPORARY = re.compile(r"\..+(\.\w+)\.\w{8}\1")  # as `atomic` names what it is writing


@dataclass(frozen=True)
class ShardReport:
    """A finished shard: how many rows went on, how many were rejected, and the digest of its file."""

    rows: int
    rejected: int
    digest: str


@dataclass(frozen=True)
class Manifest:
    """`input` is the digest of what the stage read; `shards` are all of them if `complete`, else none."""

    stage: str
    settings: Mapping[str, Any]
    input: str
    complete: bool = False
    shards: tuple[ShardReport, ...] = ()

    @property
    def rows(self) -> int:
        """Rows that went on."""
        return sum(shard.rows for shard in self.shards)

    @property
    def rejected(self) -> int:
        """Rows that were left out."""
        return sum(shard.rejected for shard in self.shards)

    @property
    def digest(self) -> str:
        """Of every row that the stage wrote."""
        return hashlib.sha256("".join(shard.digest for shard in self.shards).encode()).hexdigest()


class StageFolder:
    """The folder of one stage in a build; nothing is read or made before a method is called."""

    def __init__(self, build: str | Path, stage: str) -> None:
        self.build, self.stage = Path(build), stage
        self.path = self.build / stage

    # -- the manifest

    @property
    def manifest_file(self) -> Path:
        return self.path / "manifest.json"

    def manifest(self) -> Manifest | None:
        """What stands there, or None. Raises DataError: it cannot be read."""
        try:
            found = json.loads(self.manifest_file.read_text(encoding="utf-8"))
            shards = tuple(ShardReport(**shard) for shard in found.pop("shards"))
            return Manifest(**found, shards=shards)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{self.manifest_file}: cannot be read ({error}); remove {self.path} and run the stage "
                            "again") from error

    def complete(self) -> Manifest:
        """The manifest of a finished stage. Raises DataError: there is none, or it was stopped before its end."""
        manifest = self.manifest()
        if manifest is None:
            raise DataError(f"{self.path}: holds no manifest.json; run the stage {self.stage!r} first")
        if not manifest.complete:
            raise DataError(f"{self.path}: the stage {self.stage!r} was stopped before its end; run it again")
        return manifest

    def claim(self, settings: Mapping[str, Any], digest: str) -> Manifest:
        """Say what the folder is to hold. Raises DataError: it holds the work of other settings or of another input.

        Where that has no finished shard yet it is given up, with all that lies there: the sound of other voices or of
        other texts would be taken for this one's.
        """
        asked = json.loads(json.dumps(dict(settings)))  # as it will be read
        self.path.mkdir(parents=True, exist_ok=True)
        found, wanted = self.manifest(), Manifest(self.stage, asked, digest)
        if found is None or not (found.complete or any(self.path.glob("shard-*.jsonl"))):
            if found not in (None, wanted):
                self._clear()
            self._write(wanted)
            return wanted
        if found.settings != asked:
            raise DataError(f"{self.manifest_file}: {_difference(found.settings, asked)}; expected the same, or remove "
                            f"{self.path} (and the stages after it) to do it again")
        if found.input != digest:
            raise DataError(f"{self.manifest_file}: was made from another input than there is now; remove {self.path} "
                            "(and the stages after it) to do it again")
        return found

    def _clear(self) -> None:
        """Remove everything but the manifest, which says that the folder is ours."""
        for path in self.path.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path != self.manifest_file:
                path.unlink()

    def forget(self) -> None:
        """Remove the shards of a run that was stopped, for a stage that begins anew in any case."""
        manifest = self.manifest()
        if manifest is not None and not manifest.complete:
            for path in self.path.glob("shard-*"):
                path.unlink()

    def finish(self, manifest: Manifest, shards: Sequence[ShardReport]) -> Manifest:
        """Join the rejected rows and mark the stage as complete."""
        with atomic(self.path / "rejected.jsonl") as temporary, temporary.open("w", encoding="utf-8") as file:
            for index in range(len(shards)):
                file.write(self._rejected(index).read_text(encoding="utf-8"))
        done = Manifest(self.stage, manifest.settings, manifest.input, True, tuple(shards))
        self._write(done)
        return done

    def _write(self, manifest: Manifest) -> None:
        with atomic(self.manifest_file) as temporary:
            temporary.write_text(json.dumps(asdict(manifest), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def sweep(self) -> None:
        """Remove what a killed process left beside the files it was writing; nobody may be writing now."""
        for left in self.path.rglob(".*"):
            if _TEMPORARY.fullmatch(left.name):
                left.unlink(missing_ok=True)

    # -- shards

    def shard(self, index: int) -> Path:
        """Where the rows of a shard stand."""
        return self.path / f"shard-{index:05d}.jsonl"

    def _rejected(self, index: int) -> Path:
        return self.path / f"shard-{index:05d}.rejected"

    def write_shard(self, index: int, before: Iterable[Row], after: Iterable[Row | Rejected]) -> ShardReport:
        """Write one outcome for each row of `before`, in its order. Raises DataError: more or fewer outcomes."""
        kept: list[str] = []
        rejected: list[str] = []
        try:
            for row, outcome in zip(before, after, strict=True):
                if isinstance(outcome, Rejected):
                    told = {"id": row.id, "stage": self.stage, "reason": outcome.reason,
                            "row": json.loads(to_json(row))}
                    rejected.append(json.dumps(told, ensure_ascii=False) + "\n")
                else:
                    assert outcome.id == row.id, "a stage keeps the order of its rows"
                    kept.append(to_json(outcome) + "\n")
        except ValueError as error:
            if str(error).startswith("zip()"):
                raise AssertionError(f"{self.stage}: a stage gives one outcome for each row ({error})") from error
            raise
        self.path.mkdir(parents=True, exist_ok=True)
        for path, lines in ((self._rejected(index), rejected), (self.shard(index), kept)):
            with atomic(path) as temporary:
                temporary.write_text("".join(lines), encoding="utf-8")
        return self.report(index)

    def report(self, index: int) -> ShardReport:
        """Of a finished shard, from its files."""
        data = self.shard(index).read_bytes()
        rejected = self._rejected(index).read_bytes().count(b"\n")
        return ShardReport(data.count(b"\n"), rejected, hashlib.sha256(data).hexdigest())

    def read_shard(self, index: int, report: ShardReport | None = None) -> list[Row]:
        """The rows of a finished stage's shard; `report`: its own, where the manifest has been read already.

        Raises DataError: the stage is not finished, or the file is missing or not the one that it wrote.
        """
        path, expected = self.shard(index), report or self.complete().shards[index]
        again = f"remove {self.path} and run the stage again"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error}); {again}") from error
        if hashlib.sha256(data).hexdigest() != expected.digest:
            raise DataError(f"{path}: was changed since it was written, its digest is not the one in "
                            f"{self.manifest_file.name}; {again}")
        # not splitlines(): U+2028 and its like may stand inside a row
        lines = data.decode().split("\n")
        return [from_json(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line]

    def rows(self) -> Iterator[Row]:
        """Every row of a finished stage, in order. Raises DataError as `read_shard` does."""
        for index, shard in enumerate(self.complete().shards):
            yield from self.read_shard(index, shard)

    def first_reason(self) -> str:
        """Why the first rejected row of the folder was rejected, be it finished or not; "" where none was."""
        for path in sorted(self.path.glob("shard-*.rejected")):
            with path.open(encoding="utf-8") as file:
                for line in file:
                    return str(json.loads(line)["reason"])
        return ""

    def reasons(self) -> Counter[str]:
        """How many rows of a finished stage were rejected, by the word that the reason begins with."""
        return Counter(str(one["reason"]).partition(":")[0] for one in self.rejections())

    def rejections(self) -> Iterator[dict[str, Any]]:
        """What was rejected: {"id", "stage", "reason", "row"}."""
        self.complete()
        with (self.path / "rejected.jsonl").open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file)


def _difference(found: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    name = next(name for name in [*asked, *found] if found.get(name) != asked.get(name))
    return f"{name} was {found.get(name)!r}, now {asked.get(name)!r} is asked for"
