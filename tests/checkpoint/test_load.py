"""Our own layout there and back, devices and number formats, names that lead nowhere, and files that would do harm."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from omnivox.checkpoint import Loaded, convert, load, load_checkpoint, save_pretrained
from omnivox.checkpoint.files import new_folder, open_tensors, write_tensors
from omnivox.checkpoint.load import pick_device, pick_dtype
from omnivox.errors import CheckpointError, ConfigError, OmnivoxError
from omnivox.model.omni import SpokenLM
from tests import tiny
from tests.checkpoint import published


@pytest.fixture
def folder(tmp_path: Path, loaded: Loaded) -> Path:
    save_pretrained(loaded, tmp_path / "model")
    return tmp_path / "model"


def same(found: nn.Module | None, expected: nn.Module | None) -> None:
    assert found is not None
    assert expected is not None
    theirs = expected.state_dict()
    assert found.state_dict().keys() == theirs.keys()
    for name, value in found.state_dict().items():
        assert torch.equal(value, theirs[name]), name


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads((folder / "config.json").read_text())
    change(values)
    (folder / "config.json").write_text(json.dumps(values))


# -- there and back ---------------------------------------------------------------------------------------------------


def test_all_comes_back(folder: Path, loaded: Loaded) -> None:
    found = load_checkpoint(folder)
    same(found.model, loaded.model)
    same(found.vocoder, loaded.vocoder)
    assert found.config == loaded.config
    assert found.prompt == loaded.prompt
    assert found.tokenizer is not None
    assert loaded.tokenizer is not None
    assert found.tokenizer.get_vocab() == loaded.tokenizer.get_vocab()
    assert found.tokenizer.encode("word3 word5 <answer>") == loaded.tokenizer.encode("word3 word5 <answer>")
    assert not any(p.requires_grad for p in found.model.parameters())
    assert not found.model.training
    assert {path.stat().st_mode & 0o444 for path in folder.iterdir()} == {0o444}  # others may read it


def test_without_vocoder_and_tokenizer(tmp_path: Path, loaded: Loaded) -> None:
    save_pretrained(replace(loaded, vocoder=None, tokenizer=None), tmp_path / "model")
    found = load_checkpoint(tmp_path / "model")
    assert found.vocoder is None
    assert found.tokenizer is None


def test_a_smaller_type_in_the_files(tmp_path: Path, loaded: Loaded) -> None:
    save_pretrained(loaded, tmp_path / "model", stored=torch.float16)
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        assert file.get_tensor("adaptor.linear1.weight").dtype == torch.float16
    found = load_checkpoint(tmp_path / "model").model
    for name, value in found.named_parameters():
        assert value.dtype == torch.float32
        assert torch.equal(value, loaded.model.get_parameter(name).half().float()), name


def test_an_llm_of_another_family_with_tied_embeddings(tmp_path: Path, loaded: Loaded) -> None:
    torch.manual_seed(0)
    config = Qwen3Config(vocab_size=20, hidden_size=16, intermediate_size=24, num_hidden_layers=1, head_dim=6,
                         num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True)
    model = SpokenLM(loaded.config, Qwen3ForCausalLM(config))
    save_pretrained(replace(loaded, model=model), tmp_path / "model")
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        assert "llm.lm_head.weight" not in set(file.keys())
    found = load_checkpoint(tmp_path / "model").model
    same(found, model)
    assert isinstance(found.llm, Qwen3ForCausalLM)
    assert found.llm.lm_head.weight is found.llm.get_input_embeddings().weight


def test_buffers_that_no_file_holds(tmp_path: Path, loaded: Loaded) -> None:
    """A model made without a random start has its rotary frequencies all the same."""
    config = LlamaConfig(vocab_size=20, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                         num_attention_heads=2, num_key_value_heads=1)
    model = SpokenLM(loaded.config, LlamaForCausalLM(config)).eval()
    save_pretrained(replace(loaded, model=model), tmp_path / "model")
    found = load_checkpoint(tmp_path / "model").model
    x = torch.randn(1, 5, 16)
    with torch.no_grad():
        assert torch.equal(found.llm(inputs_embeds=x).logits, model.llm(inputs_embeds=x).logits)


def test_shards(tmp_path: Path) -> None:
    values = {f"t{i}": torch.full((10,), float(i)) for i in range(5)} | {"count": torch.tensor(3)}
    write_tensors(tmp_path, values, shard_bytes=90)
    assert len(list(tmp_path.glob("model-*-of-00003.safetensors"))) == 3
    found = open_tensors(tmp_path)
    assert found.keys() == values.keys()
    assert all(torch.equal(found[name], values[name]) for name in values)
    write_tensors(tmp_path / "..", {"big": torch.ones(100)}, "one", shard_bytes=10)  # a tensor is never cut
    assert (tmp_path / ".." / "one.safetensors").exists()


def test_a_published_checkpoint_in_our_layout(tmp_path: Path) -> None:
    spoken = published.model()
    source = published.write(tmp_path / "omni", published.tensors(spoken, encoder=False))
    whisper = published.whisper_file(tmp_path / "whisper", spoken)
    vocoder = published.unit_vocoder(tmp_path / "vocoder")
    convert(source, tmp_path / "ours", whisper=whisper, vocoder=vocoder, dtype="float32")
    before, after = load_checkpoint(source, whisper=whisper, vocoder=vocoder), load_checkpoint(tmp_path / "ours")
    same(after.model, before.model)
    same(after.vocoder, before.vocoder)
    assert (after.config, after.prompt) == (before.config, before.prompt)
    convert(source, tmp_path / "small", whisper=whisper)
    with safe_open(tmp_path / "small" / "model.safetensors", "pt") as file:
        assert file.get_tensor("adaptor.linear1.weight").dtype == torch.bfloat16  # what the published config says
    convert(tmp_path / "ours", tmp_path / "again")
    same(load_checkpoint(tmp_path / "again").model, before.model)


# -- whole or not at all ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_leaves_nothing(tmp_path: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch,
                                    error: BaseException) -> None:
    def fail(folder: Path, *args: Any, **kwargs: Any) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(load, "write_tensors", fail)
    with pytest.raises(type(error)):
        save_pretrained(loaded, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_overwritten(tmp_path: Path, folder: Path, loaded: Loaded) -> None:
    before = sorted(folder.iterdir())
    for call in (lambda: save_pretrained(loaded, folder), lambda: convert(folder, folder)):
        with pytest.raises(CheckpointError, match="exists and is not an empty folder"):
            call()
    assert sorted(folder.iterdir()) == before
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as temporary:
        (temporary / "file").write_text("x")
    assert (tmp_path / "empty" / "file").exists()


# -- devices and number formats ---------------------------------------------------------------------------------------


def test_dtype(folder: Path, loaded: Loaded) -> None:
    found = load_checkpoint(folder, dtype="bfloat16")
    assert {p.dtype for p in found.model.parameters()} == {torch.bfloat16}
    assert found.model.speech_decoder.frequencies.dtype == torch.float32  # rounded, they would turn the wrong way
    assert found.model.encoder.positional_embedding.dtype == torch.float32
    assert found.vocoder is not None
    assert {p.dtype for p in found.vocoder.parameters()} == {torch.float32}
    assert torch.equal(found.model.adaptor.linear1.weight, loaded.model.adaptor.linear1.weight.bfloat16())
    with torch.inference_mode():
        speech = found.model.encode(found.model.log_mel(tiny.question()[None]))
    assert speech.data.dtype == torch.bfloat16
    with pytest.raises(ConfigError, match="dtype: found 'int8'; expected auto, float32"):
        load_checkpoint(folder, dtype="int8")


def test_auto_is_float32_on_a_cpu_and_the_checkpoints_own_elsewhere() -> None:
    published_config, cuda = {"torch_dtype": "bfloat16"}, torch.device("cuda")
    assert pick_dtype("auto", torch.device("cpu"), published_config) == torch.float32
    assert pick_dtype("auto", cuda, published_config) == torch.bfloat16
    assert pick_dtype("auto", cuda, {"dtype": "float16"}) == torch.float16
    assert pick_dtype("auto", cuda, {}) == torch.float32
    assert pick_dtype("float16", cuda, published_config) == torch.float16


def test_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:0", "mps"):
        with pytest.raises(ConfigError, match=f"device: '{name}' is not available to this torch; .* auto, cpu"):
            pick_device(name)
    for name in ("tpu", "cuda:x", ""):
        with pytest.raises(ConfigError, match=f"device: found '{name}'; expected auto, cpu, cuda, mps"):
            pick_device(name)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("auto") == torch.device("cuda")
    with pytest.raises(ConfigError, match="device: 'cuda:1' is not available"):
        pick_device("cuda:1")


# -- names ------------------------------------------------------------------------------------------------------------


def test_names_that_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nanno", str(tmp_path / "nothing"), "./a/b", tmp_path / "nothing"):
        with pytest.raises(CheckpointError, match="no such folder; expected 'nano', a folder, or a name on the hub"):
            load_checkpoint(name)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is a file; expected a checkpoint's folder"):
        load_checkpoint(tmp_path / "file")
    with pytest.raises(CheckpointError, match="someone/something: no such folder, and the hub did not give"):
        load_checkpoint("someone/something")  # tests are offline
    monkeypatch.setattr(load, "NANO", tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="nano: its weights are not at"):
        load_checkpoint("nano")


# -- what can be wrong in our layout ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "message"), [
    (lambda v: v.update(colour=1), "unknown key 'colour'; known are model_type"),
    (lambda v: v.pop("omni"), "omni is None; expected an object"),
    (lambda v: v["omni"]["encoder"].update(depth=3), "omni: EncoderConfig: unknown key 'depth'; known are n_mels"),
    (lambda v: v["omni"]["adaptor"].update(k=3), r"'adaptor\.linear1\.weight' is \[16, 32\]; expected \[16, 48\]"),
    (lambda v: v["omni"]["adaptor"].update(llm_width=8), "adaptor.llm_width: found 8; expected 16"),
    (lambda v: v["omni"]["encoder"].update(strides=[2]), "encoder.strides: found"),
    (lambda v: v["omni"]["encoder"].update(width="wide"), "config.json: "),
    (lambda v: v["llm"].pop("model_type"), "llm.model_type is missing"),
    (lambda v: v["llm"].update(model_type="no-such-family"), "llm: .*no-such-family"),
    (lambda v: v["vocoder"].update(kind="vocos"), "vocoder.kind is 'vocos'; expected hifigan or source_filter"),
    (lambda v: v["vocoder"].update(units=13), r"vocoder\.safetensors: tensor 'embedding\.weight' is"),
    (lambda v: v["vocoder"].update(height=13), "vocoder: SourceFilterConfig: unknown key 'height'"),
    (lambda v: v["prompt"].update(middle=[1]), "prompt: Prompt: unknown key 'middle'"),
])
def test_a_wrong_config_is_named(folder: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    edit(folder, change)
    with pytest.raises(OmnivoxError, match=message) as caught:
        load_checkpoint(folder)
    assert str(folder) in str(caught.value)


def test_missing_and_damaged_files(folder: Path) -> None:
    path = folder / "vocoder.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match=r"vocoder\.safetensors: not a safetensors file, or cut short"):
        load_checkpoint(folder)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"vocoder\.safetensors: no such file"):
        load_checkpoint(folder)
    path.write_bytes(whole)
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text()[:50])
    with pytest.raises(CheckpointError, match="its tokenizer cannot be read"):
        load_checkpoint(folder)


def test_whisper_is_not_for_our_layout(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"whisper: given, but .* holds its own encoder"):
        load_checkpoint(folder, whisper="large-v3.pt")


# -- files that would do harm -----------------------------------------------------------------------------------------


class Hostile:
    """Unpickled, it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


def as_whisper(folder: Path, values: dict[str, Tensor], bad: Any, save: Callable[[Any, Path], None]) -> dict[str, Any]:
    save({"dims": bad, "model_state_dict": {}}, folder / "large-v3.pt")
    return {"whisper": folder / "large-v3.pt"}


def as_model(folder: Path, values: dict[str, Tensor], bad: Any, save: Callable[[Any, Path], None]) -> dict[str, Any]:
    (folder / "model.safetensors").unlink()
    save(values | {"bad": bad}, folder / "pytorch_model.bin")
    return {}


def as_vocoder(folder: Path, values: dict[str, Tensor], bad: Any, save: Callable[[Any, Path], None]) -> dict[str, Any]:
    vocoder = published.unit_vocoder(folder / "vocoder")
    save({"generator": {"bad": bad}}, vocoder / "g_00500000")
    return {}


def zipped(values: Any, path: Path) -> None:
    torch.save(values, path)


def legacy(values: Any, path: Path) -> None:
    torch.save(values, path, _use_new_zipfile_serialization=False)


def plain(values: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(values, protocol=2))


@pytest.mark.parametrize("save", [zipped, legacy, plain])
@pytest.mark.parametrize("place", [as_whisper, as_model, as_vocoder])
def test_no_pickle_is_executed(tmp_path: Path, place: Callable[..., dict[str, Any]],
                               save: Callable[[Any, Path], None]) -> None:
    values = published.tensors(published.model())
    folder = published.write(tmp_path / "omni", values)
    options = place(folder, values, Hostile(tmp_path / "harm"), save)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder, **options)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "harm").exists()


def test_the_hostile_file_would_have_done_it(tmp_path: Path) -> None:
    plain(Hostile(tmp_path / "harm"), tmp_path / "file")
    pickle.loads((tmp_path / "file").read_bytes())
    assert (tmp_path / "harm").exists()
