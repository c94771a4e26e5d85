"""Rewriting and answering through a real HTTP server that fails in every way it can."""

from __future__ import annotations

import json
import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from omnivox.data.answer import AnswerByLLM, AnswerSettings
from omnivox.data.endpoint import Endpoint, EndpointSettings
from omnivox.data.manifest import StageFolder
from omnivox.data.records import Row, Turn
from omnivox.data.rewrite import RewriteByLLM, RewriteSettings
from omnivox.data.saying import CACHE
from omnivox.data.stage import at_once, run_stage
from omnivox.errors import ConfigError
from tests.data.chat_server import Fault, Handler, Served, at_first, completion, serving, well, written

ROWS = [Row(f"r{i}", "s", "", (Turn(f"Tell me about {name}."),))
        for i, name in enumerate(["owls", "rain", "salt", "tea", "ice", "bread", "moss", "iron"])]
SETTINGS = EndpointSettings("http://127.0.0.1:1/v1", "tiny", backoff=0.01, longest=0.05, timeout=60.0, concurrency=4,
                            tries=4)


def source(build: Path, rows: list[Row], each: int = 3) -> Path:
    folder = StageFolder(build, "sources")
    manifest = folder.claim({}, "")
    shards = [rows[start:start + each] for start in range(0, len(rows), each)]
    folder.finish(manifest, [folder.write_shard(i, shard, shard) for i, shard in enumerate(shards)])
    return build


def rewrite(build: Path, served: Served, rewriting: RewriteSettings | None = None, **changes: Any) -> list[Row]:
    settings = replace(SETTINGS, url=served.url, **changes)
    run_stage(RewriteByLLM(rewriting or RewriteSettings(), Endpoint(settings)), build, "sources", at_once(2))
    return list(StageFolder(build, "rewrite").rows())


def reasons(build: Path, stage: str = "rewrite") -> list[tuple[str, str]]:
    return [(one["id"], one["reason"]) for one in StageFolder(build, stage).rejections()]


GOOD = [f"So, tell me about {row.turns[0].instruction.split()[-1]}"[:-1] + "?" for row in ROWS]


def test_every_row_is_asked_once_and_order_is_kept(tmp_path: Path) -> None:
    met = threading.Event()

    def meets(handler: Handler, body: dict[str, Any]) -> bool:
        """Nobody is answered before two have come."""
        if handler.served.at_once > 1:
            met.set()
        return not met.wait(60)

    with serving(fault=meets) as served:
        rows = rewrite(source(tmp_path, ROWS), served, api_key="mine")
        assert [row.turns[0].question for row in rows] == GOOD
        assert set(served.asked.values()) == {1}
        assert 2 <= served.most_at_once <= 4
        assert served.keys == {"Bearer mine"}
        form = served.bodies[0]["response_format"]
        assert form["type"] == "json_schema"
        assert form["json_schema"]["schema"]["required"] == ["sayable", "question"]
        assert "mine" not in "".join(path.read_text() for path in tmp_path.rglob("*.json*"))


def test_equal_prompts_are_one_call(tmp_path: Path) -> None:
    rows = [Row(f"r{i}", "s", "", (Turn("What is rain?"),)) for i in range(9)]
    with serving(delay=0.05) as served:
        assert len(rewrite(source(tmp_path, rows), served)) == 9
        assert list(served.asked.values()) == [1]


def status(code: int, **headers: str) -> Fault:
    def fault(handler: Handler, body: dict[str, Any]) -> bool:
        handler.say(code, {"error": {"message": "try later"}}, **headers)
        return True

    return fault


def half(handler: Handler, body: dict[str, Any]) -> bool:
    """Half of the promised bytes."""
    data = json.dumps(completion("x")).encode()
    handler.say(200, data[:len(data) // 2], length=str(len(data)))
    handler.reset()
    return True


def broken(content: Any) -> Fault:
    """A whole answer that is no chat completion."""
    def fault(handler: Handler, body: dict[str, Any]) -> bool:
        handler.say(200, content)
        return True

    return fault


def reset(handler: Handler, body: dict[str, Any]) -> bool:
    handler.reset()
    return True


def slow(handler: Handler, body: dict[str, Any]) -> bool:
    """A byte now and then: no read times out, the whole does."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(20):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)
    return True


PASSING: dict[str, Fault] = {
    "429": status(429), "429 with Retry-After": status(429, retry_after="0.2"), "500": status(500), "503": status(503),
    "half an answer": half, "half JSON": broken(b'{"choices": [{"mess'), "no choices": broken({"choices": []}),
    "an odd content": broken({"choices": [{"message": {"content": 3}}]}), "a list": broken([1]), "a reset": reset}


@pytest.mark.parametrize("name", PASSING)
def test_a_failure_that_passes_costs_a_retry_and_no_row(name: str, tmp_path: Path) -> None:
    with serving(fault=at_first(PASSING[name], 2)) as served:
        rows = rewrite(source(tmp_path, ROWS), served)
        assert [row.turns[0].question for row in rows] == GOOD
        assert set(served.asked.values()) == {3}
        assert reasons(tmp_path) == []


def test_slow_answers_are_given_up_and_asked_again(tmp_path: Path) -> None:
    with serving(fault=at_first(slow)) as served:
        rows = rewrite(source(tmp_path, ROWS[:3]), served, timeout=1.0, tries=20)
        assert [row.turns[0].question for row in rows] == GOOD[:3]
        assert min(served.asked.values()) >= 2


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_holds_every_call_back(form: str, tmp_path: Path) -> None:
    """No call comes between the refusal and the time that it named."""
    refused: list[float] = []
    early: list[float] = []

    def busy(handler: Handler, body: dict[str, Any]) -> bool:
        now = time.monotonic()
        with handler.served.lock:
            if not refused:
                refused.append(now)
                first = True
            else:
                first = False
                if now - refused[0] < 0.7 and handler.served.at_once == 1:
                    early.append(now)
        if first:
            # a date has whole seconds: two away is more than one away
            after = "1" if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
            handler.say(429, {}, retry_after=after)
        return first

    with serving(fault=busy) as served:
        assert len(rewrite(source(tmp_path, ROWS), served, concurrency=1)) == len(ROWS)
        assert early == []
        assert sum(served.asked.values()) == len(ROWS) + 1


def test_a_wait_beyond_patience_ends_the_stage(tmp_path: Path) -> None:
    with serving(fault=status(429, retry_after="86400")) as served, \
            pytest.raises(ConnectionError, match=r"asks to wait 86,400 s .* more than 900 s"):
        rewrite(source(tmp_path, ROWS), served)


def test_an_endpoint_that_is_down_ends_the_stage_and_loses_nothing(tmp_path: Path) -> None:
    build = source(tmp_path, ROWS)
    down: list[str] = []

    def dies(handler: Handler, body: dict[str, Any]) -> bool:
        if len(handler.served.answered) >= 3:
            down.append(body["messages"][0]["content"])
            return status(503)(handler, body)
        return False

    with serving(fault=dies) as served:
        with pytest.raises(ConnectionError, match=r"no answer after 4 tries \(503 try later\); what was answered is"):
            rewrite(build, served, concurrency=1)
        paid = [prompt for _, prompt in served.answered]
        served.fault = None
        rows = rewrite(build, served)
        assert [row.turns[0].question for row in rows] == GOOD
        assert len(paid) == 3
        assert [prompt for _, prompt in served.answered].count(paid[0]) == 1
        assert len(served.answered) == len(ROWS)


def test_nobody_listens(tmp_path: Path) -> None:
    with serving() as served:
        pass
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1.*no answer after 4 tries \(ConnectError"):
        rewrite(source(tmp_path, ROWS), served)


def test_a_row_that_the_server_fails_on_is_rejected_while_others_go_on(tmp_path: Path) -> None:
    failing, others = threading.Event(), threading.Semaphore(0)

    def poison(handler: Handler, body: dict[str, Any]) -> bool:
        salt = "salt" in body["messages"][0]["content"]
        if salt and not failing.is_set():
            failing.set()
            for _ in range(2):  # there is room for one beside it: the second comes when the first has been answered
                assert others.acquire(timeout=60)
        elif failing.is_set():
            others.release()
        return salt and status(500)(handler, body)

    with serving(fault=poison) as served:
        rows = rewrite(source(tmp_path, ROWS, each=len(ROWS)), served, concurrency=2)
        assert [row.turns[0].question for row in rows] == [one for one in GOOD if "salt" not in one]
        assert reasons(tmp_path) == [("r2", "endpoint: no answer after 4 tries (500 try later)")]


def poisoned(code: int, *words: str) -> Fault:
    """What holds one of the words fails, always."""
    def fault(handler: Handler, body: dict[str, Any]) -> bool:
        text = body["messages"][0]["content"]
        return any(word in text for word in words) and status(code)(handler, body)

    return fault


@pytest.mark.parametrize(("code", "words"), [(500, ["about salt"]), (400, ["about salt", "about tea", "about ice"])])
def test_rows_that_fail_are_rejected_when_they_are_all_that_is_left_to_ask(
        code: int, words: list[str], tmp_path: Path) -> None:
    """After a kill only they may be missing: nobody else is there to show that the endpoint answers."""
    bad = [row for row in ROWS if any(word in row.turns[0].instruction for word in words)]
    good = [row for row in ROWS if row not in bad]
    build = source(tmp_path / "b", [*good, *bad])
    with serving(fault=poisoned(code, *words)) as served:
        rewrite(source(tmp_path / "before", good), served)
        (build / "cache").symlink_to(tmp_path / "before" / "cache")
        served.asked.clear()
        assert len(rewrite(build, served)) == len(good)
        assert {reason.partition(":")[0] for _, reason in reasons(build)} == {"endpoint"}
        assert [name for name, _ in reasons(build)] == [row.id for row in bad]
        assert served.times("How are you?") == 1  # asked to tell a bad row from a bad endpoint


def test_a_row_that_fails_where_nothing_is_answered_is_not_rejected(tmp_path: Path) -> None:
    build = source(tmp_path, ROWS[:1])
    with serving(fault=status(500)) as served:
        with pytest.raises(ConnectionError, match="no answer after 4 tries"):
            rewrite(build, served)
        served.fault = None
        assert len(rewrite(build, served)) == 1


def test_a_closed_door_is_a_setting(tmp_path: Path) -> None:
    with serving(fault=status(401)) as served, pytest.raises(ConfigError, match=r"401 try later; check the URL, the"):
        rewrite(source(tmp_path, ROWS), served)
    assert max(served.asked.values()) == 1


def test_an_endpoint_that_refuses_everything_is_a_setting(tmp_path: Path) -> None:
    with serving(fault=status(400)) as served, pytest.raises(ConfigError, match="it has refused every request so far"):
        rewrite(source(tmp_path, ROWS), served)


def test_one_refused_request_is_one_rejected_row(tmp_path: Path) -> None:
    def long(handler: Handler, body: dict[str, Any]) -> bool:
        return "tea" in body["messages"][0]["content"] and status(400)(handler, body)

    with serving(fault=long) as served:
        assert len(rewrite(source(tmp_path, ROWS), served)) == len(ROWS) - 1
        assert reasons(tmp_path) == [("r3", "endpoint: 400 try later")]


# -- what models say --------------------------------------------------------------------------------------------------

def worse(times: int, bad: str) -> Callable[[str], str]:
    """Nonsense for the first `times` of each prompt about salt."""
    seen: list[str] = []

    def reply(prompt: str) -> str:
        if "salt" not in prompt:
            return well(prompt)
        seen.append(prompt)
        return bad if len(seen) <= times else well(prompt)

    return reply


@pytest.mark.parametrize("bad", [
    "", "I cannot do that.", '{"sayable": true}', '{"sayable": "yes", "question": "a"}', '{"sayable": true, "questi',
    '{"sayable": true, "question": ""}', '{"sayable": true, "question": "Use `print(x)` or https://salt.org"}',
    '{"sayable": true, "question": "What is 塩?"}', json.dumps({"sayable": True, "question": "word " * 200}),
    "Sure \ud83d", '{"sayable": true, "question": "What is \\ud83d?"}', '{"question": ' + "[" * 100_000])
def test_a_reply_of_no_use_is_asked_for_again_and_then_the_row_is_rejected(bad: str, tmp_path: Path) -> None:
    build = source(tmp_path / "a", ROWS)
    with serving(reply=worse(2, bad)) as served:
        assert [row.turns[0].question for row in rewrite(build, served)] == GOOD
        salt = [body for body in served.bodies if "salt" in written(body["messages"][0]["content"])]
        assert [body["seed"] for body in salt] == [0, 1, 2]
    build = source(tmp_path / "b", ROWS)
    with serving(reply=worse(9, bad)) as served:
        assert len(rewrite(build, served)) == len(ROWS) - 1
        [(row, reason)] = reasons(build)
        assert (row, reason[:7], reason[-13:]) == ("r2", "reply: ", " (3 attempts)")
        # every attempt was paid for, and none is paid for again
        (build / "rewrite" / "manifest.json").unlink()
        for shard in (build / "rewrite").glob("shard-*.jsonl"):
            shard.unlink()
        rewrite(build, served)
        assert served.times("salt") == 3
        assert sum(served.asked.values()) == len(ROWS) + 2


def test_half_a_character_in_a_refusal_is_no_hindrance(tmp_path: Path) -> None:
    def refuses(handler: Handler, body: dict[str, Any]) -> bool:
        if "tea" in body["messages"][0]["content"]:
            handler.say(400, {"error": {"message": "no \ud83d"}})
            return True
        return False

    with serving(fault=refuses) as served:
        assert len(rewrite(source(tmp_path, ROWS), served)) == len(ROWS) - 1
        assert reasons(tmp_path) == [("r3", "endpoint: 400 no ?")]


def test_what_the_model_finds_unsayable_is_rejected_at_once(tmp_path: Path) -> None:
    with serving(reply=worse(9, '```json\n{"sayable": false, "question": ""}\n```')) as served:
        rewrite(source(tmp_path, ROWS), served)
        assert reasons(tmp_path) == [("r2", "unsayable: the model finds that it cannot be spoken")]
        assert served.times("salt") == 1


def test_numbers_that_a_model_left_are_put_into_words(tmp_path: Path) -> None:
    with serving(reply=worse(9, '{"sayable": true, "question": "Are 3 grams of salt 50% of it?"}')) as served:
        rows = rewrite(source(tmp_path, ROWS), served)
        assert rows[2].turns[0].question == "Are three grams of salt fifty percent of it?"


def test_another_language_keeps_its_own_letters(tmp_path: Path) -> None:
    asked = "\u76d0\u662f\u4ec0\u4e48\uff1f"
    with serving(reply=worse(9, json.dumps({"sayable": True, "question": asked}))) as served:
        rows = rewrite(source(tmp_path, ROWS), served, RewriteSettings(language="Chinese"))
        assert rows[2].turns[0].question == asked
        assert "Chinese" in served.bodies[0]["messages"][0]["content"]


def test_a_conversation_is_answered_in_order_with_its_past(tmp_path: Path) -> None:
    turns = tuple(Turn(f"about {one}", question=f"what is {one}", answer=answer) for one, answer in
                  [("one", None), ("two", "It is even."), ("three", None)])
    build = source(tmp_path, [Row("r", "s", "", turns), *ROWS[:1]])
    with serving() as served:
        rewrite(build, served)
        run_stage(AnswerByLLM(AnswerSettings(), Endpoint(replace(SETTINGS, url=served.url))), build, "rewrite")
        row, other = StageFolder(build, "answer").rows()
        assert [turn.answer for turn in row.turns] == ["You asked: what is one.", "It is even.",
                                                       "You asked: what is three."]
        last = next(body["messages"][0]["content"] for body in served.bodies
                    if "They say: what is three" in body["messages"][0]["content"])
        past = last[last.index("The conversation so far:"):last.index("They say:")].split("\n")
        assert past[1:5] == ["They said: what is one", "You said: You asked: what is one.", "They said: what is two",
                             "You said: It is even."]
        assert other.turns[0].answer


def test_replies_are_found_again_by_model_and_words(tmp_path: Path) -> None:
    with serving() as served:
        rewrite(source(tmp_path / "a", ROWS), served)
        for other in ("b", "c"):
            source(tmp_path / other, ROWS)
            (tmp_path / other / CACHE).parent.mkdir()
            (tmp_path / other / CACHE).symlink_to(tmp_path / "a" / CACHE)
        rewrite(tmp_path / "b", served, timeout=9.0, concurrency=1, api_key="another")
        assert sum(served.asked.values()) == len(ROWS)
        rewrite(tmp_path / "c", served, model="another")
        assert sum(served.asked.values()) == 2 * len(ROWS)


def test_it_travels_to_other_processes_without_its_connections() -> None:
    llm = pickle.loads(pickle.dumps(Endpoint(replace(SETTINGS, url="http://127.0.0.1:1/v1"))))
    assert llm.endpoint.url == "http://127.0.0.1:1/v1"
