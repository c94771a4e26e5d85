"""HuBERT and its k-means file in every published form, and what hostile files come to."""

from __future__ import annotations

import argparse
import gzip
import io
import os
import pickle
import sys
import types
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import HubertConfig, HubertModel

from omnivox.checkpoint.hubert import fairseq_name, load_centres, load_hubert, name_from_fairseq
from omnivox.checkpoint.pickles import _TorchUnpickler, read_fairseq
from omnivox.errors import CheckpointError

CONFIG = {"hidden_size": 64, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 1,
          "conv_dim": [8] * 7, "num_conv_pos_embeddings": 6, "num_conv_pos_embedding_groups": 4}


def hubert(seed: int = 0) -> HubertModel:
    torch.manual_seed(seed)
    return HubertModel(HubertConfig(**CONFIG)).eval()


def fairseq_file(path: Path, model: HubertModel, without: str = "") -> Path:
    """As fairseq writes it: settings that are objects, tensors of pre-training beside."""
    values = OrderedDict((fairseq_name(name), value) for name, value in model.state_dict().items())
    values.pop(without, None)
    values["final_proj.weight"], values["label_embs_concat"] = torch.zeros(3, 3), nn.Parameter(torch.zeros(4, 3))
    torch.save({"args": argparse.Namespace(arch="hubert", lr=[0.1]), "cfg": {"path": Path("data")}, "model": values,
                "optimizer_history": [{"criterion_name": "x"}]}, path)
    return path


@pytest.fixture
def wave() -> torch.Tensor:
    return 0.1 * torch.randn(1, 4000, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("form", ["folder", "bin", "with a head", "fairseq"])
def test_every_form_gives_the_same_features(form: str, tmp_path: Path, wave: torch.Tensor) -> None:
    model = hubert()
    place = tmp_path / "hubert"
    if form == "fairseq":
        place = fairseq_file(tmp_path / "hubert.pt", model)
    else:
        model.save_pretrained(place)
    if form != "folder" and form != "fairseq":
        (place / "model.safetensors").unlink()
        old = {name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"): value for name, value in model.state_dict().items()}
        if form == "with a head":
            old = {f"hubert.{name}": value for name, value in old.items()} | {"lm_head.weight": torch.zeros(2, 2)}
        torch.save(old, place / "pytorch_model.bin")
    with torch.no_grad():
        assert torch.equal(load_hubert(place)(wave).last_hidden_state, model(wave).last_hidden_state)


def test_the_names_go_both_ways() -> None:
    names = list(hubert().state_dict())
    assert [name_from_fairseq(fairseq_name(name)) for name in names] == names
    assert fairseq_name("encoder.layers.11.attention.k_proj.bias") == "encoder.layers.11.self_attn.k_proj.bias"
    assert fairseq_name("encoder.layers.3.layer_norm.weight") == "encoder.layers.3.self_attn_layer_norm.weight"
    assert fairseq_name("encoder.layers.3.final_layer_norm.weight") == "encoder.layers.3.final_layer_norm.weight"
    assert fairseq_name("encoder.layer_norm.bias") == "encoder.layer_norm.bias"
    assert fairseq_name("feature_extractor.conv_layers.0.layer_norm.bias") == "feature_extractor.conv_layers.0.2.bias"
    assert name_from_fairseq("layer_norm.bias") == "feature_projection.layer_norm.bias"
    assert name_from_fairseq("final_proj.weight") is None


def test_a_tensor_that_is_missing_is_named_as_in_its_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"encoder\.layers\.1\.fc2\.bias' is missing"):
        load_hubert(fairseq_file(tmp_path / "short.pt", hubert(), without="encoder.layers.1.fc2.bias"))


def test_another_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "wav2vec2"}')
    with pytest.raises(CheckpointError, match=r"model_type is 'wav2vec2'; expected 'hubert'"):
        load_hubert(tmp_path)
    torch.save({"weights": {}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="has no 'model'"):
        load_hubert(tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="no such file"):
        load_hubert(tmp_path / "missing.pt")


# -- hostile files ----------------------------------------------------------------------------------------------------

class Hostile:
    """Unpickled, it would make a file."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def attacks(mark: Path) -> list[Hostile]:
    code = f"open({str(mark)!r}, 'w')"
    return [Hostile(os.system, f"touch {mark}"), Hostile(eval, code), Hostile(exec, code),
            Hostile(__import__, "subprocess")]


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("legacy", [False, True])
def test_a_hostile_torch_file_is_refused_and_not_run(which: int, legacy: bool, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "hostile.pt"
    torch.save({"model": {}, "cfg": attacks(mark)[which]}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=r"hostile\.pt: names .*nothing in it was executed"):
        read_fairseq(path)
    assert not mark.exists()


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "program.pt"
    torch.jit.script(nn.Linear(2, 2)).save(str(path))
    with pytest.raises(CheckpointError, match="is a TorchScript program"):
        read_fairseq(path)


def test_a_function_that_may_be_called_cannot_be_changed(tmp_path: Path) -> None:
    """A pickle may fill in whatever it names: here the defaults of the function that makes tensors."""
    data = io.BytesIO(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x0c\x00\x00\x00__defaults__)s\x86b.")
    before = torch._utils._rebuild_tensor_v2.__defaults__
    with pytest.raises(pickle.UnpicklingError, match="sets __defaults__ of a function"):
        _TorchUnpickler(data).load()
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before


@pytest.mark.parametrize("which", range(4))
def test_a_hostile_kmeans_file_is_refused_and_not_run(which: int, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "km.bin"
    path.write_bytes(pickle.dumps({"cluster_centers_": attacks(mark)[which]}))
    with pytest.raises(CheckpointError, match=r"km\.bin: names .*nothing in it was executed"):
        load_centres(path)
    assert not mark.exists()


# -- k-means ----------------------------------------------------------------------------------------------------------

class KMeans:
    """Stands in a module called as scikit-learn's."""

    def __init__(self, centres: np.ndarray) -> None:
        self.n_clusters, self.cluster_centers_, self.inertia_ = len(centres), centres, np.float64(0.5)


@pytest.fixture
def kmeans_class(monkeypatch: pytest.MonkeyPatch) -> type:
    names = {"sklearn": types.ModuleType("sklearn"), "sklearn.cluster": types.ModuleType("sklearn.cluster"),
             "sklearn.cluster._kmeans": types.ModuleType("sklearn.cluster._kmeans")}
    for name, module in names.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(KMeans, "__module__", "sklearn.cluster._kmeans")
    names["sklearn.cluster._kmeans"].KMeans = KMeans  # type: ignore[attr-defined]
    return KMeans


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "float64", ">f4"])
@pytest.mark.parametrize("compress", [0, ("zlib", 3), ("gzip", 3), ("xz", 3), ("bz2", 3)])
def test_joblib_s_file(compress: Any, dtype: str, order: str, tmp_path: Path, kmeans_class: type) -> None:
    with warnings.catch_warnings():  # of processes, which it will not start
        warnings.simplefilter("ignore")
        joblib = pytest.importorskip("joblib", reason="joblib is not installed; it writes the file")
    centres = np.asarray(np.random.default_rng(0).normal(size=(7, 5)), dtype=dtype, order=order)
    joblib.dump(kmeans_class(centres), tmp_path / "km.bin", compress=compress)
    found = load_centres(tmp_path / "km.bin")
    assert found.dtype == torch.float32
    assert np.array_equal(found.numpy(), centres.astype(np.float32))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_plain_pickle(protocol: int, tmp_path: Path, kmeans_class: type) -> None:
    centres = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    (tmp_path / "km.pkl").write_bytes(pickle.dumps(kmeans_class(centres), protocol))
    assert np.array_equal(load_centres(tmp_path / "km.pkl").numpy(), centres)


def test_plain_tables(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    centres = torch.randn(7, 5)
    save_file({"centres": centres}, tmp_path / "km.safetensors")
    np.save(tmp_path / "km.npy", centres.numpy())
    assert torch.equal(load_centres(tmp_path / "km.safetensors"), centres)
    assert torch.equal(load_centres(tmp_path / "km.npy"), centres)


def test_files_that_hold_no_centres(tmp_path: Path, kmeans_class: type) -> None:
    whole = pickle.dumps(kmeans_class(np.ones((3, 2))))
    (tmp_path / "cut.bin").write_bytes(whole[:-40])
    with pytest.raises(CheckpointError, match="cannot be read, or is cut short"):
        load_centres(tmp_path / "cut.bin")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(whole)[:-20])
    with pytest.raises(CheckpointError, match="cannot be read, or is cut short"):
        load_centres(tmp_path / "cut.gz")
    for content, message in (({"a": 1}, "found none"), (kmeans_class(np.ones(3)), r"found an array \[3\]"),
                             (kmeans_class(np.full((2, 2), np.nan)), "finite numbers"), ([1], "found none")):
        (tmp_path / "odd.bin").write_bytes(pickle.dumps(content))
        with pytest.raises(CheckpointError, match=message):
            load_centres(tmp_path / "odd.bin")
    with pytest.raises(CheckpointError, match="no such file"):
        load_centres(tmp_path / "none")


def test_arrays_of_objects_are_refused(tmp_path: Path, kmeans_class: type) -> None:
    (tmp_path / "km.bin").write_bytes(pickle.dumps(kmeans_class(np.array([[None, 1]], dtype=object))))
    with pytest.raises(CheckpointError, match="holds an array of 'O8'"):
        load_centres(tmp_path / "km.bin")
