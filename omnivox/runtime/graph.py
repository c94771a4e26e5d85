"""A step captured as a CUDA graph, once for each of a few widths, and replayed; on other devices it just runs."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch

WARM_UP = 3  # runs before a capture: libraries allocate their workspaces in the first ones


class Captured:
    """`step(width, *options)` works on storage of its own in place; it may be given any width up to all.

    A captured step costs one launch, however many kernels it has. What it needs is asserted by the streaming laws on
    every device: fixed shapes, storage that is never rebound, no host synchronisation.
    """

    def __init__(self, step: Callable[..., Any], device: torch.device) -> None:
        self.step, self.device = step, device
        self._graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, Any]] = {}

    def width(self, wanted: int, most: int) -> int:
        """The width to run at: as wanted, or on CUDA the next power of two, so that there are few graphs."""
        return wanted if self.device.type != "cuda" else min(most, 1 << (wanted - 1).bit_length())

    def __call__(self, width: int, *options: Hashable) -> Any:
        if self.device.type != "cuda":
            return self.step(width, *options)
        graph, outputs = self._graphs[width, *options]
        graph.replay()
        return outputs

    def capture(self, *keys: tuple[Hashable, ...]) -> None:
        """Record the step for each (width, *options), ahead of use: the runs before a recording would advance whoever
        is in the storage."""
        for key in keys if self.device.type == "cuda" else ():
            self._graphs[key] = self._record(key)

    def _record(self, key: tuple[Hashable, ...]) -> tuple[torch.cuda.CUDAGraph, Any]:
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self.step(*key)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self.step(*key)
        return graph, outputs
