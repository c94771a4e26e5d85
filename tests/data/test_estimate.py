"""What a build will cost, before it begins."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from omnivox.data.answer import AnswerByLLM, AnswerSettings
from omnivox.data.build import before, estimates
from omnivox.data.cache import Reply, ReplyCache, digest
from omnivox.data.endpoint import Endpoint, EndpointSettings
from omnivox.data.estimate import Rates, duration, estimate
from omnivox.data.llm import Request
from omnivox.data.local import LocalLLM, LocalSettings
from omnivox.data.manifest import StageFolder
from omnivox.data.prompts import REWRITE_SCHEMA
from omnivox.data.records import Row, Turn
from omnivox.data.rewrite import RewriteByLLM, RewriteSettings
from omnivox.data.stage import run_stage
from tests.data.chat_server import serving
from tests.data.test_endpoint import ROWS, SETTINGS, rewrite, source

LLM = Endpoint(EndpointSettings("http://127.0.0.1:1/v1", "m"))
STAGE = RewriteByLLM(RewriteSettings(), LLM)


def test_tokens_cost_and_time(tmp_path: Path) -> None:
    with ReplyCache(tmp_path) as cache:
        found = estimate(STAGE, ROWS, cache, Rates(1.0, 10.0, speed=10.0, latency=1.0, concurrency=4))
    characters = sum(len(prompt) for row in ROWS for prompt in STAGE.prompts(row))
    assert (found.calls, found.cached, found.tokens_in) == (len(ROWS), 0, characters // 4)
    assert found.cost == pytest.approx((found.tokens_in + 10 * found.tokens_out) / 1e6)
    each = found.tokens_out / len(ROWS)
    assert found.seconds == pytest.approx(2 * (1 + each / 10), rel=0.01)  # eight calls, four at once


def test_what_the_time_rests_on_is_said(tmp_path: Path) -> None:
    with ReplyCache(tmp_path) as cache:
        told = str(estimate(STAGE, ROWS, cache, Rates(1.0, 10.0, speed=10.0, concurrency=4)))
        assert re.fullmatch(r"rewrite: 8 calls \(0 more are in the cache\), about [\d,]+ tokens in and \d+ out, cost "
                            r"0\.\d\d, about \d+ seconds if each of 4 at once makes 10 tokens a second", told)
        assert " if " not in str(estimate(STAGE, [], cache, Rates()))


def test_a_model_of_this_machine_costs_time_and_no_money(tmp_path: Path) -> None:
    local = LocalLLM(LocalSettings("some/model", batch=2))
    [found] = estimates([RewriteByLLM(RewriteSettings(), local)], source(tmp_path, ROWS), Rates(9.0, 9.0))
    assert (found.calls, found.cost) == (len(ROWS), 0.0)
    assert "if each of 2 at once makes" in str(found)


def test_what_is_cached_or_asked_twice_costs_nothing(tmp_path: Path) -> None:
    with ReplyCache(tmp_path) as cache:
        for row in ROWS[:3]:
            [prompt] = STAGE.prompts(row)
            cache.put(digest(LLM.body(Request(prompt, REWRITE_SCHEMA))), Reply("x"))
        found = estimate(STAGE, [*ROWS, *ROWS], cache, Rates())
        assert (found.calls, found.cached) == (len(ROWS) - 3, 3)
        nothing = estimate(STAGE, ROWS[:3], cache, Rates(1, 1))
        assert (nothing.calls, nothing.cost, nothing.seconds) == (0, 0.0, 0.0)


def test_replies_that_came_tell_how_long_they_are(tmp_path: Path) -> None:
    rows = [Row(f"r{i}", "s", "", (Turn(f"text {i}"),)) for i in range(60)]
    with ReplyCache(tmp_path) as cache:
        for row in rows[:30]:
            cache.put(digest(LLM.body(Request(STAGE.prompts(row)[0], REWRITE_SCHEMA))), Reply("x", 9, 200))
        assert estimate(STAGE, rows, cache, Rates()).tokens_out == 30 * 200


def test_the_estimate_is_what_happens(tmp_path: Path) -> None:
    """The server counts as many calls as were foretold, stage by stage, and none once both are done."""
    build = source(tmp_path, [*ROWS, Row("two", "s", "", (Turn("One?"), Turn("Two?")))])
    with serving() as served:
        llm = Endpoint(replace(SETTINGS, url=served.url))
        stages = [RewriteByLLM(RewriteSettings(), llm), AnswerByLLM(AnswerSettings(), llm)]
        first, second = estimates(stages, build, Rates())
        assert (first.calls, second.calls) == (10, 10)
        rewrite(build, served)
        assert sum(served.asked.values()) == first.calls
        [second] = estimates(stages, build, Rates())
        run_stage(stages[1], build, "rewrite")
        assert sum(served.asked.values()) == first.calls + second.calls
        assert estimates(stages, build, Rates()) == []


def test_a_stage_reads_the_nearest_that_was_begun(tmp_path: Path) -> None:
    build = source(tmp_path, ROWS)
    assert before("speak", build) == "sources"
    StageFolder(build, "speak").claim({}, "")
    assert before("filter", build) == "speak"
    assert before("quantise", build) == "speak"


@pytest.mark.parametrize(("seconds", "said"), [(5, "5 seconds"), (300, "5.0 minutes"), (7200, "2.0 hours"),
                                               (864000, "10.0 days")])
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == f"about {said}"
