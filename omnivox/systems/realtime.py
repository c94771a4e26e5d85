"""Any server that speaks OpenAI's Realtime protocol, over the network: ours, or a hosted one.

Each question is asked on a connection of its own, so that none is heard as the next turn of another, in manual turns:
append, commit, response.create. The clock starts when all sound is sent, and the network's time is in its figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from torch import Tensor

from omnivox.errors import ConfigError
from omnivox.rates import SAMPLE_RATE
from omnivox.runtime.answer import WIRE
from omnivox.runtime.client import Client
from omnivox.sound import read_audio
from omnivox.systems.system import Event


@dataclass(frozen=True)
class Realtime:
    """url, api_key, model, instructions, timeout: as the client's."""

    url: str
    model: str = "nano"
    instructions: str | None = None
    voice: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 20.0
    name: ClassVar[str] = "realtime"
    sample_rate: ClassVar[int] = WIRE.rate

    @classmethod
    def load(cls, url: str, *, model: str = "nano", instructions: str | None = None, voice: str | None = None,
             api_key: str | None = None, timeout: float = 20.0) -> Self:
        """Raises ConfigError: no URL, a refused key. OmnivoxError: no server there that speaks the protocol."""
        if not 0 < timeout < math.inf:
            raise ConfigError(f"timeout: found {timeout}; expected seconds")
        system = cls(url, model, instructions, voice, api_key, timeout)
        system._connect().close()
        return system

    def settings(self) -> Mapping[str, Any]:
        return {"url": self.url, "model": self.model, "instructions": self.instructions, "voice": self.voice,
                "network_in_timings": True}

    def respond(self, question: Tensor) -> Iterator[Event]:
        samples = read_audio(question, self.sample_rate, source_rate=SAMPLE_RATE)
        return self._ask(samples)

    def _ask(self, samples: Tensor) -> Iterator[Event]:
        with self._connect() as client, closing(client.ask(samples)) as events:  # type: ignore[type-var]
            yield from events

    def _connect(self) -> Client:
        session = {} if self.voice is None else {"audio": {"output": {"voice": self.voice}}}
        return Client(self.url, api_key=self.api_key, model=self.model, instructions=self.instructions,
                      sample_rate=self.sample_rate, session=session, timeout=self.timeout)
