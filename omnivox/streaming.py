"""A streaming module is a function with memory: `y, state = module.step(x, state)`.

State is a tree of dataclasses, tuples and lists whose leaves are tensors, dim 0 always the session (row).
Nothing else lives in it: no Python counters, no hidden buffers. So resetting, admitting, forking and migrating a
session are one call, `assign_rows`, and a state can be saved and loaded like any other data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

S = TypeVar("S")


@dataclass
class Chunk:
    """A piece of a batch of streams.

    data: [B, T, ...], padded on the right with anything.
    length: [B] int64; row b holds `length[b]` valid steps, 0 means that the row is idle.
    """

    data: Tensor
    length: Tensor

    @classmethod
    def full(cls, data: Tensor) -> Chunk:
        """Every row of `data` [B, T, ...] is valid to its end."""
        return cls(data, torch.full((data.shape[0],), data.shape[1], dtype=torch.long, device=data.device))

    def row(self, b: int) -> Tensor:
        """The valid part of row b, [length[b], ...]."""
        return self.data[b, : int(self.length[b])]


class Streaming(Protocol[S]):
    """What every module that runs while the reply is being made offers."""

    def initial_state(self, batch: int) -> S:
        """A fresh state of `batch` rows."""
        ...

    def step(self, x: Chunk, state: S) -> tuple[Chunk, S]:
        """Consume a chunk; `state` is updated in place (its storage is never rebound) and returned."""
        ...

    def flush(self, state: S) -> tuple[Chunk, S]:
        """What the module still owes at the end of every row."""
        ...


def leaves(state: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a state with their dotted names, in a fixed order."""
    if isinstance(state, Tensor):
        yield prefix, state
        return
    if is_dataclass(state) and not isinstance(state, type):
        children = [(f.name, getattr(state, f.name)) for f in fields(state)]
    elif isinstance(state, tuple | list):
        children = [(str(i), child) for i, child in enumerate(state)]
    else:
        raise TypeError(f"state {prefix or '(root)'} holds {type(state).__name__}; only tensors may live in a state")
    for name, child in children:
        yield from leaves(child, f"{prefix}.{name}" if prefix else name)


def assign_rows(state: Any, rows: Tensor, source: Any, source_rows: Tensor | None = None) -> None:
    """Rows `rows` of `state` become rows `source_rows` of `source` (default: its first ones; one row is repeated).

    Reset: source = module.initial_state(1). Admit, fork and migrate: source = another state of the same module.
    """
    for (name, target), (other, value) in zip(leaves(state), leaves(source), strict=True):
        assert name == other, f"states differ: {name} and {other}"
        if source_rows is not None:
            value = value[source_rows]
        elif value.shape[0] != 1:
            value = value[: len(rows)]
        target[rows] = value.to(target)


def slice_rows(state: S, start: int, stop: int) -> S:
    """Rows start to stop of a state, as a state of their own that shares its storage."""
    return _map_rows(lambda leaf: leaf[0][start:stop], [state])  # type: ignore[no-any-return]


def join_rows(states: Sequence[S]) -> S:
    """A state whose rows are those of `states`, one behind the other; a copy."""
    return _map_rows(torch.cat, states)  # type: ignore[no-any-return]


def _map_rows(change: Callable[[list[Tensor]], Tensor], states: Sequence[Any]) -> Any:
    """A state whose leaves are `change` of the leaves of `states`."""
    first = states[0]
    if isinstance(first, Tensor):
        return change(list(states))
    if isinstance(first, tuple | list):
        return type(first)(_map_rows(change, parts) for parts in zip(*states, strict=True))
    children = {f.name: _map_rows(change, [getattr(state, f.name) for state in states]) for f in fields(first)}
    return type(first)(**children)


def snapshot(state: Any) -> dict[str, Tensor]:
    """A copy of a state as a flat dict of tensors: what one saves (safetensors takes it as it is)."""
    return {name: tensor.clone() for name, tensor in leaves(state)}


def restore(state: Any, saved: dict[str, Tensor]) -> None:
    """Write a snapshot back into a state of the same module and batch, in place."""
    for name, tensor in leaves(state):
        tensor.copy_(saved[name])
