"""The unit HiFi-GAN against numbers of the published implementation, for every reference set that is there.

A set is a folder `vocoder_*` with a config, weights and `io.safetensors`: those under `tests/fixtures/reference`,
beside the project under `shared/reference`, and in the folder that OMNIVOX_REFERENCE names.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from omnivox.checkpoint.hifigan import hifigan_config, load_hifigan, published_config, read_generator, to_published
from omnivox.model.hifigan import Hifigan
from omnivox.model.vocoder import drop_negative, vocode_alone
from omnivox.model.windowed import StreamingVocoder
from omnivox.streaming import Chunk
from tests import laws

ROOT = Path(__file__).parents[2]
PLACES = [ROOT / "tests/fixtures/reference", ROOT.parent / "shared/reference"]
PLACES += [Path(os.environ["OMNIVOX_REFERENCE"])] if "OMNIVOX_REFERENCE" in os.environ else []
SETS = [file.parent for place in PLACES for file in sorted(place.glob("vocoder_*/io.safetensors"))]
WAVE = 1e-4


def weights(folder: Path) -> Path:
    published = sorted(folder.glob("g_*"))
    return published[-1] if published else folder / "generator.safetensors"


@pytest.fixture(params=SETS, ids=lambda folder: f"{folder.parts[-3]}/{folder.name}", scope="module")
def folder(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture(scope="module")
def vocoder(folder: Path) -> Hifigan:
    return load_hifigan(weights(folder))


@pytest.fixture(scope="module")
def io(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "io.safetensors")


def sequences(io: dict[str, Tensor]) -> list[str]:
    return [name.removesuffix(".code") for name in io if name.endswith(".code")]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=WAVE, rtol=0)


def test_a_reference_set_is_there() -> None:
    assert SETS


def test_durations(vocoder: Hifigan, io: dict[str, Tensor]) -> None:
    for name in sequences(io):
        code = io[f"{name}.code"][None]
        units, length = drop_negative(code, torch.tensor([code.shape[1]]))
        units = units[:, : int(length)]
        log_durations = vocoder.log_durations(units, torch.ones_like(units, dtype=torch.bool))[0]
        close(log_durations, io[f"{name}.log_duration"])
        assert torch.equal(vocoder.durations(units, length)[0], io[f"{name}.duration"]), name


@pytest.mark.parametrize("predict", [True, False], ids=["predicted durations", "one frame a unit"])
def test_waveforms(vocoder: Hifigan, io: dict[str, Tensor], predict: bool) -> None:
    for name in sequences(io):
        code = io[f"{name}.code"]
        found = vocoder(code[None], torch.tensor([len(code)]), predict_durations=predict).row(0)
        close(found, io[f"{name}.wav_dur_pred" if predict else f"{name}.wav_no_dur_pred"])


def test_waveforms_as_one_ragged_batch(vocoder: Hifigan, io: dict[str, Tensor]) -> None:
    names = sequences(io)
    codes = [io[f"{name}.code"] for name in names]
    units = torch.nn.utils.rnn.pad_sequence(codes, batch_first=True)
    found = vocoder(units, torch.tensor([len(code) for code in codes]))
    for b, name in enumerate(names):
        close(found.row(b), io[f"{name}.wav_dur_pred"])


def test_chunks_alone(vocoder: Hifigan, io: dict[str, Tensor]) -> None:
    """As the published demo streams: the pieces' lengths and the concatenation."""
    found_any = False
    for key in io:
        if match := re.fullmatch(r"chunked\.(.+)\.(\d+)\.wav", key):
            name, size = match[1], int(match[2])
            pieces = vocode_alone(vocoder, list(io[f"{name}.code"].split(size)))
            assert [len(piece) for piece in pieces] == io[f"chunked.{name}.{size}.chunk_samples"].tolist()
            close(torch.cat(pieces), io[key])
            found_any = True
    assert found_any


@pytest.mark.parametrize("size", [1, 5, 10, 40])
def test_streamed_is_the_published_whole(vocoder: Hifigan, io: dict[str, Tensor], size: int) -> None:
    name = max(sequences(io), key=lambda name: len(io[f"{name}.code"]))
    streaming = StreamingVocoder(vocoder)
    subject = laws.Subject("Hifigan", streaming, lambda n, generator: torch.zeros(n), lambda row: row)
    pieces = [Chunk.full(piece[None]) for piece in io[f"{name}.code"].split(size)]
    close(laws.run(subject, pieces, streaming.initial_state(1))[0], io[f"{name}.wav_dur_pred"])


def test_through_a_torch_file_and_back(vocoder: Hifigan, folder: Path, tmp_path: Path) -> None:
    """Published tensors, ours, published again: the same names and, weight norm put together, the same weights."""
    (tmp_path / "config.json").write_text(json.dumps(published_config(vocoder.config)))
    torch.save({"generator": to_published(vocoder)}, tmp_path / "g_00500000")
    assert hifigan_config(tmp_path / "config.json") == hifigan_config(folder / "config.json")
    assert read_generator(tmp_path / "g_00500000").keys() == read_generator(weights(folder)).keys()
    again = load_hifigan(tmp_path)
    for name, tensor in vocoder.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, atol=1e-6, rtol=1e-5)
