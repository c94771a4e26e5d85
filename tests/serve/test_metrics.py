"""The metrics page: what Prometheus reads of it."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from omnivox.runtime.engine import EngineStats
from omnivox.runtime.events import Timings
from omnivox.serve.metrics import Metrics


def values(metrics: Metrics) -> dict[str, float]:
    """Each sample of the page, as `name{label="value"}`."""
    text, _ = metrics.render()
    return {sample.name + "".join(f"{{{k}={v}}}" for k, v in sample.labels.items()): sample.value
            for family in text_string_to_metric_families(text.decode()) for sample in family.samples}


def test_sessions_are_counted_while_open_and_for_good() -> None:
    metrics = Metrics()
    with metrics.session():
        with pytest.raises(RuntimeError), metrics.session():
            raise RuntimeError
        assert values(metrics)["omnivox_sessions_open"] == 1
    found = values(metrics)
    assert (found["omnivox_sessions_open"], found["omnivox_sessions_total"]) == (0, 2)


def test_a_reply_is_counted_by_status_with_its_times() -> None:
    metrics = Metrics()
    metrics.replied("completed", Timings(first_audio=0.04, real_time_factor=0.25), response=0.29)
    metrics.replied("completed", Timings())  # text alone: it has no first sound
    metrics.replied("failed")
    found = values(metrics)
    assert found["omnivox_responses_total{status=completed}"] == 2
    assert found["omnivox_responses_total{status=failed}"] == 1
    assert found["omnivox_first_audio_seconds_count"] == 1
    assert found["omnivox_first_audio_seconds_bucket{le=0.05}"] == 1
    assert found["omnivox_first_audio_seconds_bucket{le=0.03}"] == 0
    assert found["omnivox_real_time_factor_sum"] == pytest.approx(0.25)
    assert found["omnivox_response_seconds_bucket{le=0.3}"] == 1


def test_errors_are_counted_by_code() -> None:
    metrics = Metrics()
    metrics.failed("invalid_api_key")
    assert values(metrics)["omnivox_errors_total{code=invalid_api_key}"] == 1


def test_the_engine_is_looked_at() -> None:
    metrics = Metrics()
    metrics.observe(EngineStats(slots=8, busy=3, queued=2, ticks=2, tick_seconds=[0.004, 0.03]))
    metrics.observe(EngineStats(slots=8, busy=1, queued=0, ticks=3, tick_seconds=[0.004]))
    found = values(metrics)
    assert (found["omnivox_slots"], found["omnivox_slots_busy"], found["omnivox_queue_depth"]) == (8, 1, 0)
    assert found["omnivox_tick_seconds_count"] == 3
    assert found["omnivox_tick_seconds_bucket{le=0.005}"] == 2


def test_apps_do_not_share_a_registry() -> None:
    one, other = Metrics(), Metrics()
    one.failed("x")
    assert "omnivox_errors_total{code=x}" not in values(other)


def test_the_names_are_pinned() -> None:
    """Dashboards depend on them."""
    metrics = Metrics()
    metrics.replied("completed")
    metrics.failed("x")
    text, kind = metrics.render()
    names = {family.name for family in text_string_to_metric_families(text.decode())}
    ours = {name for name in names if name.startswith("omnivox_") and not name.endswith("_created")}
    assert ours == {"omnivox_sessions", "omnivox_sessions_open", "omnivox_queue_depth", "omnivox_slots_busy",
                    "omnivox_slots",
                    "omnivox_first_audio_seconds", "omnivox_response_seconds", "omnivox_real_time_factor",
                    "omnivox_tick_seconds", "omnivox_errors", "omnivox_responses"}
    assert kind.startswith("text/plain; version=0.0.4")
