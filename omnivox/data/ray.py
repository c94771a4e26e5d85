"""The same stages on a Ray cluster: shards are Ray Data's rows, and whichever worker takes one writes it.

The build's folder must be one that every node sees under the same path. A worker that dies takes nothing with it: the
shard it was at is not there, and Ray gives it to another. So the files are those that one process writes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from omnivox.data.stage import Count, Runner, ShardTask
from omnivox.errors import ConfigError


def on_ray(workers: int, *, cpus: float = 1.0, gpus: float = 0.0) -> Runner:
    """Runs a stage in `workers` processes, each with `cpus` cores and `gpus` (a share of one, or several), on the
    cluster that RAY_ADDRESS names, else on one of this machine's own. Raises ConfigError: Ray is missing, or a number
    makes no sense."""
    if workers < 1 or cpus < 0 or gpus < 0:
        raise ConfigError(f"ray: found workers {workers}, cpus {cpus:g}, gpus {gpus:g}; expected 1 or more workers, "
                          "and nothing below 0")
    data = _ray_data()

    def run(task: ShardTask, indices: Sequence[int], count: Count) -> None:
        context = data.DataContext.get_current()
        context.enable_progress_bars = False  # there is one already
        shards = data.from_items([{"index": index} for index in indices], override_num_blocks=len(indices))
        done = shards.map(_Worker, fn_constructor_args=(task,), num_cpus=cpus, num_gpus=gpus,
                          compute=data.ActorPoolStrategy(size=min(workers, len(indices))))
        for report in done.iter_rows():
            count(report["rows"])

    return run


class _Worker:
    """A process that makes shards, one at a time; its models stay loaded between them."""

    def __init__(self, task: ShardTask) -> None:
        self.task = task

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        report = self.task(int(row["index"]))
        return {"index": row["index"], "rows": report.rows + report.rejected}


def _ray_data() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody unless asked for
    try:
        import ray.data
    except ImportError as error:
        raise ConfigError(f"ray: Python package ray is missing ({error}); install it with: "
                          "pip install 'omnivox[ray,data]'") from error
    return ray.data
