"""A disk that is full, without one: what a process may write at most."""

from __future__ import annotations

import resource
import subprocess
import sys

LIMIT = 20_000  # bytes of a file


def small() -> None:
    """In a new process: no file grows beyond `LIMIT`; Python ignores the signal, so that writing fails."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))


def full_disk(code: str) -> str:
    """The last line of the traceback with which `code` ends where files are bounded."""
    done = subprocess.run([sys.executable, "-B", "-c", code], preexec_fn=small, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 1, done
    return done.stderr.splitlines()[-1]
