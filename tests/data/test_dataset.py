"""Training from Parquet: order, sizes, and whatever may be wrong with a file or a row."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from omnivox.data.dataset import SpokenDataset, SpokenDialogue
from omnivox.data.manifest import StageFolder
from omnivox.errors import DataError
from tests.data.speaking import rows
from tests.data.test_write import built

pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install '.[data]'")
pa = pytest.importorskip("pyarrow")


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("dataset"), rows(8, turns=2))


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A written folder to be damaged."""
    return Path(shutil.copytree(pristine / "write", tmp_path / "write"))


def test_it_holds_what_was_written(pristine: Path) -> None:
    expected = list(StageFolder(pristine, "write").rows())
    data = SpokenDataset(pristine / "write", answer_audio=True)
    assert len(data) == len(data.sizes) == len(expected) == 8
    assert data.units == 9
    for dialogue, sizes, row in zip(data, data.sizes, expected, strict=True):
        assert dialogue.id == sizes.id == row.id
        assert sizes.turns == len(dialogue.turns) == 2
        assert sizes.question_seconds == pytest.approx(sum(len(turn.question) for turn in dialogue.turns) / 16_000,
                                                       abs=2e-3)
        assert sizes.units == sum(len(turn.units) for turn in dialogue.turns if turn.units is not None)
        assert sizes.answer_words == sum(len((turn.answer or "").split()) for turn in row.turns)
        for found, turn in zip(dialogue.turns, row.turns, strict=True):
            assert (found.question_text, found.answer) == (turn.question, turn.answer)
            assert found.units is not None
            assert tuple(found.units.tolist()) == turn.units
            assert turn.question_audio is not None
            assert turn.answer_audio is not None
            for wave, clip in ((found.question, turn.question_audio), (found.answer_audio, turn.answer_audio)):
                samples, _ = soundfile.read(pristine / clip.path, dtype="float32")
                assert torch.equal(wave, torch.from_numpy(samples))
    assert SpokenDataset(pristine / "write")[0].turns[0].answer_audio is None
    assert data[-1].id == expected[-1].id
    with pytest.raises(IndexError):
        data[8]


def test_any_order_and_any_process_gives_the_same(folder: Path) -> None:
    data = SpokenDataset(folder)
    first = [data[i] for i in range(8)]
    again = pickle.loads(pickle.dumps(data))
    for index in (7, 0, 3, 6, 1, 7):
        assert torch.equal(again[index].turns[0].question, first[index].turns[0].question)
    loader = DataLoader(data, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert [dialogue.id for dialogue in loader] == [dialogue.id for dialogue in first]


def test_a_folder_of_parquet_alone_will_do(folder: Path) -> None:
    (folder / "dataset.json").unlink()
    data = SpokenDataset(folder)
    assert len(data) == 8
    assert data.units is None


def test_a_file_without_rows_holds_nothing(folder: Path) -> None:
    (folder / "dataset.json").unlink()
    empty = pq.read_table(folder / "data" / "train-00000003.parquet").slice(0, 0)
    pq.write_table(empty, folder / "data" / "train-00000003.parquet")
    assert len(SpokenDataset(folder)) == 5


# -- what may be wrong ------------------------------------------------------------------------------------------------

def rewritten(file: Path, row: int, **changes: object) -> None:
    table = pq.read_table(file)
    lines = table.to_pylist()
    lines[row] |= changes
    pq.write_table(pa.Table.from_pylist(lines, table.schema), file)


@pytest.mark.parametrize(("changes", "message"), [
    ({"answer": " "}, "turn 2: answer is empty; expected words"),
    ({"question": None}, "turn 2: question is empty"),
    ({"units": [1, 9, 2]}, "turn 2: units are 1 to 9; expected 0 to 8"),
    ({"units": [-1]}, "turn 2: units are -1 to -1; expected 0 to 8"),
    ({"question_audio": {"bytes": b"fLaC", "path": ""}}, "turn 2: question_audio: cannot be decoded"),
    ({"question_audio": None}, "turn 2: question_audio: holds no sound"),
])
def test_a_bad_row_is_named_skipped_and_counted(changes: dict[str, object], message: str, folder: Path) -> None:
    rewritten(folder / "data" / "train-00000003.parquet", 3, **changes)  # the fifth conversation's second turn
    data = SpokenDataset(folder, max_bad=1)
    with pytest.raises(DataError, match=rf"train-00000003\.parquet: conversation {data.sizes[4].id}, {message}"):
        data[4]
    found = [data.get(i) for i in range(8)]
    assert [one is None for one in found] == [i == 4 for i in range(8)]
    assert data.get(4) is None  # counted once
    assert list(data.bad) == [4]
    assert message in data.bad[4]
    strict = SpokenDataset(folder)
    assert isinstance(strict.get(3), SpokenDialogue)
    with pytest.raises(DataError, match="1 bad conversations, more than the 0 allowed"):
        strict.get(4)


@pytest.mark.parametrize(("rows", "said"), [
    ({"instruction": ["a"], "output": ["b"]}, "no column id; expected those of a build"),
    ({"id": ["a"], "turn": [0], "answer": [5], "units": ["x"], "question_seconds": ["y"]}, "unsupported operand")])
def test_parquet_of_another_kind_is_told(rows: dict[str, list[object]], said: str, tmp_path: Path) -> None:
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=rf"a\.parquet: cannot be read \({said}"):
        SpokenDataset(tmp_path)


def test_a_damaged_page_is_seen(folder: Path) -> None:
    """One flipped bit in the middle of a file's sound."""
    file = folder / "data" / "train-00000000.parquet"
    column = pq.ParquetFile(file).metadata.row_group(0)
    chunk = next(column.column(i) for i in range(column.num_columns)
                 if column.column(i).path_in_schema == "question_audio.bytes")
    content = bytearray(file.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 1
    file.write_bytes(content)
    data = SpokenDataset(folder, max_bad=3)
    assert [data.get(i) is None for i in range(8)] == [i < 3 for i in range(8)]
    assert all("cannot be read" in reason for reason in data.bad.values())


@pytest.mark.parametrize("damage", ["cut", "removed"])
def test_a_lost_shard_keeps_the_places_of_the_others(damage: str, folder: Path) -> None:
    whole = SpokenDataset(folder)
    file = folder / "data" / "train-00000003.parquet"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        file.unlink()
    with pytest.raises(DataError, match=r"train-00000003\.parquet: cannot be read"):
        SpokenDataset(folder)
    with pytest.raises(DataError, match="3 bad conversations, more than the 2 allowed"):
        SpokenDataset(folder, max_bad=2)
    data = SpokenDataset(folder, max_bad=3)
    assert len(data) == 8
    assert sorted(data.bad) == [3, 4, 5]
    assert data.get(4) is None
    assert data.sizes[4].units == 0
    assert data.sizes[6] == whole.sizes[6]
    assert torch.equal(data[6].turns[1].question, whole[6].turns[1].question)


def test_folders_that_are_none(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match="holds no Parquet files; expected a build's folder 'write'"):
        SpokenDataset(tmp_path / "nowhere")
    (folder / "dataset.json").write_text(json.dumps({"shards": [{"file": "x"}]}))
    with pytest.raises(DataError, match=r"dataset\.json: cannot be read"):
        SpokenDataset(folder)
