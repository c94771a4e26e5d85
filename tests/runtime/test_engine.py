"""The engine: many replies on one model, each as if it were alone."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnivox.errors import AudioError, ConfigError
from omnivox.runtime.conversation import Conversation
from omnivox.runtime.engine import PATIENCE, BusyError, DrainingError, Engine, EngineSettings
from omnivox.runtime.events import Audio, Done, Failed, Ready, Reply, Text
from omnivox.runtime.history import History
from omnivox.runtime.job import Event, Job
from omnivox.runtime.respond import Omni, ReplySettings
from omnivox.runtime.sampling import SamplingSettings
from tests import tiny
from tests.engines import WAIT, stalled, until


class Heard:
    """What a caller is told about one reply."""

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.job: Job | None = None

    def __call__(self, event: Event) -> None:
        self.events.put(event)

    def all(self) -> list[Event]:
        """Every event, when the last one is there."""
        found = [self.events.get(timeout=WAIT)]
        while not isinstance(found[-1], Done | Failed):
            found.append(self.events.get(timeout=WAIT))
        return found

    def reply(self) -> Reply:
        last = self.all()[-1]
        assert isinstance(last, Done), last
        return last.reply


def ask(engine: Engine, seed: int = 0, seconds: float = 1.0, held: bool = False, history: History | None = None,
        conversation: object = None, **settings: object) -> Heard:
    history = history or History(engine.omni, context=engine.context)
    history.add(history.speech(tiny.question(seconds, seed)))
    heard = Heard()
    heard.job = engine.reply(history.prompt(), heard, ReplySettings(**settings), held=held,  # type: ignore[arg-type]
                             conversation=conversation)  # type: ignore[arg-type]
    return heard


def assert_same(found: Reply, expected: Reply) -> None:
    assert (found.text, found.token_ids, found.units) == (expected.text, expected.token_ids, expected.units)
    torch.testing.assert_close(found.audio, expected.audio, atol=1e-4, rtol=0)


def alone(omni: Omni, seed: int, seconds: float, settings: ReplySettings) -> Reply:
    """The reply of the single-conversation path."""
    sampling = settings.sampling
    *_, done = omni.respond(tiny.question(seconds, seed), chunk_units=settings.chunk_units,
                            lookahead=settings.lookahead, temperature=sampling.temperature, top_p=sampling.top_p,
                            seed=sampling.seed, max_new_tokens=settings.max_new_tokens, speak=settings.speak)
    assert isinstance(done, Done)
    return done.reply


@pytest.fixture(scope="module", params=["predicting", "consumed"])
def omni(request: pytest.FixtureRequest) -> Omni:
    return tiny.omni(states_fed=request.param)


@pytest.fixture(scope="module")
def engine(omni: Omni) -> Iterator[Engine]:
    with Engine(omni, EngineSettings(slots=3, queue=50, reply_tokens=24)) as running:
        yield running


replies = st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0.3, 1.0, 2.1]), st.sampled_from([0.0, 0.8]),
                             st.sampled_from([1, 3, 10]), st.sampled_from([None, 0, 2]), st.integers(1, 20),
                             st.booleans()), min_size=1, max_size=7)


@settings(deadline=None, max_examples=40)
@given(replies)
def test_each_reply_is_as_if_it_were_alone(engine: Engine, wanted: list[Any]) -> None:
    asked = []
    for seed, seconds, heat, omega, lookahead, tokens, speak in wanted:
        how = ReplySettings(omega, lookahead, tokens, speak, SamplingSettings(heat, seed=seed))
        history = History(engine.omni)
        history.add(history.speech(tiny.question(seconds, seed)))
        heard = Heard()
        engine.reply(history.prompt(), heard, how)
        asked.append((heard, alone(engine.omni, seed, seconds, how)))
    for heard, expected in asked:
        assert_same(heard.reply(), expected)


def test_events_are_parts_of_the_reply(engine: Engine) -> None:
    events = ask(engine, chunk_units=3, max_new_tokens=20).all()
    done = events[-1]
    assert isinstance(done, Done)
    assert "".join(e.delta for e in events if isinstance(e, Text)) == done.reply.text
    sounds = [e.samples for e in events if isinstance(e, Audio)]
    assert len(sounds) > 1
    assert torch.equal(torch.cat(sounds), done.reply.audio)
    ends = done.reply.token_ends
    assert len(ends) == len(done.reply.token_ids)
    assert list(ends) == sorted(ends)
    assert ends[-1] == len(done.reply.audio)


def test_a_cancelled_reply_tells_how_far_it_came_and_frees_its_slot(engine: Engine) -> None:
    first = threading.Event()
    heard = Heard()

    def listen(event: Event) -> None:
        heard(event)
        if isinstance(event, Text) and not first.is_set():
            first.set()
            job.cancel()

    history = History(engine.omni)
    history.add(history.speech(tiny.question()))
    with stalled(engine):
        job = engine.reply(history.prompt(), listen, ReplySettings(max_new_tokens=24))
    reply = heard.reply()
    assert reply.cancelled
    assert len(reply.token_ids) == 1  # the order came before the next tick
    assert engine.stats().busy == 0
    assert not ask(engine, max_new_tokens=2).reply().cancelled


def test_more_than_the_slots_wait_and_more_than_the_queue_are_refused(omni: Omni) -> None:
    with Engine(omni, EngineSettings(slots=2, queue=1, reply_tokens=8)) as engine:
        with stalled(engine):
            waiting = [ask(engine, seed) for seed in range(3)]
            with pytest.raises(BusyError, match=r"all 2 slots are taken and 3 replies wait"):
                ask(engine)
        for seed, heard in enumerate(waiting):
            assert_same(heard.reply(), alone(omni, seed, 1.0, ReplySettings(max_new_tokens=8)))


@pytest.mark.parametrize("tokens", [1, 20])
def test_a_held_reply_waits_with_its_first_sound_until_it_is_released(engine: Engine, tokens: int) -> None:
    heard = ask(engine, held=True, max_new_tokens=tokens, chunk_units=2)
    other = ask(engine, seed=1, max_new_tokens=20)
    other.reply()
    ready = heard.events.get(timeout=WAIT)
    assert isinstance(ready, Ready)
    assert 0 < ready.certainty <= 1
    assert heard.events.empty()
    assert heard.job is not None
    heard.job.release()
    assert_same(heard.reply(), alone(engine.omni, 0, 1.0, ReplySettings(chunk_units=2, max_new_tokens=tokens)))


def test_held_replies_are_in_nobodys_way(omni: Omni) -> None:
    with Engine(omni, EngineSettings(slots=2, queue=1, reply_tokens=20)) as engine:
        held = [ask(engine, seed, held=True, chunk_units=2) for seed in range(3)]
        for one in held[:2]:
            assert isinstance(one.events.get(timeout=WAIT), Ready)
        with pytest.raises(BusyError):
            ask(engine, held=True)
        with stalled(engine):
            asked = [ask(engine, seed) for seed in range(3, 6)]  # as many as there are slots and places in the queue
            with pytest.raises(BusyError):
                ask(engine)
        for seed, one in enumerate(asked, 3):
            assert_same(one.reply(), alone(omni, seed, 1.0, ReplySettings(max_new_tokens=20)))
        for seed, one in enumerate(held):  # those that gave way are made anew
            assert one.job is not None
            one.job.release()
            *events, done = one.all()
            assert isinstance(done, Done)
            assert_same(done.reply, alone(omni, seed, 1.0, ReplySettings(chunk_units=2, max_new_tokens=20)))
            assert "".join(event.delta for event in events if isinstance(event, Text)) == done.reply.text
        until(lambda: engine.stats().busy == engine.stats().queued == 0)


def test_the_longest_held_gives_way_and_is_prepared_again_where_there_is_room(omni: Omni) -> None:
    with Engine(omni, EngineSettings(slots=2, reply_tokens=20)) as engine:
        held = [ask(engine, seed, held=True, chunk_units=2) for seed in range(2)]
        first, _ = [one.events.get(timeout=WAIT) for one in held]
        ask(engine, seed=2).reply()
        again = held[0].events.get(timeout=WAIT)
        assert isinstance(first, Ready)
        assert isinstance(again, Ready)
        assert again.certainty == pytest.approx(first.certainty, rel=1e-4)
        assert held[1].events.empty()


def test_a_held_reply_that_is_cancelled_is_never_heard_of(engine: Engine) -> None:
    heard = ask(engine, held=True)
    assert heard.job is not None
    heard.job.cancel()
    ask(engine).reply()
    assert all(isinstance(heard.events.get(), Ready) for _ in range(heard.events.qsize()))
    assert engine.stats().busy == 0


def test_an_error_of_the_model_ends_one_reply(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = engine.omni.model.encode

    def broken(mel: torch.Tensor) -> object:
        if mel.shape[1] > 150:
            raise RuntimeError("no memory")
        return encode(mel)

    monkeypatch.setattr(engine.omni.model, "encode", broken)
    bad, good = ask(engine, seconds=2.0), ask(engine)
    failed = bad.all()[-1]
    assert isinstance(failed, Failed)
    assert "no memory" in str(failed.error)
    assert good.reply().token_ids
    assert engine.stats().busy == 0


def test_a_listener_that_fails_ends_its_own_reply_only(engine: Engine) -> None:
    def listen(event: Event) -> None:
        raise OSError("gone")

    history = History(engine.omni)
    history.add(history.speech(tiny.question()))
    engine.reply(history.prompt(), listen)
    assert ask(engine).reply().token_ids
    assert engine.stats().busy == 0


def test_closing_lets_replies_end_and_takes_no_more(omni: Omni) -> None:
    engine = Engine(omni, EngineSettings(slots=2, reply_tokens=24)).start()
    with stalled(engine):
        heard = ask(engine, max_new_tokens=24)
    engine.close(drain=WAIT)
    assert not heard.reply().cancelled
    with pytest.raises(DrainingError):
        ask(engine)


def test_closing_at_once_cancels_what_is_left(omni: Omni) -> None:
    engine = Engine(omni, EngineSettings(slots=1, reply_tokens=24)).start()
    with stalled(engine):
        asked = [ask(engine, seed) for seed in range(3)]
        closing = threading.Thread(target=engine.close)
        closing.start()
    closing.join(WAIT)
    assert all(isinstance(heard.all()[-1], Done) for heard in asked)


def test_a_prompt_is_read_piece_by_piece_between_ticks(omni: Omni) -> None:
    with Engine(omni, EngineSettings(slots=2, reply_tokens=24, piece=2)) as engine:
        with stalled(engine):
            asked = [ask(engine, seed, 3.0, max_new_tokens=24) for seed in range(2)]
        for seed, heard in enumerate(asked):
            assert_same(heard.reply(), alone(omni, seed, 3.0, ReplySettings(max_new_tokens=24)))


def reading(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """How many positions of each newcomer's prompt are read, step by step as they are."""
    read: list[tuple[int, ...]] = []
    step = engine._slots.read

    def noted(first: int, pieces: list[torch.Tensor]) -> torch.Tensor:
        read.append(tuple(map(len, pieces)))
        return step(first, pieces)

    monkeypatch.setattr(engine._slots, "read", noted)
    return read


def test_newcomers_are_read_together_and_none_waits_for_the_longest(
        omni: Omni, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine(omni, EngineSettings(slots=3, reply_tokens=24, piece=9)) as engine:
        read = reading(engine, monkeypatch)
        with stalled(engine):
            asked = [ask(engine, seed, seconds, max_new_tokens=24) for seed, seconds in enumerate((3.0, 0.3, 1.0))]
        for seed, (heard, seconds) in enumerate(zip(asked, (3.0, 0.3, 1.0), strict=True)):
            assert_same(heard.reply(), alone(omni, seed, seconds, ReplySettings(max_new_tokens=24)))
    assert max(map(len, read)) > 1
    assert max(map(sum, read)) <= 9  # a step costs the others no more than one newcomer's would
    assert sum(map(sum, read)) == sum(2 + omni.model.speech_positions(int(16_000 * s)) for s in (3.0, 0.3, 1.0))


def test_a_newcomer_that_leaves_before_anything_was_read_leaves_nothing(omni: Omni) -> None:
    conversation = Conversation(omni)
    conversation.rewind([[1, 2, 3]])
    conversation.keep(omni.llm.initial_state(1, 8), 0, [])
    assert (conversation.positions, conversation.state) == (0, None)


def test_an_order_that_fails_does_not_end_the_engine(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("no such thing")

    engine.order(fail)
    assert_same(ask(engine, 3, max_new_tokens=9).reply(), alone(engine.omni, 3, 1.0, ReplySettings(max_new_tokens=9)))
    assert "no such thing" in caplog.text


@pytest.mark.parametrize("hungry", [False, True])
def test_newcomers_wait_some_ticks_while_a_listener_runs_out_of_sound(omni: Omni, hungry: bool,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job, "hungry", property(lambda job: hungry and job.live))
    order: list[str] = []
    with Engine(omni, EngineSettings(slots=2, reply_tokens=24, piece=2)) as engine:
        for name in ("read", "tick"):
            step = getattr(engine._slots, name)
            monkeypatch.setattr(engine._slots, name,
                                lambda *given, name=name, step=step: (order.append(name[0]), step(*given))[1])
        first = ask(engine, 0, 0.3, max_new_tokens=24)
        assert isinstance(first.events.get(timeout=WAIT), Text)
        with stalled(engine):
            second = ask(engine, 1, max_new_tokens=24)
        assert_same(second.reply(), alone(omni, 1, 1.0, ReplySettings(max_new_tokens=24)))
        first.reply()
    assert ("r" + (1 + PATIENCE) * "t" + "r" in "".join(order)) == hungry
    assert ("rtr" in "".join(order)) != hungry


def test_a_newcomer_that_leaves_while_it_is_read_leaves_what_was_read(
        omni: Omni, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine(omni, EngineSettings(slots=3, reply_tokens=24, piece=6)) as engine:
        read, conversation, history = reading(engine, monkeypatch), engine.conversation(), History(omni)
        with stalled(engine):
            asked = [ask(engine, 0, max_new_tokens=24),
                     ask(engine, 1, 3.0, history=history, conversation=conversation, max_new_tokens=24)]
        step = engine._slots.read

        def leaving(first: int, pieces: list[torch.Tensor]) -> torch.Tensor:
            if len(read) == 2 and asked[1].job is not None:
                asked[1].job.cancel()
            return step(first, pieces)

        monkeypatch.setattr(engine._slots, "read", leaving)
        left = asked[1].reply()
        assert left.cancelled
        assert not left.token_ids
        kept = conversation.positions
        assert 0 < kept < 2 + omni.model.speech_positions(48_000)
        assert_same(asked[0].reply(), alone(omni, 0, 1.0, ReplySettings(max_new_tokens=24)))
        again = Heard()
        engine.reply(history.prompt(), again, ReplySettings(max_new_tokens=24), conversation=conversation)
        assert_same(again.reply(), alone(omni, 1, 3.0, ReplySettings(max_new_tokens=24)))
        assert sum(map(sum, read)) == 2 + omni.model.speech_positions(16_000) + 2 + omni.model.speech_positions(48_000)


@pytest.mark.parametrize("name", ["slots", "queue", "context", "reply_tokens", "piece"])
def test_settings_out_of_range(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: found -1"):
        EngineSettings(**{name: -1})


def test_a_question_that_is_too_long(omni: Omni) -> None:
    history = History(omni)
    with pytest.raises(AudioError, match="hears at most"):
        history.speech(torch.zeros(16000 * 100))
