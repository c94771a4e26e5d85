"""Replies of language models on disk, by the digest of what was asked: none is paid for twice, whatever happens.

Lines of JSON are appended to a file of this process's own, one write for each, as soon as a reply has come; every file
of the folder is read when it is opened. A line that a kill has cut is passed over. Files may be copied and joined.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from uuid import uuid4


@dataclass(frozen=True)
class Reply:
    """What a model said, and the tokens that were read and written for it (0 where it does not tell)."""

    text: str
    tokens_in: int = 0
    tokens_out: int = 0


def digest(asked: Mapping[str, Any]) -> str:
    """Of a request: the model's name and everything that its reply depends on."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class ReplyCache:
    """A dictionary of replies in a folder, which may be open in several processes; safe among threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._file: int | None = None
        self._replies: dict[str, Reply] = {}
        for path in sorted(folder.glob("*.jsonl")):
            self._read(path)

    def _read(self, path: Path) -> None:
        with path.open("rb") as file:
            for line in file:
                try:
                    found = json.loads(line)
                    self._replies[found["key"]] = Reply(found["text"], found["tokens_in"], found["tokens_out"])
                except (ValueError, KeyError, TypeError):  # cut by a kill
                    continue

    def __len__(self) -> int:
        return len(self._replies)

    def __contains__(self, key: str) -> bool:
        return key in self._replies

    def get(self, key: str) -> Reply | None:
        """The reply to what has this digest, or None."""
        return self._replies.get(key)

    def put(self, key: str, reply: Reply) -> None:
        """Keep a reply; it is with the operating system when this returns."""
        line = json.dumps({"key": key, "text": reply.text, "tokens_in": reply.tokens_in,
                           "tokens_out": reply.tokens_out}) + "\n"  # ASCII: a model may say half a character
        with self._lock:
            if self._file is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                path = self.folder / f"{uuid4().hex}.jsonl"
                self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            data = line.encode()
            while data:  # a write may be short, on a disk that is nearly full
                data = data[os.write(self._file, data):]
            self._replies[key] = reply

    def close(self) -> None:
        """Close the file of this process."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
