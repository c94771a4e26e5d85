"""Instructions from every layout that is read, and what becomes of records of no use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from omnivox.data import reading
from omnivox.data.manifest import StageFolder
from omnivox.data.records import Clip, Row, Turn
from omnivox.data.sources import SourceSettings, collect
from omnivox.errors import ConfigError, DataError

ALPACA = [{"instruction": "Give three tips.", "input": "", "output": "Eat well."},
          {"instruction": "Sort these.", "input": "3, 1, 2", "output": "1, 2, 3"},
          {"instruction": "Name a colour.", "input": "<noinput>", "output": "", "text": "Below is an instruction"}]
ULTRACHAT = {"id": "7", "data": ["What is tea?", "A drink.", "And coffee?", "Another."]}
MESSAGES = {"prompt": "What is tea?", "prompt_id": "abc", "messages": [
    {"role": "system", "content": "Be kind."}, {"role": "user", "content": "What is tea?"},
    {"role": "assistant", "content": "A drink."}, {"role": "user", "content": "And coffee?"},
    {"role": "assistant", "content": "Another."}]}
SPEECH = {"id": "alpaca_1", "conversation": [
    {"from": "human", "text": "Hey, what's tea?", "speech": "wav/q1.wav"},
    {"from": "gpt", "text": "It's a drink.", "speech": "wav/a1.wav", "unit": [4299, 6559, 12]},
    {"from": "human", "text": "And coffee?", "speech": "wav/none.wav"},
    {"from": "gpt", "text": "Another one.", "unit": "<17><4000>"}]}


def written(path: Path, records: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.suffix == ".jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in records) if lines else json.dumps(records, indent=1))
    return path


def rows(tmp_path: Path, *sources: Path | str, **settings: Any) -> list[Row]:
    build = tmp_path / "build"
    collect(SourceSettings(tuple(map(str, sources)), **settings), build)
    return list(StageFolder(build, "sources").rows())


def reasons(tmp_path: Path) -> list[str]:
    return [one["reason"] for one in StageFolder(tmp_path / "build", "sources").rejections()]


@pytest.mark.parametrize("name", ["alpaca.json", "alpaca.jsonl"])
def test_alpaca(name: str, tmp_path: Path) -> None:
    found = rows(tmp_path, written(tmp_path / name, ALPACA), licence="CC-BY-NC-4.0")
    assert [row.turns for row in found] == [
        (Turn("Give three tips.", reference="Eat well."),), (Turn("Sort these.\n3, 1, 2", reference="1, 2, 3"),),
        (Turn("Name a colour."),)]
    assert {(row.source, row.licence) for row in found} == {(name, "CC-BY-NC-4.0")}
    assert len({row.id for row in found}) == 3


def test_json_lines_in_a_json_file(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    path.write_text(json.dumps(ULTRACHAT) + "\n" + json.dumps(MESSAGES) + "\n")
    assert [row.turns for row in rows(tmp_path, path)] == [(Turn("What is tea?", reference="A drink."),)] * 2


def test_ultrachats_first_turns_or_more(tmp_path: Path) -> None:
    path = written(tmp_path / "u.jsonl", [ULTRACHAT, MESSAGES])
    first = rows(tmp_path / "a", path)
    assert [row.turns for row in first] == [(Turn("What is tea?", reference="A drink."),)] * 2
    more = rows(tmp_path / "b", path, turns=2)
    assert [row.turns for row in more] == [(Turn("What is tea?", reference="A drink."),
                                            Turn("And coffee?", reference="Another."))] * 2


@pytest.mark.parametrize("records", [[ULTRACHAT] * 3, [MESSAGES] * 3, ALPACA])
def test_parquet_reads_as_json_does(records: list[dict[str, Any]], tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "p" / "same.parquet"
    path.parent.mkdir()
    parquet.write_table(arrow.Table.from_pylist(records), path)
    plain = rows(tmp_path / "a", written(tmp_path / "j" / "same.jsonl", records))
    assert [row.turns for row in rows(tmp_path / "b", path)] == [row.turns for row in plain]


def test_a_data_set_saved_by_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    whole = datasets.Dataset.from_list(ALPACA)
    whole.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": whole, "test": whole.select([0])}).save_to_disk(tmp_path / "two")
    assert len(rows(tmp_path / "a", tmp_path / "one")) == 3
    assert len(rows(tmp_path / "b", tmp_path / "two", split="test")) == 1
    with pytest.raises(DataError, match="has no split 'dev'; expected one of train, test"):
        rows(tmp_path / "c", tmp_path / "two", split="dev")


def test_a_data_set_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of `datasets`, and that sounds in it are left alone; the hub itself is out of reach here."""
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_list([{"instruction": "a", "sound": {"bytes": b"no sound", "path": "a.wav"}}])
    made = made.cast_column("sound", datasets.Audio())
    asked: list[Any] = []

    def load(*words: Any, **more: Any) -> Any:
        asked.append((words, more))
        return made.to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load)
    [row] = rows(tmp_path, "tatsu-lab/alpaca", split="test", config="plain")
    assert (row.source, row.licence, row.turns) == ("tatsu-lab/alpaca", "CC-BY-NC-4.0", (Turn("a"),))
    assert asked == [(("tatsu-lab/alpaca", "plain"), {"split": "test", "streaming": True})]


def test_a_name_that_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def load(*words: Any, **more: Any) -> Any:
        raise datasets.exceptions.DatasetNotFoundError("it is not there")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match=r"some/thing: no local file or folder, and no data set .*it is not there"):
        rows(tmp_path, "some/thing")

    def breaks_off() -> Iterator[dict[str, str]]:
        yield {"question": "What?"}
        raise RuntimeError("the line went dead")

    monkeypatch.setattr(datasets, "load_dataset",
                        lambda *_, **__: datasets.IterableDataset.from_generator(breaks_off))
    with pytest.raises(DataError, match=r"some/thing: cannot be read after record 1 \(.*the line went dead\)"):
        rows(tmp_path, "some/thing")


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    written(tmp_path / "f" / "b.jsonl", [{"question": "b"}])
    written(tmp_path / "f" / "a.json", [{"prompt": "a"}])
    (tmp_path / "f" / "README.md").write_text("no data")
    assert [row.turns[0].instruction for row in rows(tmp_path, tmp_path / "f")] == ["a", "b"]


@pytest.mark.parametrize("record", [{"question": "What?", "answer": "That."}, {"prompt": "What?", "response": "That."},
                                    {"text": "What?", "completion": "That."},
                                    {"conversations": [{"from": "human", "value": "What?"},
                                                       {"from": "gpt", "value": "That."}]}])
def test_plain_questions_and_answers(record: dict[str, Any], tmp_path: Path) -> None:
    assert rows(tmp_path, written(tmp_path / "p.jsonl", [record]))[0].turns == (Turn("What?", reference="That."),)


def test_files_of_one_name_are_not_one_source(tmp_path: Path) -> None:
    """Rows are spoken into files that are called by their ids: the same question twice may have two answers."""
    same = [written(tmp_path / folder / "train.jsonl", [{"question": "What?", "answer": folder}]) for folder in "ab"]
    found = rows(tmp_path, *same)
    assert [row.turns[0].reference for row in found] == ["a", "b"]
    assert len({row.id for row in found}) == 2
    assert [row.source for row in found] == [str(path) for path in same]
    assert rows(tmp_path / "one", same[0])[0].source == "train.jsonl"


def test_a_files_name_may_be_any_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    try:
        written(folder / "caf\udce9.jsonl", [{"question": "What?"}, {"colour": "red"}])
    except OSError:
        pytest.skip("this file system knows UTF-8 alone")
    assert rows(tmp_path / "a", folder / "caf\udce9.jsonl")[0].source == "caf\ufffd.jsonl"
    assert rows(tmp_path / "b", folder)[0].source == "some"
    assert reasons(tmp_path / "b")[0].endswith("(caf\ufffd.jsonl:2)")


def test_a_run_that_found_nothing_of_use_is_no_hindrance(tmp_path: Path) -> None:
    path = written(tmp_path / "c.jsonl", [{"colour": "red"}] * 3)
    for _ in range(2):
        with pytest.raises(DataError, match="holds no row of use"):
            rows(tmp_path, path, shard_rows=1)
    written(path, [{"question": "What?"}])
    assert len(rows(tmp_path, path, shard_rows=2)) == 1
    assert sorted(file.name for file in (tmp_path / "build" / "sources").glob("shard-*")) == [
        "shard-00000.jsonl", "shard-00000.rejected"]


# -- published speech -------------------------------------------------------------------------------------------------

def test_units_of_another_tokenizer_are_refused_with_a_way_out(tmp_path: Path) -> None:
    path = written(tmp_path / "instruct_en.json", [SPEECH])
    with pytest.raises(DataError) as error:
        rows(tmp_path, path)
    for words in ["instruct_en.json:1", "found 3 units up to 6559", "CosyVoice", "--reextract", "'quantise'"]:
        assert words in str(error.value)
    assert not list((tmp_path / "build" / "sources").glob("shard-*"))
    late = written(tmp_path / "late.json", [{"question": "fine"}, SPEECH])
    with pytest.raises(DataError, match=r"late\.json:2: unit: found 3"):
        rows(tmp_path / "late", late, shard_rows=1)
    assert len(rows(tmp_path / "late", late, shard_rows=1, reextract=True)) == 2  # the way out is open


def test_published_conversations_are_speech_already(tmp_path: Path) -> None:
    path = written(tmp_path / "instruct_en.json", [SPEECH])
    (tmp_path / "wav").mkdir()
    soundfile.write(tmp_path / "wav" / "q1.wav", np.zeros(8000), 16000)
    [row] = rows(tmp_path, path, reextract=True)
    [first, second] = row.turns
    assert first == Turn("Hey, what's tea?", "It's a drink.", "Hey, what's tea?", "It's a drink.",
                         Clip(str(tmp_path / "wav" / "q1.wav"), 0.5))
    assert second == Turn("And coffee?", "Another one.", "And coffee?", "Another one.")
    assert len(rows(tmp_path / "one", path, reextract=True, turns=1)[0].turns) == 1


def test_a_sound_that_cannot_be_read_costs_its_row(tmp_path: Path) -> None:
    path = written(tmp_path / "s.json", [SPEECH, {"question": "fine"}])
    (tmp_path / "wav").mkdir()
    (tmp_path / "wav" / "q1.wav").write_text("no sound")
    assert len(rows(tmp_path, path, reextract=True)) == 1
    assert reasons(tmp_path)[0].startswith("sound: ")


# -- records of no use ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("line", "why"), [
    ('{"instruction": "half', "broken: not JSON"), ("[1, 2]", "broken: found a JSON list"), ("", "broken: empty line"),
    ('{"instruction": ""}', "empty: "), ('{"instruction": 5}', "broken: instruction is int"),
    ('{"colour": "red"}', "layout: found the fields colour; expected one of instruction, question"),
    ('{"data": []}', "empty: "), ('{"messages": [{"role": "assistant", "content": "a"}]}', "order: "),
    ('{"conversations": [{"from": "human", "value": "<speech>\\nAnswer."}]}', "wordless: "),
    ('{"conversation": [{"from": "gpt", "text": "a"}]}', "order: "),
    ('{"instruction": "Half \\ud83d a smile?"}', "broken: holds half a character"),
    ('{"instruction": "a", "\\uDE00": 1}', "broken: holds half a character"),
    (f'{{"instruction": {"[" * 100_000}', "broken: nested too deeply"),
    (f'{{"conversation": [{{"from": "human", "text": "a", "speech": "{"A" * 5_000}"}}]}}',
     f"sound: '{'A' * 40}' is no path of a file")])
def test_a_record_of_no_use_is_left_out_with_its_reason_and_place(line: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    path.write_text('{"instruction": "a"}\n' + line + '\n{"instruction": "b"}\n')
    assert [row.turns[0].instruction for row in rows(tmp_path, path)] == ["a", "b"]
    [reason] = reasons(tmp_path)
    assert reason.startswith(why)
    assert reason.endswith("(mixed.jsonl:2)")


def test_bytes_that_are_no_text_cost_their_line(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    path.write_bytes(b'{"instruction": "a"}\n{"instruction": "\xff\xfe"}\n')
    assert len(rows(tmp_path, path)) == 1
    assert reasons(tmp_path)[0].startswith("broken: not UTF-8")


def test_half_a_character_in_an_array_costs_its_record(tmp_path: Path) -> None:
    some = ["a", "\ud83d", "\U0001f600"]
    path = written(tmp_path / "h.json", [*({"question": one} for one in some), "\ud83d"])
    assert [row.turns[0].instruction for row in rows(tmp_path, path)] == ["a", "\U0001f600"]
    assert [reason.partition(":")[0] for reason in reasons(tmp_path)] == ["broken", "broken"]


def test_an_array_nested_too_deeply_is_told(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text('[{"question": "a"}, {"question": ' + "[" * 100_000)
    with pytest.raises(DataError, match=r"deep\.json: record 2 is nested too deeply"):
        rows(tmp_path, path)


def test_bytes_that_are_no_text_cost_their_row_of_a_parquet_file(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    texts = arrow.array([b"a", b"\xff\xfe", b"b"], arrow.binary()).view(arrow.string())
    parquet.write_table(arrow.table({"question": texts}), tmp_path / "b.parquet")
    assert [row.turns[0].instruction for row in rows(tmp_path, tmp_path / "b.parquet")] == ["a", "b"]
    [reason] = reasons(tmp_path)
    assert reason.startswith("broken: holds what is no value of its column ('utf-8' codec")
    assert reason.endswith("(b.parquet:2)")


def test_a_unit_of_many_digits_is_refused_as_any(tmp_path: Path) -> None:
    unit = {**SPEECH["conversation"][1], "unit": "9" * 5_000}  # type: ignore[dict-item]
    path = written(tmp_path / "u.json", [{"conversation": [SPEECH["conversation"][0], unit]}])
    with pytest.raises(DataError, match="published conversations hold those of another tokenizer"):
        rows(tmp_path, path)


def test_nothing_of_use_is_an_error_that_says_why(tmp_path: Path) -> None:
    path = written(tmp_path / "c.jsonl", [{"colour": "red"}] * 3)
    with pytest.raises(DataError, match="holds no row of use; the first was left out because: layout: found"):
        rows(tmp_path, path)
    with pytest.raises(DataError, match="holds no record"):
        rows(tmp_path / "other", written(tmp_path / "e.json", []))


@pytest.mark.parametrize(("name", "said"), [
    ("none.json", "no such file or folder"), ("notes.txt", r"found a \.txt file"), ("empty", "holds no"),
    ("bad.parquet", "no Parquet file that can be read"), ("cut.json", "the array ends inside or after record 2")])
def test_a_source_that_cannot_be_read(name: str, said: str, tmp_path: Path) -> None:
    if "parquet" in name:
        pytest.importorskip("pyarrow")
    for file in ("notes.txt", "bad.parquet"):
        (tmp_path / file).write_text("hello")
    (tmp_path / "cut.json").write_text(json.dumps(ALPACA)[:-30])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=said) as error:
        rows(tmp_path, tmp_path / name)
    assert name in str(error.value)


def test_settings_that_make_no_sense(tmp_path: Path) -> None:
    for settings, said in [({"sources": ()}, "none is given"), ({"sources": ("a", "a")}, "given twice"),
                           ({"sources": ("a",), "limit": 0}, "limit: found 0")]:
        with pytest.raises(ConfigError, match=said):
            SourceSettings(**settings)


# -- reading at length ------------------------------------------------------------------------------------------------

def test_a_long_array_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of any size cut it anywhere: in numbers, in escapes, between records."""
    records: list[Any] = [{"instruction": f"\u00e9\"{'x' * (i % 17)}\n", "n": 12345 * i} for i in range(40)]
    records += [17, "text"]
    path = written(tmp_path / "long.json", records)
    for size in (1, 2, 7, 64, 1000):
        monkeypatch.setattr(reading, "CHUNK", size)
        found = [record for _, record in reading.read_records(str(path))]
        assert found[:40] == records[:40]
        assert all(isinstance(one, reading.Broken) for one in found[40:])
        assert len(found) == 42


def test_shards_limits_and_ids_do_not_depend_on_each_other(tmp_path: Path) -> None:
    path = written(tmp_path / "n.jsonl", [{"instruction": f"number {i}"} for i in range(10)])
    small = rows(tmp_path / "a", path, shard_rows=3)
    assert len(list((tmp_path / "a" / "build" / "sources").glob("shard-*.jsonl"))) == 4
    assert rows(tmp_path / "b", path, limit=5) == small[:5]
    again = rows(tmp_path / "a", path, shard_rows=3)
    assert again == small


def test_a_source_that_has_changed_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path / "n.jsonl", [{"instruction": "one"}])
    rows(tmp_path, path)
    written(path, [{"instruction": "two"}])
    with pytest.raises(DataError, match="made from another input than there is now"):
        rows(tmp_path, path)
    with pytest.raises(DataError, match="limit was None, now 4 is asked for"):
        rows(tmp_path, path, limit=4)
