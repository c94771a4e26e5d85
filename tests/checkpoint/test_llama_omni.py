"""Published checkpoints: every form they come in, and one clear error for what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, WhisperConfig, WhisperForConditionalGeneration

from omnivox.checkpoint import load_checkpoint
from omnivox.checkpoint.llama_omni import AFTER, AGAIN, BEFORE, SYSTEM, our_name, published_name
from omnivox.checkpoint.prompt import Prompt
from omnivox.checkpoint.whisper import hf_name, load_whisper, name_from_hf, name_from_openai, openai_name
from omnivox.errors import CheckpointError, OmnivoxError
from omnivox.model.encoder import Encoder
from omnivox.model.omni import SPEECH, SpokenLM
from tests.checkpoint import published


@pytest.fixture(scope="module")
def spoken() -> SpokenLM:
    return published.model()


def same(found: SpokenLM, expected: SpokenLM) -> None:
    ours, theirs = found.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


# -- names ------------------------------------------------------------------------------------------------------------


def test_maps_of_names_go_both_ways(spoken: SpokenLM) -> None:
    names = list(spoken.state_dict())
    assert len({published_name(name) for name in names}) == len(names)
    assert [our_name(published_name(name)) for name in names] == names
    names = list(spoken.encoder.state_dict())
    assert [name_from_openai(openai_name(name)) for name in names] == names
    assert [name_from_hf(hf_name(name)) for name in names] == names
    assert our_name("model.layers.0.self_attn.rotary_emb.inv_freq") is None
    assert name_from_openai("decoder.ln.weight") is None
    assert name_from_hf("model.decoder.layers.0.fc1.weight") is None


# -- forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["safetensors", "shards", "bin"])
def test_every_form_of_weights(tmp_path: Path, spoken: SpokenLM, form: str) -> None:
    folder = published.write(tmp_path / "omni", published.tensors(spoken, encoder=False), form)
    loaded = load_checkpoint(folder, whisper=published.whisper_file(tmp_path / "whisper", spoken))
    same(loaded.model, spoken)
    assert loaded.config == published.CONFIG
    assert loaded.prompt == Prompt(BEFORE, AFTER, (3,), again=AGAIN, system=SYSTEM)
    assert loaded.tokenizer is None
    assert loaded.vocoder is None


def test_whispers_file_comes_before_the_encoder_in_the_checkpoint(tmp_path: Path, spoken: SpokenLM) -> None:
    other = published.model(seed=1)
    folder = published.write(tmp_path / "omni", published.tensors(spoken))
    loaded = load_checkpoint(folder, whisper=published.whisper_file(tmp_path / "whisper", other)).model
    expected = published.model()
    expected.encoder = other.encoder
    same(loaded, expected)


@pytest.mark.parametrize("place", ["named", "beside", "safetensors"])
def test_whispers_file_is_found_where_the_config_says_or_beside(tmp_path: Path, spoken: SpokenLM, place: str) -> None:
    folder = published.write(tmp_path / "omni", published.tensors(spoken, encoder=False),
                             speech_encoder="models/tiny.pt")
    if place == "named":
        (folder / "models").mkdir()
    published.whisper_file(folder / "models" if place == "named" else folder, spoken,
                           "safetensors" if place == "safetensors" else "pt")
    same(load_checkpoint(folder).model, spoken)


def test_the_encoder_in_the_checkpoint_is_enough(tmp_path: Path, spoken: SpokenLM) -> None:
    folder = published.write(tmp_path / "omni", published.tensors(spoken))
    loaded = load_checkpoint(folder)
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, spoken.state_dict()[name])
    assert loaded.config.encoder.heads == 1  # nothing says how many: 64 wide each, as every Whisper's
    published.whisper_file(folder, spoken, "safetensors").unlink()
    assert load_checkpoint(folder).config == published.CONFIG  # the dims are still there


def test_hugging_faces_whisper(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = WhisperConfig(vocab_size=20, num_mel_bins=6, d_model=8, encoder_layers=2, encoder_attention_heads=2,
                           encoder_ffn_dim=32, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=8,
                           max_source_positions=20, pad_token_id=0, bos_token_id=1, eos_token_id=2,
                           decoder_start_token_id=1)
    whisper = WhisperForConditionalGeneration(config).eval()
    whisper.save_pretrained(tmp_path / "whisper")
    sizes, tensors = load_whisper(tmp_path / "whisper")
    encoder = Encoder(sizes).eval()
    encoder.load_state_dict(dict(tensors))
    mel = torch.randn(2, 40, 6)
    with torch.no_grad():
        expected = whisper.model.encoder(mel.transpose(1, 2)).last_hidden_state
        torch.testing.assert_close(encoder(mel)[0], expected, atol=1e-5, rtol=0)


def test_unit_vocoder(tmp_path: Path, spoken: SpokenLM) -> None:
    folder = published.write(tmp_path / "omni", published.tensors(spoken))
    vocoder = published.unit_vocoder(tmp_path / "vocoder")
    by_folder = load_checkpoint(folder, vocoder=vocoder)
    by_file = load_checkpoint(folder, vocoder=vocoder / "g_00500000")
    vocoder.rename(folder / "vocoder")
    inside = load_checkpoint(folder)
    for loaded in (by_folder, by_file, inside):
        assert loaded.vocoder is not None
        assert loaded.vocoder.units == published.UNITS


def test_a_vocoder_of_other_units_is_refused(tmp_path: Path, spoken: SpokenLM) -> None:
    folder = published.write(tmp_path / "omni", published.tensors(spoken))
    with pytest.raises(CheckpointError, match="gives 7 units, its vocoder knows 9"):
        load_checkpoint(folder, vocoder=published.unit_vocoder(tmp_path / "vocoder", units=9))


def test_end_ids_come_from_the_generation_config(tmp_path: Path, spoken: SpokenLM) -> None:
    folder = published.write(tmp_path / "omni", published.tensors(spoken))
    (folder / "generation_config.json").write_text('{"eos_token_id": [5, 6]}')
    assert load_checkpoint(folder).prompt.end_ids == (5, 6)
    (folder / "generation_config.json").write_text('{"eos_token_id": "</s>"}')
    with pytest.raises(CheckpointError, match=r"generation_config\.json: eos_token_id is '</s>'"):
        load_checkpoint(folder)


# -- the prompt -------------------------------------------------------------------------------------------------------


def test_the_published_prompt_has_one_bos_though_the_tokenizer_adds_one() -> None:
    special = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    words = {word: i for i, word in enumerate([*special, "<unk>", "system", "user", "assistant"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single=f"{special[0]} $A", special_tokens=[(special[0], 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=special[0], unk_token="<unk>",
                                        additional_special_tokens=special[1:])
    assert tokenizer("user").input_ids == [0, 6]
    ids = Prompt(BEFORE, AFTER).ids(tokenizer)
    assert ids[:5] == [0, 1, 5, 2, 4]
    assert ids.count(0) == 1
    assert ids.count(SPEECH) == 1
    assert ids[-4:] == [3, 1, 7, 2]


def test_a_written_prompt_needs_a_tokenizer() -> None:
    with pytest.raises(CheckpointError, match="no tokenizer"):
        Prompt(BEFORE, AFTER).ids(None)
    assert Prompt((1, 2), (3,)).ids(None) == [1, 2, SPEECH, 3]


# -- what can be wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "message"), [
    ({"model_type": "llama"}, "model_type is 'llama'; expected 'omni_speech2s_llama'"),
    ({"model_type": None}, "model_type is None"),
    ({"hidden_size": None}, "hidden_size is None; expected a whole number"),
    ({"unit_vocab_size": "many"}, "unit_vocab_size is 'many'"),
    ({"ctc_decoder_config": "(2,4)"}, r"ctc_decoder_config is '\(2,4\)'; expected \(layers, width, heads, f"),
    ({"ctc_decoder_config": "__import__('os')"}, "ctc_decoder_config is"),
    ({"ctc_decoder_config": "(3,12,5,20)"}, "width 12 over 5 heads"),
    ({"speech_generator_type": "ar"}, "speech_generator_type is 'ar'; expected 'ctc'"),
    ({"speech_encoder_hidden_size": 9}, "the encoder is 8 wide; .*speech_encoder_hidden_size 9"),
    ({"speech_encoder_ds_rate": 4}, r"'model\.speech_projector\.linear1\.weight' is \[10, 24\]; expected \[10, 32\]"),
    ({"vocab_size": 25}, r"'(lm_head|model\.embed_tokens)\.weight' is \[24, 16\]; expected \[25, 16\]"),
    ({"num_hidden_layers": 2}, r"'model\.layers\.1\.input_layernorm\.weight'.* and 6 more are missing"),
    ({"ctc_decoder_config": "(2,12,1,20)"}, r"'speech_generator\.layers\.2\..* and 6 more are there, with no place"),
])
def test_a_wrong_config_is_named(tmp_path: Path, spoken: SpokenLM, changes: dict[str, Any], message: str) -> None:
    folder = published.write(tmp_path / "omni", published.tensors(spoken), **changes)
    with pytest.raises(OmnivoxError, match=message) as caught:
        load_checkpoint(folder)
    assert str(folder) in str(caught.value)


def test_missing_extra_and_misshapen_tensors_are_named(tmp_path: Path, spoken: SpokenLM) -> None:
    values = published.tensors(spoken)
    dropped = {name: value for name, value in values.items() if name != "speech_generator.output_proj.bias"}
    with pytest.raises(CheckpointError, match=r"tensor 'speech_generator\.output_proj\.bias' is missing"):
        load_checkpoint(published.write(tmp_path / "a", dropped))
    with pytest.raises(CheckpointError, match=r"tensor 'model\.vision\.weight' is there, with no place"):
        load_checkpoint(published.write(tmp_path / "b", values | {"model.vision.weight": torch.ones(2)}))
    with pytest.raises(CheckpointError, match=r"'model\.norm\.weight' is \[3\]; expected \[16\]"):
        load_checkpoint(published.write(tmp_path / "c", values | {"model.norm.weight": torch.ones(3)}))
    with pytest.raises(CheckpointError, match=r"'model\.speech_projector\.linear1\.weight' is missing"):
        load_checkpoint(published.write(tmp_path / "d", {k: v for k, v in values.items() if "linear1" not in k}))


def test_no_encoder_anywhere(tmp_path: Path, spoken: SpokenLM) -> None:
    folder = published.write(tmp_path / "omni", published.tensors(spoken, encoder=False))
    with pytest.raises(CheckpointError, match=r"no speech encoder, and .*large-v3\.pt is not there; give Whisper's"):
        load_checkpoint(folder)
    with pytest.raises(CheckpointError, match=r"nowhere\.pt: no such file"):
        load_checkpoint(folder, whisper=tmp_path / "nowhere.pt")


def test_a_whisper_file_that_is_none(tmp_path: Path, spoken: SpokenLM) -> None:
    folder = published.write(tmp_path / "omni", published.tensors(spoken))
    torch.save({"weights": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt: has no 'dims'"):
        load_checkpoint(folder, whisper=tmp_path / "other.pt")
    torch.save({"dims": {"n_mels": 6}, "model_state_dict": {}}, tmp_path / "half.pt")
    with pytest.raises(CheckpointError, match=r"half\.pt: n_audio_state is None"):
        load_checkpoint(folder, whisper=tmp_path / "half.pt")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="model_type is 'bert'; expected 'whisper'"):
        load_checkpoint(folder, whisper=tmp_path / "folder")
    path = published.whisper_file(tmp_path / "whisper", spoken, "safetensors")
    values = load_file(path)
    values["encoder.ln_post.weight"] = torch.ones(3)
    save_file(values, path)
    with pytest.raises(CheckpointError, match=r"'encoder\.ln_post\.weight' is \[3\]; expected \[8\]"):
        load_checkpoint(folder, whisper=path)


def test_truncated_and_missing_files(tmp_path: Path, spoken: SpokenLM) -> None:
    values = published.tensors(spoken)
    folder = published.write(tmp_path / "a", values)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a safetensors file, or cut short"):
        load_checkpoint(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_checkpoint(folder)
    (folder / "config.json").write_text('{"model_type": ')
    with pytest.raises(CheckpointError, match=r"config\.json: not JSON"):
        load_checkpoint(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"config\.json: holds a list; expected an object"):
        load_checkpoint(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json: no such file"):
        load_checkpoint(folder)
    folder = published.write(tmp_path / "bin", values, "bin")
    whole = (folder / "pytorch_model.bin").read_bytes()
    for part in (len(whole) // 2, 10, 0):
        (folder / "pytorch_model.bin").write_bytes(whole[:part])
        with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: "):
            load_checkpoint(folder)


def test_an_index_that_lies(tmp_path: Path, spoken: SpokenLM) -> None:
    folder = published.write(tmp_path / "omni", published.tensors(spoken), "shards")
    index = folder / "model.safetensors.index.json"
    values = json.loads(index.read_text())
    name, place = next(iter(values["weight_map"].items()))
    for wrong, message in ((place.replace("00001", "99999"), "no such file"), (f"../{place}", "in the same folder")):
        index.write_text(json.dumps({"weight_map": values["weight_map"] | {name: wrong}}))
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(folder)
    index.write_text(json.dumps({"weight_map": values["weight_map"] | {"more": place}}))
    with pytest.raises(CheckpointError, match="tensor 'more' is missing"):
        load_checkpoint(folder)
    index.write_text("{}")
    with pytest.raises(CheckpointError, match="has no 'weight_map'"):
        load_checkpoint(folder)
