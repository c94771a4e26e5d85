"""How far a run is, on the terminal of the process that shows it."""

from __future__ import annotations

from typing import Self

from rich.progress import TextColumn

from omnivox.progress import bars


class Bar:
    """One bar: what is done, how long it took and will take, and the last loss."""

    def __init__(self, name: str, total: int, done: int = 0, shown: bool = True) -> None:
        self._progress = bars(TextColumn("{task.fields[loss]}"), shown=shown)
        self._task = self._progress.add_task(name, total=total, completed=done, loss="")

    def show(self, done: int, loss: float | None = None) -> None:
        """The present state."""
        if loss is not None:
            self._progress.update(self._task, loss=f"loss {loss:.3f}")
        self._progress.update(self._task, completed=done)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
