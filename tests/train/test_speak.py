"""Stage 2 with any LLM: kept states equal computed ones, what fails is explained, and the decoder learns to speak."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from omnivox.checkpoint.load import Loaded
from omnivox.errors import DataError
from omnivox.model.omni import SpokenBatch
from omnivox.train.conversations import InMemory, SpokenConversation
from omnivox.train.examples import Examples
from omnivox.train.settings import Stage2Settings
from omnivox.train.speak import Answers, Speaking, gather, speaking_task
from omnivox.train.start import start
from omnivox.train.states import ComputedStates, KeptStates, keep_states, shard_path, usable
from omnivox.train.symptoms import Alignment, BlankMonitor, too_long, wrong_units
from omnivox.train.trainer import train
from tests.train import spoken


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    loaded = start(spoken.recipe(tmp_path_factory.mktemp("parts")))
    loaded.model.eval().requires_grad_(False)
    return loaded


@pytest.fixture
def settings(tmp_path: Path) -> Stage2Settings:
    return Stage2Settings(lr=1e-3, batch=4, micro_batch=2, precision="float32", workers=0, log_every=1, shard_rows=4,
                          evaluate_every=50, save_every=50, samples=1, max_bad=1)


def examples(loaded: Loaded, rows: int = 6, turns: int = 1) -> Examples:
    assert loaded.tokenizer is not None
    return Examples(spoken.data(rows, turns), loaded.tokenizer, loaded.prompt, loaded.config, spoken=True)


def test_kept_states_are_computed_ones_rounded(loaded: Loaded, settings: Stage2Settings, tmp_path: Path) -> None:
    given = examples(loaded)
    kept = KeptStates(*keep_states(loaded, given, tmp_path, settings))
    computed = ComputedStates(loaded, given, settings).rows(range(6))
    assert len(kept) == 6
    for number, expected in enumerate(computed):
        found = kept.rows([number])[0]
        torch.testing.assert_close(found.states, expected.states.bfloat16().float())
        assert torch.equal(found.units, expected.units)
    assert kept.sizes == [(len(row.states), len(row.units)) for row in computed]


def test_the_loss_is_the_models_own(loaded: Loaded, settings: Stage2Settings) -> None:
    given = examples(loaded)
    batch = given.batch([0, 1])
    answers = gather(ComputedStates(loaded, given, settings).rows([0, 1]))
    own = SpokenBatch(batch.ids, batch.labels, batch.length, batch.mel, batch.mel_length, answers.units,
                      answers.units_length)
    with torch.no_grad():
        expected = loaded.model.stage2_loss(own).loss
        found = Speaking(loaded.model.speech_decoder, settings).eval()(answers)["loss"] / answers.count
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    loaded.model.requires_grad_(False)


def test_every_turn_is_an_answer_of_its_own(loaded: Loaded, settings: Stage2Settings, tmp_path: Path) -> None:
    given = examples(loaded, 4, turns=2)
    kept = KeptStates(*keep_states(loaded, given, tmp_path, settings))
    assert kept.names == ["0", "1", "1", "2", "3", "3"]
    said = [turn.units for row in spoken.data(4, 2).rows for turn in row.turns]
    for number, expected in enumerate(said):
        assert expected is not None
        assert torch.equal(kept.rows([number])[0].units, expected)


def test_a_shard_is_made_once_and_again_where_it_is_damaged(loaded: Loaded, settings: Stage2Settings, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    given = examples(loaded)
    place, shards = keep_states(loaded, given, tmp_path, settings)
    whole = {number: shard_path(place, number).read_bytes() for number in range(shards)}
    shard_path(place, 1).write_bytes(whole[1][:100])
    asked: list[int] = []
    plain = Examples.example
    monkeypatch.setattr(Examples, "example", lambda self, row: (asked.append(row), plain(self, row))[1])
    assert keep_states(loaded, given, tmp_path, settings) == (place, 2)
    assert asked == [4, 5]
    assert {number: shard_path(place, number).read_bytes() for number in range(shards)} == whole
    assert sorted(path.name for path in place.iterdir()) == ["manifest.json", "shard-00000.safetensors",
                                                             "shard-00001.safetensors"]


def test_processes_make_a_shard_each(loaded: Loaded, settings: Stage2Settings, tmp_path: Path) -> None:
    given = examples(loaded)
    place, _ = keep_states(loaded, given, tmp_path / "two", settings, rank=1, world=2)
    assert not shard_path(place, 0).exists()
    place, _ = keep_states(loaded, given, tmp_path / "two", settings, rank=0, world=2)
    alone, _ = keep_states(loaded, given, tmp_path / "one", settings)
    for number in range(2):
        assert shard_path(place, number).read_bytes() == shard_path(alone, number).read_bytes()


def test_other_weights_data_or_states_are_other_folders(loaded: Loaded, settings: Stage2Settings, tmp_path: Path
                                                        ) -> None:
    places = {keep_states(loaded, examples(loaded), tmp_path, settings)[0],
              keep_states(loaded, examples(loaded, 5), tmp_path, settings)[0],
              keep_states(loaded, examples(loaded), tmp_path, replace(settings, states_fed="consumed"))[0]}
    bias = loaded.model.adaptor.linear2.bias.data
    bias += 0.5
    places.add(keep_states(loaded, examples(loaded), tmp_path, settings)[0])
    bias -= 0.5
    assert len(places) == 4


def test_the_decoder_learns_to_speak(loaded: Loaded, settings: Stage2Settings, tmp_path: Path) -> None:
    kept = KeptStates(*keep_states(loaded, examples(loaded), tmp_path / "states", settings))
    numbers = usable(kept, 6, settings)
    settings = replace(settings, lr=1e-2, steps=60, evaluate_every=60, log_every=20)
    task = speaking_task(loaded.model.speech_decoder, Answers(kept, numbers), Answers(kept, numbers[:2]), settings)
    train(task, settings, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[2]["loss"] < 0.7 * lines[0]["loss"]
    assert {"blank_share", "said"} <= lines[0].keys()
    assert 0 < lines[-1]["held_loss"] < lines[0]["loss"]
    assert (tmp_path / "run" / "samples" / "step-00000060" / f"{kept.names[0]}.txt").exists()
    loaded.model.requires_grad_(False)


# -- symptoms ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("units", "said"), [
    ([3, 1, 0, 0, 0, 0], "ends with 4 times the unit 0: padding"), ([3, -1], "holds the unit -1: padding"),
    ([3, 7], "holds the unit 7; the decoder knows 0 to 6: these are another quantiser's"),
    ([1, 1, 2, 2, 3], "has 2 units equal to the one before: repeats are not merged"), ([], "has no units"),
])
def test_units_that_cannot_be_learnt_are_explained(units: list[int], said: str) -> None:
    assert said in str(wrong_units(torch.tensor(units, dtype=torch.long), 7))
    assert wrong_units(torch.tensor([0, 6, 0]), 7) is None


def test_answers_longer_than_their_frames_are_left_out_up_to_a_limit(loaded: Loaded, settings: Stage2Settings,
                                                                     tmp_path: Path) -> None:
    assert "raise decoder.upsample to 4" in str(too_long(7, 2, 3))
    assert too_long(6, 2, 3) is None
    kept = KeptStates(*keep_states(loaded, examples(loaded), tmp_path, settings))
    assert usable(kept, 6, settings) == list(range(6))
    with pytest.raises(DataError, match=r"5 of 6 answers cannot be learnt, more than stage2.max_bad .*raise"):
        usable(kept, 1, settings)
    assert usable(kept, 1, replace(settings, too_long="stretch")) == list(range(6))


def test_bad_rows_are_kept_out_of_the_states_with_their_reason(loaded: Loaded, settings: Stage2Settings, tmp_path: Path
                                                               ) -> None:
    rows = list(spoken.data(4).rows)
    turn = rows[2].turns[0]
    rows[2] = SpokenConversation("padded", (replace(turn, units=torch.tensor([2, 1, 0, 0, 0])),))
    given = examples(loaded)
    given.data = InMemory(rows)
    kept = KeptStates(*keep_states(loaded, given, tmp_path, settings))
    assert kept.names == ["0", "1", "3"]
    assert "padded: its answer ends with 3 times the unit 0" in kept.bad["2"]
    assert usable(kept, 6, settings) == [0, 1, 2]
    with pytest.raises(DataError, match="padded: its answer ends with"):
        usable(kept, 6, replace(settings, max_bad=0))


def test_states_one_position_off_are_noticed() -> None:
    labels, head = torch.arange(20) % 7, torch.nn.Linear(7, 7)
    with torch.no_grad():
        head.weight.copy_(10 * torch.eye(7))
    own, after = torch.eye(7)[labels], torch.eye(7)[labels.roll(-1)]
    for states, fed, right in ((own, "predicting", True), (own, "consumed", False), (after, "predicting", False),
                               (after, "consumed", True)):
        alignment = Alignment()
        alignment.add(states, labels, head)
        if right:
            alignment.check(fed)
        else:
            with pytest.raises(DataError, match="they are one position off"):
                alignment.check(fed)
    unsure = Alignment()
    unsure.add(torch.randn(20, 7) * 0.01, labels, head)
    unsure.check("predicting")


def test_a_decoder_that_stays_silent_is_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    monitor = BlankMonitor(patience=10)
    with caplog.at_level(logging.WARNING):
        monitor(9, {"said": 0.0, "blank_share": 1.0, "loss": 3.0})
        monitor(10, {"said": 0.5, "blank_share": 0.7, "loss": 1.0})
        assert not caplog.records
        for step in (20, 30):
            monitor(step, {"said": 0.02, "blank_share": 0.99, "loss": 3.0})
    assert len(caplog.records) == 1
    assert "collapsed to the blank" in caplog.text
    assert "stage2.lr" in caplog.text
