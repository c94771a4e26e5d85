"""Rows on disk and back, and what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnivox.data.records import Clip, Row, Turn, from_json, row_id, to_json
from omnivox.errors import DataError

TEXT = st.text(max_size=20)
CLIPS = st.builds(Clip, TEXT, st.floats(0, 1e4), TEXT)
TURNS = st.builds(Turn, TEXT, st.none() | TEXT, st.none() | TEXT, st.none() | TEXT, st.none() | CLIPS,
                  st.none() | CLIPS, st.none() | st.lists(st.integers(0, 999), max_size=5).map(tuple))
ROWS = st.builds(Row, TEXT, TEXT, TEXT, st.lists(TURNS, min_size=1, max_size=3).map(tuple),
                 st.dictionaries(TEXT, st.floats(-1e6, 1e6), max_size=3))
ROW = Row("a1", "alpaca.json", "MIT", (Turn("Name 3 colours.", units=(3, 1, 4)),))


@given(ROWS)
def test_a_row_comes_back_as_it_went(row: Row) -> None:
    line = to_json(row)
    assert "\n" not in line
    assert from_json(line) == row
    assert to_json(from_json(line)) == line


def test_what_is_not_there_is_not_written() -> None:
    assert json.loads(to_json(ROW)) == {
        "id": "a1", "source": "alpaca.json", "licence": "MIT",
        "turns": [{"instruction": "Name 3 colours.", "units": [3, 1, 4]}]}


@pytest.mark.parametrize(("change", "said"), [
    ({"turns": []}, "turns is empty"),
    ({"turns": "none"}, "turns: found \"none\"; expected a list of turns"),
    ({"turns": [{"question": "so?"}]}, "turns[0]: instruction is missing"),
    ({"turns": [{"instruction": 3}]}, "turns[0]: instruction: found 3; expected a string"),
    ({"turns": [{"instruction": "a", "units": [1, -1]}]}, "units: found [1, -1]; expected a list of whole numbers"),
    ({"turns": [{"instruction": "a", "units": [1, True]}]}, "units"),
    ({"turns": [{"instruction": "a", "answer_audio": {"path": "a.flac"}}]}, "answer_audio: seconds is missing"),
    ({"turns": [{"instruction": "a", "answer_audio": {"path": "a", "seconds": -1}}]}, "seconds: found -1"),
    ({"colour": "red"}, "unknown field 'colour'; expected id, source"),
    ({"scores": {"wer": None}}, "scores: found"),
    ({"id": None}, "id: found null"),
])
def test_an_odd_field_is_named(change: dict[str, object], said: str) -> None:
    found = json.loads(to_json(ROW)) | change
    with pytest.raises(DataError, match=r"^shard-00000\.jsonl:7: ") as error:
        from_json(json.dumps(found), "shard-00000.jsonl:7")
    assert said in str(error.value)


def test_half_a_line_is_refused() -> None:
    with pytest.raises(DataError, match="not JSON"):
        from_json(to_json(ROW)[:30])


def test_ids_tell_source_place_and_text_apart() -> None:
    assert len({row_id("a", 1, "x"), row_id("b", 1, "x"), row_id("a", 2, "x"), row_id("a", 1, "y")}) == 4
    assert row_id("a", 1, "x") == row_id("a", "1", "x")


def test_random_numbers_are_the_rows_own() -> None:
    other = Row("a2", "s", "", ROW.turns)
    draws = [row.rng(purpose, seed).random() for row, purpose, seed in
             [(ROW, "voice", 0), (ROW, "filler", 0), (ROW, "voice", 1), (other, "voice", 0)]]
    assert len(set(draws)) == 4
    assert ROW.rng("voice", 0).random() == draws[0]
