"""The laws that every streaming module obeys, as functions that any test can call.

A `Subject` names a module and what it does offline to one whole row; the laws cut rows into random chunks, ragged and
idle, and hold every output and every bit of state against that. hypothesis draws the schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from omnivox.streaming import Chunk, assign_rows, leaves, restore, snapshot

Schedule = list[list[int]]
"""Steps; each says how many new items every row gets."""


@dataclass
class Subject:
    """A streaming module under test.

    item: makes a random row of the given length, [n, ...], from a generator. offline: what the whole row gives.
    state: a fresh state of so many rows. bins: leaf name → the slot (on which dim) that idle rows may scribble on.
    """

    name: str
    module: Any
    item: Callable[[int, torch.Generator], Tensor]
    offline: Callable[[Tensor], Tensor]
    longest: int = 24  # of a row
    piece: int = 6  # the most that a row is given in one step
    tolerance: float = 2e-5
    state: Callable[[int], Any] | None = None
    bins: dict[str, tuple[int, int]] = field(default_factory=dict)

    def fresh(self, batch: int) -> Any:
        return self.state(batch) if self.state else self.module.initial_state(batch)

    def rows(self, lengths: Sequence[int], seed: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return [self.item(n, generator) for n in lengths]

    def close(self, found: Tensor, expected: Tensor) -> None:
        assert found.shape == expected.shape, f"{self.name}: {tuple(found.shape)}, expected {tuple(expected.shape)}"
        if expected.dtype.is_floating_point:
            torch.testing.assert_close(found, expected, atol=self.tolerance, rtol=self.tolerance)
        else:
            assert torch.equal(found, expected)

    def kept(self, state: Any) -> dict[str, Tensor]:
        """A snapshot without the bins."""
        saved = snapshot(state)
        for name, (dim, slot) in self.bins.items():
            for leaf in [leaf for leaf in saved if leaf.split(".")[0] == name]:
                saved[leaf].select(dim, slot).zero_()
        return saved


@st.composite
def schedules(draw: st.DrawFn, rows: int, longest: int, piece: int) -> Schedule:
    """Random cuts of `rows` rows of up to `longest` items: ragged, desynchronised, now and then idle."""
    left = draw(st.lists(st.integers(0, longest), min_size=rows, max_size=rows))
    steps: Schedule = []
    while any(left):
        counts = [min(n, draw(st.integers(0, piece))) for n in left]
        if not any(counts):
            counts = [min(n, 1) for n in left]
        steps.append(counts)
        left = [n - c for n, c in zip(left, counts, strict=True)]
    return steps


def lengths(schedule: Schedule, rows: int) -> list[int]:
    return [sum(step[b] for step in schedule) for b in range(rows)]


def chunks(rows: list[Tensor], schedule: Schedule) -> list[Chunk]:
    """The rows cut as the schedule says; padding is whatever hurts most: NaN, or the row's own first item."""
    done, cut = [0] * len(rows), []
    for counts in schedule:
        wide = max(counts) + 1
        hurt = torch.nan if rows[0].dtype.is_floating_point else 0
        data = torch.full((len(rows), wide, *rows[0].shape[1:]), hurt, dtype=rows[0].dtype)
        for b, n in enumerate(counts):
            data[b, :n] = rows[b][done[b] : done[b] + n]
            done[b] += n
        cut.append(Chunk(data, torch.tensor(counts)))
    return cut


def run(subject: Subject, pieces: list[Chunk], state: Any, flush: bool = True) -> list[Tensor]:
    """Everything each row gives over `pieces` (and the flush), concatenated."""
    got: list[list[Tensor]] = [[] for _ in range(len(pieces[0].length))]
    outputs = [subject.module.step(piece, state)[0] for piece in pieces]
    if flush:
        outputs.append(subject.module.flush(state)[0])
    for y in outputs:
        for b, parts in enumerate(got):
            parts.append(y.row(b).clone())
    return [torch.cat(parts) for parts in got]


def any_chunking_is_offline(subject: Subject, schedule: Schedule, seed: int) -> None:
    if not schedule:
        return
    rows = subject.rows(lengths(schedule, len(schedule[0])), seed)
    found = run(subject, chunks(rows, schedule), subject.fresh(len(rows)))
    for row, y in zip(rows, found, strict=True):
        if len(row):
            subject.close(y, subject.offline(row))
        else:
            assert len(y) == 0, f"{subject.name}: a row that heard nothing said {len(y)} items"


def in_a_batch_is_alone(subject: Subject, schedule: Schedule, seed: int) -> None:
    if not schedule:
        return
    rows = subject.rows(lengths(schedule, len(schedule[0])), seed)
    pieces = chunks(rows, schedule)
    together = run(subject, pieces, subject.fresh(len(rows)))
    for b, y in enumerate(together):
        alone = [Chunk(piece.data[b : b + 1], piece.length[b : b + 1]) for piece in pieces]
        subject.close(run(subject, alone, subject.fresh(1))[0], y)


def idle_is_nothing(subject: Subject, seed: int) -> None:
    """Row 1 hears `first`, then nothing while rows 0 and 2 go on: not a bit of its state moves, and it says nothing."""
    rows = subject.rows([subject.longest] * 3, seed)
    half = subject.longest // 2
    state = subject.fresh(3)
    for piece in chunks(rows, [[half, half, half]]):
        subject.module.step(piece, state)
    before = {name: leaf[1].clone() for name, leaf in subject.kept(state).items()}
    for piece in chunks([row[half:] for row in rows], [[1, 0, half - 1], [half - 1, 0, 1]]):
        y, _ = subject.module.step(piece, state)
        assert int(y.length[1]) == 0
    after = {name: leaf[1] for name, leaf in subject.kept(state).items()}
    for name, leaf in before.items():
        assert torch.equal(leaf, after[name]), f"{subject.name}: {name} of an idle row moved"


def reset_is_fresh(subject: Subject, seed: int) -> None:
    """After `assign_rows` from a fresh state a used row behaves as new, and its neighbours do not notice."""
    rows = subject.rows([subject.longest] * 4, seed)
    half = subject.longest // 2
    state = subject.fresh(3)
    for piece in chunks(rows[:3], [[half] * 3]):
        subject.module.step(piece, state)
    assign_rows(state, torch.tensor([1]), subject.fresh(1))
    second = [rows[0][half:], rows[3][:half], rows[2][half:]]
    found = run(subject, chunks(second, [[half] * 3]), state)
    subject.close(found[1], subject.offline(rows[3][:half]))
    untouched = subject.fresh(3)
    run(subject, chunks(rows[:3], [[half] * 3]), untouched, flush=False)
    expected = run(subject, chunks([rows[0][half:], rows[1][half:], rows[2][half:]], [[half] * 3]), untouched)
    for b in (0, 2):
        subject.close(found[b], expected[b])


def fork_is_both(subject: Subject, seed: int) -> None:
    """A session copied into another row goes on in either row as the original would."""
    rows = subject.rows([subject.longest] * 2, seed)
    half = subject.longest // 2
    state = subject.fresh(2)
    for piece in chunks(rows, [[half, 1]]):
        subject.module.step(piece, state)
    assign_rows(state, torch.tensor([1]), state, source_rows=torch.tensor([0]))
    found = run(subject, chunks([rows[0][half:], rows[0][half:]], [[half, half]]), state)
    subject.close(found[1], found[0])


def saved_and_loaded_is_continued(subject: Subject, seed: int) -> None:
    """A state that went through the bytes of a safetensors file continues bit for bit."""
    rows = subject.rows([subject.longest] * 2, seed)
    half = subject.longest // 2
    state = subject.fresh(2)
    for piece in chunks(rows, [[half, 1]]):
        subject.module.step(piece, state)
    loaded = subject.fresh(2)
    restore(loaded, safetensors.torch.load(safetensors.torch.save(snapshot(state))))
    rest = chunks([rows[0][half:], rows[1][1:]], [[half, 2], [0, 3]])
    for found, expected in zip(run(subject, rest, loaded), run(subject, rest, state), strict=True):
        assert torch.equal(found, expected)


def storage_is_never_rebound(subject: Subject, seed: int) -> None:
    """`step` and `flush` update the tensors of the state that they were given, and return that state."""
    rows = subject.rows([subject.longest] * 2, seed)
    state = subject.fresh(2)
    before = [(name, leaf.data_ptr(), leaf.shape) for name, leaf in leaves(state)]
    assert all(leaf.shape[0] == 2 for _, leaf in leaves(state)), f"{subject.name}: dim 0 of a state is the session"
    for piece in chunks(rows, [[3, 0], [1, 2], [0, 1]]):
        _, returned = subject.module.step(piece, state)
        assert returned is state
    _, returned = subject.module.flush(state)
    assert returned is state
    assert before == [(name, leaf.data_ptr(), leaf.shape) for name, leaf in leaves(state)]


def graph_is_eager(subject: Subject, seed: int, to_gpu: Callable[[Subject], Subject]) -> None:
    """A step captured as a CUDA graph replays over new inputs exactly as eager steps do."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU: there is no graph to capture on this machine")
    subject = to_gpu(subject)
    rows = subject.rows([subject.longest] * 2, seed)
    pieces = [Chunk(p.data[:, :3].cuda(), p.length.cuda()) for p in chunks(rows, [[2, 2], [1, 0], [0, 2], [2, 2]])]
    wide = max(piece.data.shape[1] for piece in pieces)
    pieces = [Chunk(F.pad(p.data, (0, 0) * (p.data.dim() - 2) + (0, wide - p.data.shape[1])), p.length) for p in pieces]
    eager = [subject.module.step(piece, state)[0] for state in [subject.fresh(2)] for piece in pieces]
    static, state = Chunk(pieces[0].data.clone(), pieces[0].length.clone()), subject.fresh(2)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            subject.module.step(static, state)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y, _ = subject.module.step(static, state)
    restore(state, snapshot(subject.fresh(2)))
    for piece, expected in zip(pieces, eager, strict=True):
        static.data.copy_(piece.data)
        static.length.copy_(piece.length)
        graph.replay()
        assert torch.equal(y.length, expected.length)
        for b in range(2):
            subject.close(y.row(b), expected.row(b))
