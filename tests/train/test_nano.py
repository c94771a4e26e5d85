"""Every step of the bundled model's recipe at a thousandth of its length, on noise instead of speech."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import omnivox
from omnivox.checkpoint.load import find_model, load_checkpoint, save_pretrained
from omnivox.errors import ConfigError, DataError
from omnivox.nano.dialogues import sample
from omnivox.nano.speak import PHONES
from omnivox.nano.topics import decline
from omnivox.train.begin import UNITS
from omnivox.train.blend import blend
from omnivox.train.nano import EXAMS, NanoTraining, run_step
from omnivox.train.recipes import nano
from omnivox.train.vocoder import load_vocoder


def write_corpus(folder: Path, texts: list[tuple[str, str | None]], seed: int) -> None:
    """A shard of noise that claims to be speech."""
    rng, offset, rows, pieces = np.random.default_rng(seed), 0, [], []
    for text, answer in texts:
        audio = (rng.standard_normal(int(rng.integers(12_000, 24_000))) * 3000).astype(np.int16)
        phones = " ".join(rng.choice(PHONES, 6))
        rows.append({"text": text, "answer": answer, "topic": "noise", "voice": "noise", "offset": offset,
                     "samples": len(audio), "split": "train", "phones": phones})
        pieces.append(audio)
        offset += len(audio)
    folder.mkdir(parents=True)
    np.save(folder / "shard-00000.npy", np.concatenate(pieces))
    (folder / "shard-00000.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def training(tmp_path: Path) -> NanoTraining:
    rng = random.Random(0)
    asked = [(d.question, d.answer) for d in (sample(rng, "train") for _ in range(24))]
    write_corpus(tmp_path / "sentences", [(text, None) for text, _ in asked[:4]], 1)
    write_corpus(tmp_path / "words", [(text, None) for text, _ in asked[4:8]], 5)
    write_corpus(tmp_path / "questions", asked, 2)  # type: ignore[arg-type]
    write_corpus(tmp_path / "strange", [(text, decline.ANSWER) for text, _ in asked[:4]], 6)
    write_corpus(tmp_path / "repeats", [(text, None) for text, _ in asked[4:8]], 7)
    write_corpus(tmp_path / "answers", [(answer, None) for answer in dict.fromkeys(a for _, a in asked)], 3)
    for name in EXAMS:
        write_corpus(tmp_path / "exams" / name, asked[:2], 4)  # type: ignore[arg-type]
    return NanoTraining(tmp_path, nano(scale=0.001), workers=1)


def test_every_step_runs_and_the_parts_answer_together(training: NanoTraining) -> None:
    pytest.importorskip("pyworld", reason="the vocoder's pitch targets need pyworld (extra nano)")
    for step in ("language", "encoder", "hear", "units", "vocoder", "stage1", "stage2", "assemble"):
        run_step(training, step)
    omni = omnivox.load(training.work / "assembled")
    *_, done = omni.respond(torch.randn(16_000) * 0.1, max_new_tokens=6)
    assert isinstance(done, omnivox.Done)
    assert set(done.reply.token_ids) <= set(range(len(training.tokenizer)))
    assert all(0 <= unit < training.recipe.units.units for unit in done.reply.units)
    assert omni.config.encoder.strides == (2, 2)
    written = training.tokenizer.encode("What is this?", add_special_tokens=False)
    assert omni.tokenizer is not None
    assert omni.tokenizer.encode("What is this?", add_special_tokens=False) == written


def test_a_step_whose_input_is_missing_names_the_step_to_run(training: NanoTraining) -> None:
    with pytest.raises(DataError, match="run the step 'hear' first"):
        run_step(training, "stage1")


def test_an_unknown_step_is_refused(training: NanoTraining) -> None:
    with pytest.raises(DataError, match="found 'stage3'; expected one of begin, sentences"):
        run_step(training, "stage3")


def test_training_goes_on_from_a_finished_model(training: NanoTraining) -> None:
    run_step(training, "begin")
    model = omnivox.load("nano").model
    assert_equal(training.trained_speech_decoder(), model.speech_decoder)
    assert_equal(training.written_llm(), model.llm)
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    training.hear()
    heard = training.trained_encoder().state_dict()
    assert any(not torch.equal(heard[name], before[name]) for name in before)
    assert max(float((heard[name] - before[name]).abs().max()) for name in before) < 0.05  # from there, not anew
    llm = torch.load(training.work / "hear" / "checkpoint.pt", weights_only=True)["modules"]["llm"]
    moved = (llm["lm_head.weight"] - model.llm.lm_head.weight).abs().max()
    assert 0 < moved < 0.05  # with it
    assert torch.equal(llm["model.embed_tokens.weight"], model.llm.get_input_embeddings().weight)  # but for its words
    run_step(training, "stage1")
    run_step(training, "units")
    assert (training.work / UNITS).read_bytes() == (find_model("nano") / UNITS).read_bytes()
    before = {name: value.clone() for name, value in model.speech_decoder.state_dict().items()}
    run_step(training, "stage2")
    spoken = training.trained_speech_decoder().state_dict()
    assert 0 < max(float((spoken[name] - before[name]).abs().max()) for name in before) < 0.05
    with pytest.raises(DataError, match="holds a run already"):
        run_step(training, "begin")


def test_a_beginning_that_was_killed_is_begun_again(training: NanoTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("omnivox.train.begin.copy_units", killed)
        with pytest.raises(KeyboardInterrupt):
            run_step(training, "begin")
    with pytest.raises(DataError, match=r"begun\.json: not finished; run the step 'begin' first"):
        run_step(training, "blend")
    run_step(training, "begin")
    assert_equal(training.trained_speech_decoder(), omnivox.load("nano").model.speech_decoder)
    assert (training.work / UNITS).exists()


def test_a_blend_is_with_the_model_that_training_began_with(training: NanoTraining, tmp_path: Path) -> None:
    own = load_checkpoint("nano")
    for value in own.model.parameters():
        value.mul_(3)
    save_pretrained(own, tmp_path / "own")
    (tmp_path / "own" / UNITS).write_bytes((find_model("nano") / UNITS).read_bytes())
    run_step(NanoTraining(training.work, training.recipe, model=tmp_path / "own"), "begin")
    save_pretrained(own, training.work / "assembled")
    (training.work / "assembled" / UNITS).write_bytes(b"units")
    with pytest.raises(ConfigError, match=r"--model: found nano; training in .* began with"):
        run_step(NanoTraining(training.work, training.recipe, model="nano"), "blend")
    run_step(training, "blend")
    found = omnivox.load(training.work / "blended").model.llm.state_dict()
    for name, value in omnivox.load(tmp_path / "own").model.llm.state_dict().items():
        step = value.abs().flatten(1).amax(1, keepdim=True) / 127 if value.ndim > 1 else 1e-6  # kept in int8
        assert ((found[name] - value).abs() <= 0.501 * step).all(), name


def test_a_step_that_needs_the_units_names_the_step_that_makes_them(training: NanoTraining) -> None:
    with pytest.raises(DataError, match="run the step 'units' first"):
        run_step(training, "vocoder")


def test_a_vocoder_goes_on_from_a_finished_one(training: NanoTraining) -> None:
    pytest.importorskip("pyworld", reason="the vocoder's pitch targets need pyworld (extra nano)")
    for step in ("begin", "units", "vocoder"):
        run_step(training, step)
    begun = load_checkpoint("nano").vocoder
    assert begun is not None
    made = load_vocoder(training.work / "vocoder").state_dict()
    moved = [float((made[name] - value).abs().max()) for name, value in begun.state_dict().items()]
    assert 0 < max(moved) < 0.1


def test_a_model_of_other_sizes_is_no_beginning(training: NanoTraining) -> None:
    recipe = training.recipe
    training.recipe = replace(recipe, adaptor=replace(recipe.adaptor, inner_width=64))
    with pytest.raises(ConfigError, match="adaptor: the model has"):
        run_step(training, "begin")
    assert not (training.work / "language").exists()


def assert_equal(found: torch.nn.Module, expected: torch.nn.Module) -> None:
    values = expected.state_dict()
    for name, value in found.state_dict().items():
        assert torch.equal(value, values[name]), name


def test_a_blend_lies_half_way(tmp_path: Path) -> None:
    first = load_checkpoint("nano")
    second = load_checkpoint("nano")
    for part in (second.model, second.vocoder):
        assert part is not None
        for value in part.parameters():
            value.mul_(1.5)
    save_pretrained(second, tmp_path / "trained")
    (tmp_path / "trained" / UNITS).write_bytes(b"units")
    blend("nano", tmp_path / "trained", tmp_path / "blended")
    found = load_checkpoint(tmp_path / "blended")
    for part, begun in ((found.model, first.model), (found.vocoder, first.vocoder)):
        assert part is not None
        assert begun is not None
        before = dict(begun.named_parameters())
        for name, value in part.named_parameters():
            torch.testing.assert_close(value, 1.25 * before[name], rtol=1e-3, atol=1e-6)
    assert (tmp_path / "blended" / UNITS).read_bytes() == b"units"
