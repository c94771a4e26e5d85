"""How far a long work is, on stderr: stdout belongs to what was asked for."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def bars(*more: ProgressColumn, shown: bool = True) -> Progress:
    """Bars with a name, what is done of the total, the time it took and will take, and whatever columns `more` are."""
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                    TimeRemainingColumn(), *more, console=Console(stderr=True), disable=not shown)
