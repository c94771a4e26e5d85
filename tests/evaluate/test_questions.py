"""Sets of questions: the bundled, folders of sounds, built data; and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnivox.errors import ConfigError, DataError
from omnivox.evaluate.questions import find_questions
from omnivox.nano.questions import held_out
from tests.evaluate.answering import write_questions


def test_the_bundled_set_is_nanos_own() -> None:
    found, held = find_questions("nano"), held_out("seen_voice")
    assert len(found) == len(held) == 200
    assert found[7].text == held[7].question
    assert found.answers[7] == found[7].answer == held[7].answer
    assert found[7].audio.tolist() == held[7].audio.tolist()
    assert found[7].topic == held[7].topic
    assert found.ids[7] == found[7].id == "seen_voice-007"


def test_other_kinds_of_the_bundled_set() -> None:
    assert find_questions("nano:decline").ids[0] == "decline-000"
    assert find_questions("nano:decline").digest != find_questions("nano:new_voice").digest
    with pytest.raises(ConfigError, match=r"'nano:loud'; expected nano, or nano: with one of seen_voice, new_voice"):
        find_questions("nano:loud")


def test_a_folder_of_sounds(tmp_path: Path) -> None:
    found = find_questions(str(write_questions(tmp_path / "some")))
    assert (found.name, found.ids, len(found)) == ("some", ("q0", "q1", "q2", "q3", "q4"), 5)
    assert [len(one.audio) for one in found] == [1600, 1700, 1800, 1900, 2000]
    assert [one.text for one in found][1] == "how long is 1?"
    assert found.answers[1] == "it was 1700 long"


def test_the_digest_tells_sets_apart(tmp_path: Path) -> None:
    first = find_questions(str(write_questions(tmp_path / "a"))).digest
    assert find_questions(str(write_questions(tmp_path / "b"))).digest == first
    write_questions(tmp_path / "b", 4)
    assert find_questions(str(tmp_path / "b")).digest != first
    rows = (tmp_path / "a" / "questions.jsonl").read_text()
    (tmp_path / "a" / "questions.jsonl").write_text(rows.replace("how long is 3", "how long was 3"))
    assert find_questions(str(tmp_path / "a")).digest != first


@pytest.mark.parametrize(("line", "said"), [
    ("{", r"questions.jsonl:2: is no JSON"), ("[]", r"questions.jsonl:2: found '\[\]'; expected"),
    ('{"id": 3, "text": "a", "audio": "0.wav"}', "questions.jsonl:2: id is 3; expected a string"),
    ('{"id": "x", "audio": "0.wav"}', "questions.jsonl:2: text is None; expected a string"),
    ('{"id": "x", "text": "a", "audio": "0.wav", "answer": 4}', "questions.jsonl:2: answer is 4"),
    ('{"id": "x", "text": "a", "audio": "none.wav"}', "questions.jsonl:2: audio: no file"),
    (f'{{"id": "x", "text": "a", "audio": "{"a" * 5_000}"}}', "questions.jsonl:2: audio: no file"),
    ('{"id": "x", "text": "a \\ud83d", "audio": "0.wav"}', "questions.jsonl:2: holds half a character"),
    ("[" * 100_000, "questions.jsonl:2: is no JSON"),
    ('{"id": "../x", "text": "a", "audio": "0.wav"}', r"id '../x'; expected letters"),
    ('{"id": "q0", "text": "a", "audio": "0.wav"}', "id 'q0' stands there 2 times")])
def test_a_line_that_makes_no_sense(line: str, said: str, tmp_path: Path) -> None:
    write_questions(tmp_path, 1)
    with (tmp_path / "questions.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=said):
        find_questions(str(tmp_path))


def test_a_list_that_is_not_utf_8(tmp_path: Path) -> None:
    write_questions(tmp_path, 1)
    with (tmp_path / "questions.jsonl").open("ab") as file:
        file.write('{"id": "x", "text": "café", "audio": "0.wav"}\n'.encode("latin-1"))
    with pytest.raises(DataError, match=r"questions\.jsonl:2: is not UTF-8 \(.* at byte 24\)"):
        find_questions(str(tmp_path))


def test_an_editors_mark_before_utf_8_is_passed_over(tmp_path: Path) -> None:
    write_questions(tmp_path, 1)
    file = tmp_path / "questions.jsonl"
    file.write_text(file.read_text(), encoding="utf-8-sig")
    assert find_questions(str(tmp_path)).ids == ("q0",)


def test_a_sound_that_is_none(tmp_path: Path) -> None:
    write_questions(tmp_path, 2)
    (tmp_path / "1.wav").write_text("a letter")
    found = find_questions(str(tmp_path))
    with pytest.raises(DataError, match=r"question q1: .*1.wav: not a sound file"):
        found[1]


def test_parquet_whose_conversations_have_no_ids(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"id": [None, "b"], "turn": [0, 0], "answer": ["a", "b"], "units": [[1], [2]],
               "question_seconds": [1.0, 2.0]}
    parquet.write_table(arrow.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="id None; expected letters"):
        find_questions(str(tmp_path))


def test_an_empty_set_and_no_set(tmp_path: Path) -> None:
    (tmp_path / "questions.jsonl").write_text("\n")
    with pytest.raises(DataError, match="holds no questions"):
        find_questions(str(tmp_path))
    with pytest.raises(ConfigError, match=r"found 'nothing'; expected nano, nano:KIND, or a folder"):
        find_questions("nothing")


def test_a_built_data_set(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from tests.data.speaking import rows
    from tests.data.test_write import built

    asked = rows(3, turns=2)
    found = find_questions(str(built(tmp_path, asked)))
    assert (found.name, len(found), found.answers) == ("build", 3, (None, None, None))
    assert found.ids == tuple(row.id for row in asked)
    assert found[2].text == asked[2].turns[0].question
    assert found[2].id == asked[2].id
    assert len(found[2].audio) > 1000
    assert find_questions(str(tmp_path / "build" / "write")).digest == found.digest
