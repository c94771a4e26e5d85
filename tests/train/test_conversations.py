"""Where conversations come from: memory, JSON lines with sounds beside; and how they become batches."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

from omnivox.errors import DataError
from omnivox.model.omni import IGNORED, SPEECH
from omnivox.train.chat import chat_prompt
from omnivox.train.conversations import InMemory, SpokenConversation, SpokenTurn, hold_out, open_conversations
from omnivox.train.examples import Examples
from tests import tiny
from tests.train import families, spoken


def test_files_hold_what_memory_does(tmp_path: Path) -> None:
    files, memory = open_conversations(spoken.write(tmp_path / "data", 5, turns=2)), spoken.data(5, turns=2)
    assert len(files) == 5
    again = pickle.loads(pickle.dumps(files))
    for number, expected in enumerate(memory.rows):
        found = again[number]
        assert found.id == expected.id
        for one, other in zip(found.turns, expected.turns, strict=True):
            torch.testing.assert_close(one.question, other.question, atol=1e-4, rtol=0)
            assert one.answer == other.answer
            assert one.units is not None
            assert other.units is not None
            assert torch.equal(one.units, other.units)
        size, own = files.sizes[number], memory.sizes[number]
        assert (size.turns, size.answer_characters, size.units) == (own.turns, own.answer_characters, own.units)
        assert size.question_seconds == pytest.approx(own.question_seconds, abs=1e-3)


@pytest.mark.parametrize(("line", "said"), [
    ("{", "cannot be read as JSON lines"), ("{}", "line 1: has no turns"),
    ('{"turns": [{"answer": "x"}]}', "line 1: a turn has no 'question_audio'"),
])
def test_a_line_that_is_no_conversation_is_named(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=said):
        open_conversations(tmp_path)


def test_a_sound_that_is_missing_is_named_with_its_line(tmp_path: Path) -> None:
    turn = {"question_audio": "none.flac", "answer": "x"}
    (tmp_path / "rows.jsonl").write_text("\n" + json.dumps({"turns": [turn]}) + "\n")
    with pytest.raises(DataError, match=r"rows.jsonl, line 2: .*none.flac: no such file"):
        _ = open_conversations(tmp_path)[0]
    with pytest.raises(DataError, match="no such file or folder"):
        open_conversations(tmp_path / "none")


def test_held_out_rows_are_not_trained_on() -> None:
    data = spoken.data(40)
    told, held = hold_out(data, 3, seed=1)
    names = [[part[i].id for i in range(len(part))] for part in (told, held)]
    assert len(names[1]) == 3
    assert not set(names[0]) & set(names[1])
    assert sorted(names[0] + names[1]) == sorted(row.id for row in data.rows)
    assert [hold_out(data, 3, seed=1)[1][i].id for i in range(3)] == names[1]
    assert len(hold_out(data, 100, seed=1)[1]) == 4  # a tenth at most


def examples(rows: list[SpokenConversation], **settings: object) -> Examples:
    tokenizer = families.tokenizer("qwen")
    return Examples(InMemory(rows), tokenizer, chat_prompt(tokenizer, system=None, instruction=""), tiny.CONFIG,
                    **settings)  # type: ignore[arg-type]


def test_a_batch_has_a_mel_for_every_place_of_speech() -> None:
    batch = examples(list(spoken.data(4, turns=2).rows)).batch([0, 1, 3])
    assert (batch.ids == SPEECH).sum(1).tolist() == [1, 2, 2]
    assert len(batch.mel) == len(batch.mel_length) == len(batch.units) == 5
    assert batch.count == int((batch.labels != IGNORED).sum()) > 0
    for b, length in enumerate(batch.length.tolist()):
        assert (batch.labels[b, length:] == IGNORED).all()
    assert batch.bad == ()


def test_bad_rows_are_replaced_and_named() -> None:
    rows = list(spoken.data(4).rows)
    long, nothing = torch.zeros(16_000 * 40), torch.zeros(10)
    rows[0] = SpokenConversation("long", (SpokenTurn(long, "x"),))
    rows[1] = SpokenConversation("short", (SpokenTurn(nothing, "x"),))
    rows[2] = SpokenConversation("silent", (SpokenTurn(torch.zeros(1600), " "),))
    given = examples(rows)
    batch = given.batch([0, 3])
    assert batch.names == ("row-3", "row-3")
    assert [number for number, _ in batch.bad] == ["0", "1", "2"]
    assert "its question lasts 40.00 s; expected up to 8 s" in batch.bad[0][1]
    assert "its answer is empty" in batch.bad[2][1]
    with pytest.raises(DataError, match=r"takes about .* positions; at most 5 are trained on"):
        examples(rows, max_positions=5).example(3)
    with pytest.raises(DataError, match="conversations in a row cannot be used; the first"):
        examples(rows[:3]).batch([0])
    one = SpokenConversation("row-9", (SpokenTurn(torch.zeros(1600), "x"),))
    with pytest.raises(DataError, match="row-9, turn 1: its answer has no units"):
        examples([one], spoken=True).example(0)
