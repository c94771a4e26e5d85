"""Several turns: what the LLM reads, what it need not read again, and what is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from omnivox.errors import AudioError, ConfigError
from omnivox.model.config import MelConfig
from omnivox.runtime.engine import Engine, EngineSettings
from omnivox.runtime.events import Reply
from omnivox.runtime.history import History, Item, Speech
from omnivox.runtime.respond import Omni, ReplySettings
from tests import tiny
from tests.runtime.test_engine import Heard

BOS, EOS, ANSWER, AGAIN = 1, 2, 4, 5
SHORT = ReplySettings(max_new_tokens=6, chunk_units=3)


def of_many_turns(seed: int = 0, end_ids: tuple[int, ...] = (EOS,)) -> Omni:
    omni = tiny.omni(seed, end_ids=end_ids)
    omni.prompt = replace(omni.prompt, again=(AGAIN,))
    return omni


@pytest.fixture(scope="module")
def omni() -> Omni:
    return of_many_turns()


@pytest.fixture(scope="module")
def engine(omni: Omni) -> Iterator[Engine]:
    with Engine(omni, EngineSettings(slots=2, reply_tokens=24)) as running:
        yield running


def shown(history: History) -> list[object]:
    """The prompt, each speech as its number of samples."""
    return [len(part.samples) if isinstance(part, Speech) else part for part in history.prompt()]


def said(history: History, *ids: int) -> Item:
    return history.answer(Reply("", list(ids), [], torch.empty(0), 16000))


def test_a_model_of_many_turns_reads_them_all(omni: Omni) -> None:
    history = History(omni)
    history.add(history.speech(tiny.question(1.0)))
    history.add(said(history, 7, 8, EOS))
    history.add(history.text("user", "word1 word2"))
    assert shown(history) == [(BOS,), 16000, (ANSWER,), (7, 8, EOS), (AGAIN,), (7, 8), (ANSWER,)]


def test_an_answer_that_was_broken_off_is_ended(omni: Omni) -> None:
    history = History(omni)
    history.add(history.speech(tiny.question(1.0)))
    history.add(said(history, 7, 8))
    history.add(history.speech(tiny.question(2.0)))
    assert shown(history) == [(BOS,), 16000, (ANSWER,), (7, 8), (EOS,), (AGAIN,), 32000, (ANSWER,)]


def test_a_model_of_single_turns_reads_what_was_said_last() -> None:
    history = History(tiny.omni())
    history.add(history.speech(tiny.question(1.0)))
    history.add(said(history, 7, EOS))
    assert shown(history) == [(BOS,), 16000, (ANSWER,)]  # asked again for nothing new
    history.add(history.speech(tiny.question(2.0)))
    history.add(history.text("user", "word3"))
    assert shown(history) == [(BOS,), 32000, (9,), (ANSWER,)]


def test_what_nobody_heard_is_forgotten(omni: Omni) -> None:
    history = History(omni)
    history.add(history.speech(tiny.question(1.0)))
    answer = history.answer(Reply("", [7, 8, 9, EOS], [], torch.empty(0), 16000, token_ends=(100, 200, 300, 300)))
    history.add(answer)
    assert history.truncate(answer, 150) == "word1 word2"
    assert answer.content == (7, 8)
    assert history.truncate(answer, 0) == ""
    assert history.truncate(answer, 300) == "word1 word2 word3"  # better known now
    assert not answer.ended
    history.truncate(answer, 301)
    assert answer.ended


def positions_read(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many positions each prefill reads, as they come."""
    read: list[int] = []
    step = engine.omni.llm.step

    def noted(x: object, state: object) -> object:
        if x.data.shape[1] > 1:  # type: ignore[attr-defined]
            read.append(x.data.shape[1])  # type: ignore[attr-defined]
        return step(x, state)  # type: ignore[arg-type]

    monkeypatch.setattr(engine.omni.llm, "step", noted)
    return read


def converse(engine: Engine, history: History, conversation: object, turns: int) -> list[Reply]:
    replies = []
    for turn in range(turns):
        history.add(history.speech(tiny.question(1.0, seed=turn)))
        heard = Heard()
        engine.reply(history.prompt(room=24), heard, SHORT, conversation=conversation)  # type: ignore[arg-type]
        replies.append(heard.reply())
        history.add(history.answer(replies[-1]))
    return replies


def test_nothing_is_read_twice_and_the_answers_are_those_of_a_fresh_start(
        engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    read = positions_read(engine, monkeypatch)
    history = History(engine.omni)
    kept = converse(engine, history, engine.conversation(), 3)
    heard_positions = engine.omni.model.speech_positions(16000)
    assert read[0] == 1 + heard_positions + 1
    assert read[1:] == [1 + 1 + heard_positions + 1] * 2  # the end of the answer, and the next question
    fresh = History(engine.omni)
    for turn in range(3):
        fresh.add(fresh.speech(tiny.question(1.0, seed=turn)))
        heard = Heard()
        engine.reply(fresh.prompt(), heard, SHORT)
        reply = heard.reply()
        assert reply.token_ids == kept[turn].token_ids
        assert reply.units == kept[turn].units
        fresh.add(fresh.answer(reply))


def test_after_an_interruption_the_model_remembers_what_was_heard(engine: Engine) -> None:
    def second(cut: int | None, kept: bool) -> list[int]:
        history, conversation = History(engine.omni), engine.conversation()
        first = converse(engine, history, conversation, 1)[0]
        if cut is not None:
            history.truncate(history.items[-1], first.token_ends[cut - 1])
        return converse(engine, history, conversation if kept else engine.conversation(), 1)[0].token_ids

    assert second(2, kept=True) == second(2, kept=False)


def test_the_oldest_turns_leave_and_memory_stays_bounded(engine: Engine) -> None:
    history, conversation = History(engine.omni, context=100), engine.conversation()
    sizes = []
    for _ in range(30):
        converse(engine, history, conversation, 1)
        assert conversation.positions <= 100
        assert conversation.state is not None
        sizes.append((len(history.items), conversation.state.keys[0].shape[2]))
    assert max(items for items, _ in sizes) <= 10
    assert len({room for _, room in sizes[10:]}) == 1
    assert history.items[-1].role == "assistant"


def test_a_question_that_is_padded_takes_as_much_room_as_the_longest() -> None:
    """Or the oldest turns would stay until the engine has no room for the prompt."""
    omni = tiny.omni(end_ids=(), mel=MelConfig(n_mels=8, pad_to_chunk=True),
                     encoder=replace(tiny.CONFIG.encoder, positions=750),
                     llm_changes={"max_position_embeddings": 1024})
    omni.prompt = replace(omni.prompt, again=(AGAIN,))
    with Engine(omni, EngineSettings(slots=1, context=1000, reply_tokens=24)) as engine:
        history = History(omni, context=engine.context)
        replies = converse(engine, history, engine.conversation(), 4)
    assert [len(reply.token_ids) for reply in replies] == [6] * 4
    speeches = [part for part in history.prompt(room=24) if isinstance(part, Speech)]
    assert [len(part.positions) for part in speeches if part.positions is not None] == [
        omni.model.speech_positions(16_000)] * 2


def test_what_was_said_without_an_answer_between_is_forgotten_too(omni: Omni) -> None:
    for model in (omni, tiny.omni()):
        history = History(model, context=100)
        for seed in range(20):
            history.add(history.speech(tiny.question(1.0, seed)))
            if seed % 5 == 4:
                last = history.prompt(room=20)[-2]
                assert last is history.items[-1].content
        assert sum(model.model.speech_positions(16_000) for _ in history.items) <= 50


def test_an_answer_to_what_was_answered_before_is_not_refused_for_its_answers(omni: Omni) -> None:
    history = History(omni, context=60)
    history.add(said(history, 9, 9, 9))  # a greeting
    history.add(history.text("user", "word1"))
    for _ in range(20):
        assert (7,) in history.prompt(room=20)
        history.add(said(history, *[8] * 19, EOS))
    assert len(history.items) < 5


def test_memory_is_bounded_where_nothing_is_asked(omni: Omni) -> None:
    history = History(omni, context=100)
    for seed in range(50):
        history.add(history.speech(tiny.question(1.0, seed)))
        history.trim()
        assert not history.full
    assert len(history.items) > 1
    history.items.clear()
    history.add(history.text("user", "word1 " * 200))
    history.trim()  # of the only question nothing can be left out
    assert history.full


def test_instructions_that_change_are_not_all_kept(omni: Omni) -> None:
    omni = of_many_turns()
    omni.prompt = replace(omni.prompt, before="word1", system="word1")
    history = History(omni)
    history.add(history.text("user", "word2"))
    for i in range(100):
        history.instructions = f"word{i % 50} " + "word3 " * i
        assert history.prompt()[0][0] == 6 + i % 50  # type: ignore[index]
    assert len(history._pieces) < 50


def test_a_question_that_leaves_no_room(omni: Omni) -> None:
    history = History(omni, context=20)
    history.add(history.speech(tiny.question(3.0)))
    with pytest.raises(AudioError, match=r"question: takes \d+ positions .* this conversation has 20"):
        history.prompt(room=4)


def test_a_text_without_words(omni: Omni) -> None:
    with pytest.raises(ConfigError, match="expected some words"):
        History(omni).text("user", "")
