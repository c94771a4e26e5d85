"""A real server in a process of its own, for the benches that come to it as clients do; loopback only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STARTS_WITHIN = 120  # seconds


@dataclass(frozen=True)
class Running:
    """pid, and host:port."""

    pid: int
    address: str

    @property
    def url(self) -> str:
        return f"ws://{self.address}/v1/realtime"

    def metric(self, name: str) -> float:
        """A value from /metrics."""
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.split()[1])
        raise KeyError(name)

    @property
    def memory_mb(self) -> float:
        """Resident memory."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        raise KeyError("VmRSS")


@contextmanager
def running(*options: str) -> Iterator[Running]:
    """`omnivox serve` on a free port until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([Path(sys.executable).with_name("omnivox"), "serve", "--port", str(port), *options],
                               stderr=subprocess.DEVNULL, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        address, end = f"127.0.0.1:{port}", time.monotonic() + STARTS_WITHIN
        while True:
            try:
                urllib.request.urlopen(f"http://{address}/readyz", timeout=1)
                break
            except (urllib.error.URLError, OSError):
                if process.poll() is not None or time.monotonic() > end:
                    sys.exit(f"server: did not start (exit status {process.poll()})")
                time.sleep(0.2)
        yield Running(process.pid, address)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
