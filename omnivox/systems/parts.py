"""The files that a published system is made of, and what to download where one is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omnivox.errors import CheckpointError


@dataclass(frozen=True)
class Part:
    """A file or folder of a system.

    names: patterns of what it may be called inside the system's folder; the first is what to call it, if that is a
    plain name. source: a hub name (owner/model), a file of one (owner/model/file), an address, or words that say where
    it is had. size: as told.
    """

    names: tuple[str, ...]
    source: str
    size: str

    def find(self, folder: Path) -> Path | None:
        """The last in order of those that are there."""
        found = [path for name in self.names for path in sorted(folder.glob(name))]
        return found[-1] if found else None

    def wanted(self, folder: Path) -> str:
        """How to get it."""
        place = folder / self.names[0]
        if self.source.startswith("https:"):
            return f"{place} ({self.size}): curl -L -o {place} {self.source}"
        if " " in self.source:
            return f"{place} ({self.size}): {self.source}"
        owner, model, *file = self.source.split("/", 2)
        what = " ".join([f"{owner}/{model}", *file])
        return f"{place} ({self.size}): hf download {what} --local-dir {folder if file else place}"


def find_parts(system: str, folder: str | Path, parts: Sequence[Part]) -> list[Path]:
    """Where each part is. Raises CheckpointError naming all that are missing, how large they are, where they are had
    from and where they belong."""
    folder = Path(folder)
    found = [part.find(folder) for part in parts]
    missing = [part.wanted(folder) for part, path in zip(parts, found, strict=True) if path is None]
    if missing:
        raise CheckpointError(f"{folder}: {system} needs {len(parts)} parts there, and these are missing; download\n  "
                              + "\n  ".join(missing))
    return [path for path in found if path is not None]
