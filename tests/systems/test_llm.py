"""A cascade's language model: one of transformers, and one behind an URL that streams, well or badly."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx")

from omnivox.errors import ConfigError
from omnivox.systems.llm import INSTRUCTIONS, CausalLLM, ServedLLM
from omnivox.systems.system import Making
from omnivox.systems.writer import Choosing
from tests.data.chat_server import Fault, Handler, serving
from tests.data.test_local import chain

REPLY = ['"just', "what", '"so', 'it?",']


def chunk(content: str | None = None, finish: str | None = None) -> dict[str, Any]:
    delta = {} if content is None else {"content": content}
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def streams(*events: dict[str, Any] | str) -> Fault:
    """Answers with server-sent events, objects as JSON."""
    lines = [event if isinstance(event, str) else f"data: {json.dumps(event)}" for event in events]

    def say(handler: Handler, body: dict[str, Any]) -> bool:
        data = "".join(f"{line}\n\n" for line in lines).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream; charset=utf-8")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)
        return True

    return say


WELL = streams(chunk(""), ": a comment", chunk("It is "), chunk("Zürich."), chunk(finish="stop"), "data: [DONE]")


def asked(url: str, choosing: Choosing | None = None, **settings: Any) -> tuple[list[str], Making]:
    making = Making()
    llm = ServedLLM(url, "m", choosing or Choosing(max_new_tokens=9), **settings)
    return list(llm.write("Where is it?", making)), making


def test_a_server_answers_piece_by_piece() -> None:
    with serving(fault=WELL) as served:
        pieces, making = asked(served.url, Choosing(0.5, 0.9, 7, seed=3, max_new_tokens=9), api_key="secret")
    assert pieces == ["It is ", "Zürich."]
    assert not making.cut
    [body] = served.bodies
    assert body["messages"] == [{"role": "user", "content": f"{INSTRUCTIONS}\n\nWhere is it?"}]
    assert {name: body[name] for name in ("model", "stream", "temperature", "top_p", "top_k", "seed", "max_tokens")
            } == {"model": "m", "stream": True, "temperature": 0.5, "top_p": 0.9, "top_k": 7, "seed": 3,
                  "max_tokens": 9}
    assert served.keys == {"Bearer secret"}


def test_settings_say_all_but_the_key() -> None:
    llm = ServedLLM("http://127.0.0.1:9/v1/", "m", Choosing(), "", api_key="secret")
    assert llm.settings() == {"by": "server", "url": "http://127.0.0.1:9/v1", "model": "m", "instructions": "",
                              "network_in_timings": True, "temperature": 0.0, "repetition_penalty": 1.0,
                              "min_new_tokens": 0, "max_new_tokens": 256}


def test_a_key_that_no_header_can_hold_is_told() -> None:
    with pytest.raises(ConfigError, match="API key: holds a letter beyond ASCII"):
        ServedLLM("http://127.0.0.1:9/v1", "m", Choosing(), api_key="my\u00e9")


def test_pieces_come_before_the_answer_is_whole() -> None:
    taken = [threading.Event() for _ in range(3)]
    late: list[int] = []

    def waits(handler: Handler, body: dict[str, Any]) -> bool:
        """Sends a piece when the one before has been taken."""
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        for i, gone in enumerate(taken):
            handler.wfile.write(f"data: {json.dumps(chunk(str(i)))}\n\n".encode())
            handler.wfile.flush()
            if not gone.wait(30):
                late.append(i)
        handler.wfile.write(b"data: [DONE]\n\n")
        return True

    with serving(fault=waits) as served:
        for piece in ServedLLM(served.url, "m", Choosing()).write("?", Making()):
            taken[int(piece)].set()
    assert not late
    assert all(gone.is_set() for gone in taken)


def test_an_answer_that_grew_too_long_is_cut() -> None:
    with serving(fault=streams(chunk("one"), chunk(finish="length"))) as served:
        pieces, making = asked(served.url)
    assert (pieces, making.cut) == (["one"], True)


@pytest.mark.parametrize(("fault", "kind", "message"), [
    (lambda handler, _: handler.say(401, {"error": {"message": "no such key"}}) or True, ConfigError,
     "401 no such key; check the URL, the model's name and the key"),
    (lambda handler, _: handler.say(404, {"error": "no model m"}) or True, ConfigError, "404 no model m"),
    (lambda handler, _: handler.say(503, {"error": "busy"}) or True, ConnectionError, "503 busy"),
    (lambda handler, _: handler.say(200, {"choices": []}) or True, ConfigError,
     "answers with application/json; expected text/event-stream"),
    (lambda handler, _: handler.reset() or True, ConnectionError, "Error"),
    (streams(chunk("It is ")), ConnectionError, "the answer broke off"),
    (streams({"error": {"message": "out of memory"}}), ConnectionError, "failed while it answered: .*out of memory"),
    (streams("data: {"), ConnectionError, "sent '{'; expected a chunk of a chat completion"),
    (streams("data: [1]"), ConnectionError, r"sent '\[1\]'; expected a chunk"),
    (streams({"choices": [3]}), ConnectionError, "expected a chunk"),
], ids=["key", "model", "busy", "whole", "reset", "half", "fails", "no-json", "no-object", "no-choice"])
def test_what_a_server_does_badly_is_said(fault: Callable[..., bool], kind: type[Exception], message: str) -> None:
    with serving(fault=fault) as served:
        with pytest.raises(kind, match=message):
            asked(served.url)
        assert len(served.bodies) == 1  # it is not asked again


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(ConnectionError, match="ConnectError"):
        asked("http://127.0.0.1:9/v1")
    with pytest.raises(ConfigError, match="endpoint URL: found 'here'"):
        asked("here")


def test_leaving_early_frees_the_connection() -> None:
    with serving(fault=streams(*(chunk("word ") for _ in range(1000)), "data: [DONE]")) as served:
        llm = ServedLLM(served.url, "m", Choosing())
        for _ in range(3):
            words = llm.write("?", Making())
            next(words)
            words.close()
        assert not llm._client._transport._pool.connections  # type: ignore[attr-defined]


# -- of transformers --------------------------------------------------------------------------------------------------

def test_a_model_of_transformers_writes_word_by_word(tmp_path: Path) -> None:
    llm, making = CausalLLM(str(chain(tmp_path / "m", REPLY)), Choosing(max_new_tokens=20), "Say so."), Making()
    assert list(llm.write("what", making)) == ['"just', " what", ' "so', ' it?",']
    assert len(making.token_ids) == len(REPLY) + 1  # and the end
    assert not making.cut
    assert 0 < making.timings.prefill <= making.timings.first_token
    assert llm.settings() == {"by": "transformers", "model": str(tmp_path / "m"), "dtype": "float32",
                              "instructions": "Say so.", "temperature": 0.0, "repetition_penalty": 1.0,
                              "min_new_tokens": 0, "max_new_tokens": 20}


def test_it_is_cut_at_its_length_and_sampled_by_its_seed(tmp_path: Path) -> None:
    folder = str(chain(tmp_path / "m", REPLY))
    making = Making()
    assert len(list(CausalLLM(folder, Choosing(max_new_tokens=3)).write("what", making))) == 3
    assert making.cut

    def sampled(seed: int) -> list[int]:
        making = Making()
        for _ in CausalLLM(folder, Choosing(temperature=9.0, seed=seed, max_new_tokens=30)).write("what", making):
            pass
        return making.token_ids

    assert sampled(1) == sampled(1) != sampled(2)
