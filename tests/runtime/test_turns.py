"""Who speaks: pauses, interruptions, and the real detector."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from silero_vad import load_silero_vad
from torch import Tensor

from omnivox.runtime.turns import (
    BLOCK,
    Began,
    Ears,
    Ended,
    Paused,
    Resumed,
    Silero,
    Turn,
    TurnSettings,
    blocks_ms,
)
from omnivox.sound import read_audio
from tests.runtime.test_chat import Script, numbered

SETTINGS = TurnSettings(prefix_ms=blocks_ms(2), silence_ms=blocks_ms(5), min_speech_ms=blocks_ms(3),
                        interrupt_ms=blocks_ms(8), pause_ms=blocks_ms(2))


def listen(probabilities: Sequence[float], audible: bool = False, settings: TurnSettings = SETTINGS) -> list[Turn]:
    return list(Ears(Script(probabilities), settings).hear(numbered(len(probabilities)), audible))


def kinds(turns: Sequence[Turn]) -> list[str]:
    return [type(turn).__name__ for turn in turns]


def test_a_turn_with_a_pause_in_it() -> None:
    turns = listen([0.0] * 4 + [0.9] * 4 + [0.0] * 3 + [0.9] * 2 + [0.0] * 6)
    assert kinds(turns) == ["Began", "Paused", "Resumed", "Paused", "Ended"]
    began, paused, resumed, _, ended = turns
    assert isinstance(began, Began)
    assert began.at == 2 * BLOCK  # with its prefix
    assert isinstance(paused, Paused)
    assert paused.samples.view(-1, BLOCK)[:, 0].tolist() == list(range(2, 10))
    assert isinstance(resumed, Resumed)
    assert isinstance(ended, Ended)
    assert ended.samples.view(-1, BLOCK)[:, 0].tolist() == list(range(2, 18))
    assert ended.silence == 5 * BLOCK


@pytest.mark.parametrize(("speech", "interrupts"), [(3, False), (7, False), (8, True)])
def test_a_cough_interrupts_nobody(speech: int, interrupts: bool) -> None:
    turns = listen([0.0] * 2 + [0.9] * speech + [0.0] * 8, audible=True)
    assert ("Began" in kinds(turns)) == interrupts
    assert kinds(listen([0.0] * 2 + [0.9] * speech + [0.0] * 8))[0] == "Began"


def test_a_turn_that_began_before_the_answer_sounded_goes_on() -> None:
    ears = Ears(Script([0.9] * 4 + [0.0] * 6), SETTINGS)
    turns = [*ears.hear(numbered(4)), *ears.hear(numbered(6), audible=True)]
    assert kinds(turns) == ["Began", "Paused", "Ended"]


@pytest.mark.parametrize(("seconds", "blocks"), [(30.0, 937), (1.0, 31), (blocks_ms(16) / 1000, 16)])
def test_no_turn_is_longer_than_it_may_be(seconds: float, blocks: int) -> None:
    ended = [turn for turn in listen([0.9] * 1000, settings=TurnSettings(max_seconds=seconds))
             if isinstance(turn, Ended)]
    assert {len(turn.samples) for turn in ended} == {blocks * BLOCK}
    assert blocks * BLOCK <= seconds * 16_000 < (blocks + 1) * BLOCK


def test_the_pause_may_be_set_while_it_lasts_and_is_forgotten_when_speech_goes_on() -> None:
    ears = Ears(Script([0.9] * 4 + [0.0] * 3 + [0.9] + [0.0] * 9), SETTINGS)
    turns = list(ears.hear(numbered(6)))
    assert kinds(turns) == ["Began", "Paused"]
    ears.silence_ms = blocks_ms(9)
    assert kinds(list(ears.hear(numbered(2)))) == ["Resumed"]
    assert ears.silence_ms == SETTINGS.silence_ms
    list(ears.hear(numbered(2)))
    ears.silence_ms = blocks_ms(3)
    assert kinds(list(ears.hear(numbered(1)))) == ["Ended"]


@given(st.lists(st.sampled_from([0.0, 0.3, 0.45, 0.9]), max_size=60), st.lists(st.integers(1, 3000), max_size=12))
def test_turns_do_not_depend_on_how_the_sound_is_cut(probabilities: list[float], cuts: list[int]) -> None:
    whole = numbered(len(probabilities))
    ears = Ears(Script(probabilities), SETTINGS)
    turns, rest = [], whole
    for cut in cuts:
        turns += list(ears.hear(rest[:cut]))
        rest = rest[cut:]
    turns += list(ears.hear(rest))
    expected = listen(probabilities)
    assert kinds(turns) == kinds(expected)
    for found, wanted in zip(turns, expected, strict=True):
        assert found.at == wanted.at
        if isinstance(found, Ended | Paused) and isinstance(wanted, Ended | Paused):
            assert torch.equal(found.samples, wanted.samples)


def blocks(wave: Tensor) -> list[Tensor]:
    return [block for block in wave.split(BLOCK) if len(block) == BLOCK]


def test_two_listeners_share_a_network_and_no_memory() -> None:
    heard = blocks(read_audio("docs/question.wav"))
    model = load_silero_vad()
    model.reset_states()
    with torch.inference_mode():
        expected = [float(model(block, 16000)) for block in heard]
    one, other = Silero(), Silero()
    found = []
    for i, block in enumerate(heard):
        found.append(one(block))
        other(heard[-1 - i])
    assert found == pytest.approx(expected, abs=1e-5)
    one.reset()
    assert one(heard[0]) == pytest.approx(expected[0], abs=1e-5)
