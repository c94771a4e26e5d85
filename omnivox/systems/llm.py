"""The middle of a cascade: a question in words in, an answer in words out, as it is written.

    OwnLLM      the LLM inside a checkpoint of ours, asked in writing
    CausalLLM   any causal LM of transformers with a chat template
    ServedLLM   any server with OpenAI's `POST /v1/chat/completions`, streamed
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol

from omnivox.checkpoint.files import find_folder
from omnivox.checkpoint.load import pick_device
from omnivox.data.local import load_chat
from omnivox.errors import ConfigError
from omnivox.runtime.events import Done, Text
from omnivox.runtime.respond import Omni
from omnivox.systems import weights
from omnivox.systems.system import Making
from omnivox.systems.writer import Choosing, Writer, deltas

if TYPE_CHECKING:
    import httpx

INSTRUCTIONS = ("You are a voice assistant. Answer what follows as you would aloud: briefly, in words that can be read "
                "out as they stand, without digits, lists or markup.")


class LLM(Protocol):
    """Answers in writing."""

    def settings(self) -> Mapping[str, Any]:
        """All that its answers depend on, as JSON."""
        ...

    def write(self, question: str, making: Making) -> Generator[str, None, None]:
        """The answer, piece by piece; sets what it knows of `making`. Raises ConnectionError: a server that fails."""
        ...


class OwnLLM:
    """The LLM of a spoken model, by the prompt of its checkpoint with words where the speech goes."""

    def __init__(self, omni: Omni, model: str, choosing: Choosing) -> None:
        self.omni, self.model, self.choosing = omni, model, choosing

    def settings(self) -> Mapping[str, Any]:
        return {"by": "omni", "model": self.model, **self.choosing.settings()}

    def write(self, question: str, making: Making) -> Generator[str, None, None]:
        by = self.choosing
        events: Any = self.omni.respond_text(question, speak=False, temperature=by.temperature, top_p=by.top_p,
                                             top_k=by.top_k, seed=by.seed, max_new_tokens=by.max_new_tokens)
        with closing(events):
            for event in events:
                if isinstance(event, Text):
                    yield event.delta
                elif isinstance(event, Done):
                    making.token_ids += event.reply.token_ids
                    making.timings.prefill = event.reply.timings.prefill


class CausalLLM:
    """`model`: a folder or a hub name. instructions: stand before the question, in the same message.

    Raises CheckpointError, which says what to download.
    """

    def __init__(self, model: str, choosing: Choosing, instructions: str = INSTRUCTIONS, device: str = "auto",
                 dtype: str = "auto") -> None:
        self.name, self.instructions = model, instructions
        place = pick_device(device)
        with weights.told_how(model, weights.LLM):
            loaded, self.tokenizer = load_chat(str(find_folder(model)), str(place), dtype)
        ends = loaded.generation_config.eos_token_id
        ends = {*(ends if isinstance(ends, list) else [ends]), self.tokenizer.eos_token_id} - {None}
        self.writer = Writer(loaded, choosing, sorted(ends))

    def settings(self) -> Mapping[str, Any]:
        return {"by": "transformers", "model": self.name, "dtype": str(self.writer.model.dtype).removeprefix("torch."),
                "instructions": self.instructions, **self.writer.choosing.settings()}

    def write(self, question: str, making: Making) -> Generator[str, None, None]:
        batch = self.tokenizer.apply_chat_template(_message(self.instructions, question), add_generation_prompt=True,
                                                   return_tensors="pt", return_dict=True).to(self.writer.model.device)
        tokens = self.writer.tokens(batch, batch["input_ids"][0].tolist(), making)
        yield from deltas(tokens, self.tokenizer)


class ServedLLM:
    """url: such as http://127.0.0.1:8000/v1. What a server fails to answer is not asked again, for its time counts.

    Raises ConfigError: no URL, a setting that the protocol does not know, or the package httpx is missing.
    """

    def __init__(self, url: str, model: str, choosing: Choosing, instructions: str = INSTRUCTIONS,
                 api_key: str | None = None, timeout: float = 120.0) -> None:
        try:
            import httpx
        except ImportError as error:
            raise ConfigError(f"llm: Python package httpx is missing ({error}); install it with: "
                              "pip install 'omnivox[data]'") from error
        from omnivox.data.endpoint import EndpointSettings

        EndpointSettings(url, model, api_key, timeout=timeout)
        self.url, self.name, self.choosing, self.instructions = url.rstrip("/"), model, choosing, instructions
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(headers=headers, timeout=timeout)
        weakref.finalize(self, self._client.close)

    def settings(self) -> Mapping[str, Any]:
        return {"by": "server", "url": self.url, "model": self.name, "instructions": self.instructions,
                "network_in_timings": True, **self.choosing.settings()}

    def write(self, question: str, making: Making) -> Generator[str, None, None]:
        import httpx

        by = self.choosing
        body = {"model": self.name, "stream": True, "messages": _message(self.instructions, question),
                "temperature": by.temperature, "top_p": by.top_p, "seed": by.seed, "max_tokens": by.max_new_tokens}
        if by.top_k:
            body["top_k"] = by.top_k  # not OpenAI's, but of many servers
        try:
            with self._client.stream("POST", f"{self.url}/chat/completions", json=body) as response:
                self._check(response)
                yield from self._deltas(response.iter_lines(), making)
        except httpx.HTTPError as error:
            raise ConnectionError(f"{self.url}: {type(error).__name__}: {error}") from error

    def _check(self, response: httpx.Response) -> None:
        from omnivox.data.endpoint import CLOSED, told

        kind = response.headers.get("content-type", "")
        if response.status_code == 200 and kind.startswith("text/event-stream"):
            return
        response.read()
        if response.status_code in CLOSED:
            raise ConfigError(f"{response.url}: {told(response)}; check the URL, the model's name and the key")
        if response.status_code == 200:
            raise ConfigError(f"{response.url}: answers with {kind or 'no content-type'}; expected text/event-stream, "
                              "from a server that streams")
        raise ConnectionError(f"{response.url}: {told(response)}")

    def _deltas(self, lines: Iterable[str], making: Making) -> Iterator[str]:
        """Raises ConnectionError: the stream ends before the answer does."""
        for line in lines:
            data = line.removeprefix("data:").strip()
            if not line.startswith("data:") or not data:
                continue
            if data == "[DONE]":
                return
            found = self._read(data)
            if delta := (found.get("delta") or {}).get("content"):
                yield delta
            if (reason := found.get("finish_reason")) is not None:
                making.cut = reason == "length"
                return
        raise ConnectionError(f"{self.url}: the answer broke off; expected a finish_reason or [DONE] at its end")

    def _read(self, data: str) -> dict[str, Any]:
        """The first choice of an event; of one without choices (usage, say) nothing."""
        try:
            event = json.loads(data)
            failed, choices = event.get("error"), event.get("choices") or [{}]
            found = dict(choices[0])
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise ConnectionError(f"{self.url}: sent {data[:80]!r}; expected a chunk of a chat completion") from error
        if failed:
            raise ConnectionError(f"{self.url}: failed while it answered: {str(failed)[:200]}")
        return found


def _message(instructions: str, question: str) -> list[dict[str, str]]:
    """One message, for some chat templates know no other role than the user's."""
    return [{"role": "user", "content": f"{instructions}\n\n{question}" if instructions else question}]
