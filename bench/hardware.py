"""What a bench ran on: named in its last line, so that a figure never travels without its machine."""

from __future__ import annotations

import json

from omnivox.hardware import hardware

__all__ = ["hardware"]

if __name__ == "__main__":
    print(json.dumps({"hardware": hardware()}))
