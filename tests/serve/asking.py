"""The whole app with a model, for tests that ask it over HTTP."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families

from omnivox.serve.app import create_app
from omnivox.serve.clips import write_clip
from omnivox.serve.metrics import Metrics
from omnivox.serve.settings import ServeSettings
from tests import tiny
from tests.serve.running import WAIT, serving

WORDS = [{"role": "user", "content": "word1 word2"}]
TOKENS = 40


class Running:
    """A server, with what a test wants to see of it."""

    def __init__(self, engine: Any, address: str, metrics: Metrics) -> None:
        self.engine, self.omni, self.address, self.metrics = engine, engine.omni, address, metrics

    def client(self, key: str = "none") -> OpenAI:
        return OpenAI(base_url=f"http://{self.address}/v1", api_key=key, max_retries=0, timeout=WAIT)

    def value(self, name: str, **labels: str) -> float:
        text = self.metrics.render()[0].decode()
        return sum(sample.value for family in text_string_to_metric_families(text) for sample in family.samples
                   if sample.name == name and labels.items() <= sample.labels.items())


@contextmanager
def running(engine: Any, **settings: Any) -> Iterator[Running]:
    app = create_app(engine, ServeSettings(**{"model_name": "tiny"} | settings))
    with serving(app) as address:
        yield Running(engine, address, app.state.metrics)


def spoken(seconds: float = 1.0, seed: int = 0, kind: str = "wav") -> list[dict[str, Any]]:
    data = base64.b64encode(write_clip(tiny.question(seconds, seed), 16_000, kind)).decode()
    return [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": data, "format": kind}}]}]
