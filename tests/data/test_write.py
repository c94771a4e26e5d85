"""Stage 7: Parquet that others read too, the card, the page."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from omnivox.data.card import PAPER, Statistics, card, finish_dataset, markdown
from omnivox.data.filter import FilterStage
from omnivox.data.manifest import StageFolder
from omnivox.data.quantise import QuantiseStage
from omnivox.data.records import Clip, Row
from omnivox.data.sayable import words
from omnivox.data.speak import SpeakStage
from omnivox.data.stage import run_stage
from omnivox.data.write import WriteStage
from omnivox.errors import DataError
from tests.data.speaking import ANSWERING, ASKING, rows, units_file, written

pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install '.[data]'")


def built(folder: Path, some: list[Row]) -> Path:
    """Every stage from the answers on."""
    build = written(folder / "build", some)
    stages = [SpeakStage(ASKING, ANSWERING), QuantiseStage(units_file(folder / "units.safetensors")), FilterStage(),
              WriteStage()]
    after = "answer"
    for stage in stages:
        run_stage(stage, build, after)
        after = stage.name
    finish_dataset(build, preview=2)
    return build


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    some = rows(8, turns=2, source="made up | here")
    some[4] = some[4].with_turns([replace(some[4].turns[0], answer="unspeakable <b>")])
    return built(tmp_path_factory.mktemp("write"), some)


def parquet(build: Path) -> list[Path]:
    return sorted((build / "write" / "data").glob("train-*.parquet"))


def test_every_turn_stands_in_its_place(build: Path) -> None:
    expected = list(StageFolder(build, "filter").rows())
    assert len(expected) == 7
    assert [file.name for file in parquet(build)] == [f"train-{place:08d}.parquet" for place in (0, 3, 5)]
    lines = [line for file in parquet(build) for line in pq.read_table(file).to_pylist()]
    assert [(line["id"], line["turn"], line["turns"]) for line in lines] == [
        (row.id, turn, 2) for row in expected for turn in (0, 1)]
    pairs = [(row, turn) for row in expected for turn in row.turns]
    for line, (row, turn) in zip(lines, pairs, strict=True):
        assert (line["question"], line["answer"], line["instruction"]) == (turn.question, turn.answer, turn.instruction)
        assert (line["source"], line["licence"]) == (row.source, row.licence)
        assert tuple(line["units"]) == turn.units
        assert json.loads(line["scores"]) == row.scores
        for side, clip in (("question", turn.question_audio), ("answer", turn.answer_audio)):
            assert clip is not None
            assert line[f"{side}_voice"] == clip.voice
            assert line[f"{side}_audio"]["bytes"] == (build / clip.path).read_bytes()


def test_datasets_reads_it(build: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install '.[data]'")
    plain = datasets.Dataset.from_parquet([str(file) for file in parquet(build)], cache_dir=str(build.parent / "cache"))
    assert len(plain) == 14
    for name in ("question_audio", "answer_audio"):
        assert plain.features[name] == datasets.Audio(sampling_rate=16_000)
        plain = plain.cast_column(name, datasets.Audio(decode=False))  # decoding asks for torchcodec
    samples, rate = soundfile.read(io.BytesIO(plain[3]["question_audio"]["bytes"]))
    assert rate == 16_000
    assert len(samples) == pytest.approx(16_000 * plain[3]["question_seconds"], abs=16)
    assert isinstance(plain[3]["units"][0], int)


def test_writing_again_gives_the_same_bytes(build: Path, tmp_path: Path) -> None:
    before = {file.name: file.read_bytes() for file in parquet(build)}
    copy = tmp_path / "build"
    copy.mkdir()
    for name in ("filter", "speak"):
        (copy / name).symlink_to(build / name)
    run_stage(WriteStage(), copy, "filter")
    assert {file.name: file.read_bytes() for file in parquet(copy)} == before


def test_it_goes_on_where_it_was_killed(build: Path, tmp_path: Path) -> None:
    copy = tmp_path / "build"
    (copy / "write" / "data").mkdir(parents=True)
    for name in ("filter", "speak"):
        (copy / name).symlink_to(build / name)
    left = copy / "write" / "data" / ".train-00000000.parquet.x1234567.parquet"
    left.write_bytes(b"half")

    class Killed(WriteStage):
        def apply(self, rows, build):  # type: ignore[no-untyped-def]
            yield next(outcomes := super().apply(rows, build))
            if self._place[rows[0].id] == 3:
                raise KeyboardInterrupt
            yield from outcomes

    with pytest.raises(KeyboardInterrupt):
        run_stage(Killed(), copy, "filter")
    assert [file.name for file in parquet(copy)] == ["train-00000000.parquet"]
    assert not left.exists()
    run_stage(WriteStage(), copy, "filter")
    assert [file.read_bytes() for file in parquet(copy)] == [file.read_bytes() for file in parquet(build)]


def test_other_sound_is_made_flac_and_what_lacks_sound_is_left_out(tmp_path: Path) -> None:
    some = [row for row in SpeakStage(ASKING, ANSWERING).apply(rows(3), tmp_path / "b") if isinstance(row, Row)]
    wave = 0.5 * np.sin(np.arange(24_000) / 10)
    soundfile.write(tmp_path / "own.wav", wave, 24_000)
    some[0] = some[0].with_turns([replace(some[0].turns[0], question_audio=Clip(str(tmp_path / "own.wav"), 1.0))])
    some[1] = some[1].with_turns([replace(some[1].turns[0], answer_audio=None)])
    some[2] = some[2].with_turns([replace(some[2].turns[0], question_audio=Clip("none.flac", 1.0))])
    build = written(tmp_path / "b", some, stage="filter")
    run_stage(WriteStage(), build, "filter")
    assert [one["reason"].split(":")[0] for one in StageFolder(build, "write").rejections()] == ["unfinished", "sound"]
    [file] = parquet(build)
    [line] = pq.read_table(file).to_pylist()
    info = soundfile.info(io.BytesIO(line["question_audio"]["bytes"]))
    assert (info.format, info.samplerate, info.channels) == ("FLAC", 16_000, 1)
    assert info.frames == pytest.approx(16_000, abs=2)


# -- the card ---------------------------------------------------------------------------------------------------------

def test_the_card_counts_what_was_written(build: Path) -> None:
    found = json.loads((build / "write" / "card.json").read_text())
    kept = list(StageFolder(build, "write").rows())
    turns = [turn for row in kept for turn in row.turns]
    figures = found["figures"]
    assert (figures["conversations"], figures["turns"]) == (7, 14)
    for side in ("question", "answer"):
        seconds = [soundfile.info(build / getattr(turn, f"{side}_audio").path).duration for turn in turns]
        assert figures[f"{side}_seconds"] == pytest.approx(sum(seconds) / 14, abs=0.006)
        assert figures[f"{side}_hours"] == pytest.approx(sum(seconds) / 3600, abs=6e-4)
        assert figures[f"{side}_words"] == pytest.approx(
            sum(words(getattr(turn, side)) for turn in turns) / 14, abs=0.006)
    assert figures["answer_units"] == pytest.approx(sum(len(turn.units or ()) for turn in turns) / 14, abs=0.06)
    assert found["paper"] == PAPER
    assert found["voices"]["answer"] == {"one": 14}
    assert Counter(found["voices"]["question"]) == Counter(
        turn.question_audio.voice for turn in turns if turn.question_audio)
    assert found["stages"]["speak"]["reasons"] == {"speech": 1}
    assert found["stages"]["quantise"]["settings"]["units"] == 9
    assert found["sources"] == [{"source": "made up | here", "licence": "CC0-1.0", "conversations": 7}]
    assert found["word_error_rates"] == {"question": {}, "answer": {}}


def test_the_card_tells_who_was_understood() -> None:
    def row(place: int, voice: str, **scores: float) -> Row:
        [one] = rows(1, source=str(place))
        return replace(one, scores=scores).with_turns([replace(
            one.turns[0], question_audio=Clip("q", 2.0, voice), answer_audio=Clip("a", 3.0, "one"))])

    statistics = Statistics()
    for one in [row(0, "f1", question_wer=0.1, answer_wer=0.0), row(1, "f1", question_wer=0.2, answer_wer=0.3),
                row(2, "m1", answer_wer=0.3)]:
        statistics.add(one)
    figures = statistics.figures()
    assert {name: figures[name] for name in ("question_wer", "questions_judged", "answer_wer", "answers_judged")} == {
        "question_wer": 0.15, "questions_judged": 2, "answer_wer": 0.2, "answers_judged": 3}
    text = markdown(card(statistics, {}))
    assert "| f1 | 2 | 0.15 |" in text
    assert "| m1 | 1 | not judged |" in text
    assert "were not measured" not in text
    assert "without the answers' discrete units" in text


def test_the_markdown_shows_the_paper_s_figures_beside(build: Path) -> None:
    text = (build / "write" / "README.md").read_text()
    assert text.startswith("---\nconfigs:\n")
    assert re.search(r"\| seconds an answer \| [\d.]+ \| 19\.0 \|", text)
    assert "| units an answer | " in text
    assert "| 553.6 |" in text
    assert "| made up \\| here | CC0-1.0 | 7 |" in text
    assert "| speak | 7 | 1 | speech 1 |" in text
    assert "No recogniser listened: word error rates were not measured." in text
    assert "with the answers' discrete units" in text


def test_the_description_is_what_a_trainer_wants(build: Path) -> None:
    found = json.loads((build / "write" / "dataset.json").read_text())
    assert found["units"] == 9
    assert [shard["dialogues"] for shard in found["shards"]] == [3, 2, 2]
    assert [shard["turns"] for shard in found["shards"]] == [6, 4, 4]
    assert found["shards"][1]["file"] == "data/train-00000003.parquet"
    assert found["answer_voices"] == ["one"]


def test_the_page_can_be_listened_to_and_holds_no_code(build: Path) -> None:
    text = (build / "write" / "preview.html").read_text()
    kept, left = text.split("<h1>Left out</h1>")
    sounds = re.findall(r'src="data:audio/flac;base64,([^"]+)"', kept)
    assert len(sounds) == 2 * 2 * 2
    assert left.count("<article>") == 1
    assert "<p>speak: speech: text &#x27;unspeakable &lt;b&gt;&#x27;: cannot be hummed</p>" in left
    first = next(StageFolder(build, "write").rows())
    assert first.turns[0].question_audio is not None
    assert base64.b64decode(sounds[0]) == (build / first.turns[0].question_audio.path).read_bytes()
    assert not re.search(r"<script|https?://", text)


def test_the_page_shows_text_as_text(tmp_path: Path) -> None:
    from omnivox.data.card import page

    [row] = rows(1, source="<script>alert(1)</script>")
    turn = replace(row.turns[0], answer="<img src=x onerror=alert(1)>", question_audio=Clip("no.flac", 1))
    row = row.with_turns([turn])
    text = page([row], tmp_path)
    assert "<script" not in text
    assert "<img" not in text
    assert "no such file" in text


def test_nothing_is_finished_before_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run the stage 'write' first"):
        finish_dataset(tmp_path)
