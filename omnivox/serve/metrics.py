"""What Prometheus may know of a server: counts and durations, in a registry of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from omnivox.runtime.engine import EngineStats
from omnivox.runtime.events import Timings

_FIRST_SOUND = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0)  # seconds
_RESPONSE = (0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.75, 1.0, 1.5, 2.0, 5.0)  # seconds
_TICK = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # seconds
_REAL_TIME = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)  # seconds of work for one of sound


class Metrics:
    """One for each app. Names begin with `omnivox_`; label values come from short fixed lists."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._sessions = Gauge("omnivox_sessions_open", "Sessions that are open.", registry=registry)
        self._sessions_total = Counter("omnivox_sessions", "Sessions opened so far.", registry=registry)
        self._queue = Gauge("omnivox_queue_depth", "Replies that wait for a slot.", registry=registry)
        self._slots_busy = Gauge("omnivox_slots_busy", "Slots in which a reply is being made.", registry=registry)
        self._slots = Gauge("omnivox_slots", "Replies that can be made at once.", registry=registry)
        self._first_audio = Histogram("omnivox_first_audio_seconds", "From the request for a reply to its first sound.",
                                      buckets=_FIRST_SOUND, registry=registry)
        self._response = Histogram("omnivox_response_seconds", "From the last speech sample to the first sound.",
                                   buckets=_RESPONSE, registry=registry)
        self._real_time = Histogram("omnivox_real_time_factor", "Seconds that a second of spoken reply took.",
                                    buckets=_REAL_TIME, registry=registry)
        self._tick = Histogram("omnivox_tick_seconds", "One step of all replies.", buckets=_TICK, registry=registry)
        self._errors = Counter("omnivox_errors", "Errors sent to clients.", ["code"], registry=registry)
        self._responses = Counter("omnivox_responses", "Replies that ended.", ["status"], registry=registry)

    @contextmanager
    def session(self) -> Iterator[None]:
        """A session is open while it lasts."""
        self._sessions_total.inc()
        with self._sessions.track_inprogress():
            yield

    def replied(self, status: str, timings: Timings | None = None, response: float | None = None) -> None:
        """A reply ended.

        status: completed, cancelled, failed or incomplete. timings: of what was made. response: seconds from the last
        speech sample to the first sound, where the server heard that sample.
        """
        self._responses.labels(status).inc()
        if timings is not None and timings.first_audio:
            self._first_audio.observe(timings.first_audio)
        if timings is not None and timings.real_time_factor:
            self._real_time.observe(timings.real_time_factor)
        if response is not None:
            self._response.observe(response)

    def failed(self, code: str) -> None:
        """A client was told of an error."""
        self._errors.labels(code).inc()

    def observe(self, stats: EngineStats) -> None:
        """What the engine did since the last look."""
        self._slots.set(stats.slots)
        self._slots_busy.set(stats.busy)
        self._queue.set(stats.queued)
        for seconds in stats.tick_seconds:
            self._tick.observe(seconds)

    def render(self) -> tuple[bytes, str]:
        """The text of /metrics and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4
