"""Freed memory goes back to the system: glibc keeps what lies between things in use, and many sessions leave much of
that."""

from __future__ import annotations

import asyncio
import ctypes
import sys

SECONDS = 10.0  # from one time to the next; each takes some milliseconds


async def tidy() -> None:
    """Now and then, until cancelled. Where the C library is another, it does nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    while trim is not None:
        await asyncio.sleep(SECONDS)
        await asyncio.to_thread(trim, 0)
