"""SpeechGPT from its published files: what it is asked, what it answers, and what files it cannot use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from sentencepiece import SentencePieceProcessor
from transformers import HubertConfig, HubertModel, LlamaForCausalLM

from omnivox.checkpoint.hifigan import load_hifigan
from omnivox.data.hubert import HubertKmeans
from omnivox.errors import AudioError, CheckpointError, ConfigError
from omnivox.model.units import merge_repeats
from omnivox.model.vocoder import vocode_alone
from omnivox.runtime.events import Audio, Done, Text
from omnivox.sound import read_audio
from omnivox.systems.slow_tokenizer import SlowTokenizer
from omnivox.systems.speechgpt import META, Answer, SpeechGPT
from tests.checkpoint import test_hubert
from tests.checkpoint.published import unit_vocoder
from tests.systems import writers
from tests.systems.laws import steps_until_left

UNITS = 12
EXTRA = [*(f"<{i}>" for i in range(UNITS)), "<sosp>", "<eosp>", "[Human]", "[SpeechGPT]", "<eoh>", "<eos>"]


def tokenizer_files(folder: Path) -> SlowTokenizer:
    writers.sentencepiece_file(folder)
    base = len(SentencePieceProcessor(model_file=str(folder / "tokenizer.model")))
    (folder / "added_tokens.json").write_text(json.dumps({token: base + i for i, token in enumerate(EXTRA)}))
    return SlowTokenizer(folder)


def write(folder: Path, line: str = "", without: str = "") -> Path:
    """The published folder. line: what the model says after the prompt, of pieces that occur once."""
    tokenizer = tokenizer_files(folder / "SpeechGPT-7B-cm")
    vocabulary = -(-(max(tokenizer.added.values()) + 1) // 4) * 4
    model = writers.llama(vocabulary, hidden_size=vocabulary if line else 32)
    if line:
        line_ids = [*tokenizer.encode("[SpeechGPT]: ")[-1:], *tokenizer.encode(line), tokenizer.eos]
        pieces = SentencePieceProcessor(model_file=str(folder / "SpeechGPT-7B-cm" / "tokenizer.model"))
        writers.recite(model, writers.without_repeats(pieces, line_ids))
    writers.llama_folder(folder / "SpeechGPT-7B-cm", model, without)
    writers.lora_folder(folder / "SpeechGPT-7B-com", model)
    torch.manual_seed(0)
    hubert = HubertModel(HubertConfig(**test_hubert.CONFIG | {"num_hidden_layers": 11})).eval()
    test_hubert.fairseq_file(folder / "mhubert_base_vp_en_es_fr_it3.pt", hubert)
    features = HubertKmeans(hubert, torch.zeros(1, 64)).features([writers.speech(2.0)])[0]
    centres = features[::len(features) // UNITS][:UNITS]
    writers.kmeans_file(folder / "mhubert_base_vp_en_es_fr_it3_L11_km1000.bin", centres)
    unit_vocoder(folder / "vocoder", UNITS)
    return folder


CHAIN = "who are you; [ta] My name is Ada Lovelace; [ua] <sosp><3><7><1><9><0><eosp>"


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("chain") / "speechgpt", CHAIN)


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of random weights throughout."""
    return write(tmp_path_factory.mktemp("varied") / "speechgpt")


# -- the tokenizer ----------------------------------------------------------------------------------------------------


def test_spaces_beside_added_tokens_are_lost_and_each_stretch_gets_one_in_front(tmp_path: Path) -> None:
    tokenizer = tokenizer_files(tmp_path)
    pieces = SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    expected = [*pieces.encode("outputs.", out_type=str), "[Human]", *pieces.encode(":", out_type=str), "<sosp>",
                "<10>", "<1>", "<eosp>", "<eoh>", *pieces.encode(".", out_type=str), "[SpeechGPT]",
                *pieces.encode(": ", out_type=str)]
    names = {place: token for token, place in tokenizer.added.items()}
    found = tokenizer.encode("outputs.\n[Human]: <sosp><10><1><eosp> <eoh>. [SpeechGPT]: ")
    assert [names.get(token) or pieces.id_to_piece(token) for token in found] == expected
    assert expected[expected.index("[SpeechGPT]") + 1].startswith("▁")
    assert tokenizer.encode(" who  are") == pieces.encode(" who  are")  # nothing to cut at, nothing lost
    assert tokenizer.encode("") == []
    assert tokenizer.decode([*pieces.encode("who are"), tokenizer.added["<3>"]]) == "who are"


@pytest.mark.parametrize(("name", "content", "message"), [
    ("tokenizer.model", b"not a model", r"tokenizer\.model: no SentencePiece model"),
    ("added_tokens.json", b'{"<0>": "7"}', r"'<0>' is '7'; expected a token's id"),
    ("added_tokens.json", b'{"<0>": 7}', r"'<0>' is 7; expected \d+ or more"),
])
def test_a_tokenizer_that_cannot_be_used(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    tokenizer_files(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        SlowTokenizer(tmp_path)


# -- what it writes ---------------------------------------------------------------------------------------------------


def parsed(tokenizer: SlowTokenizer, text: str) -> tuple[list[str], Answer]:
    answer = Answer(tokenizer)
    pushed = [answer.push(token) for token in tokenizer.encode(text)]
    return [delta for delta in [*pushed, answer.finish()] if delta], answer


@pytest.mark.parametrize(("text", "said"), [
    ("who are you; [ta] My name is; [ua] ", "My name is"),
    ("who; [ta] My name is[ua]", "My name is"),
    ("who; [ta] My; name [u is", "My; name [u is"),  # looked like an end for a while
    ("who; [ta] My name <eoa>.", "My name"),
    ("My name is <eoa>", "My name is"),  # no chain at all
    ("My name is", "My name is"),
    ("who; [ta]", ""),
])
def test_the_answer_is_found_in_what_it_writes(text: str, said: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_files(tmp_path)
    deltas, answer = parsed(tokenizer, text)
    assert "".join(deltas) == said
    assert answer.transcript == (text.split(";")[0] if "[ta]" in text else "")
    assert answer.finish() == ""


def test_the_answer_comes_as_it_is_written(tmp_path: Path) -> None:
    deltas, _ = parsed(tokenizer_files(tmp_path), "who; [ta] My name is Ada; [ua] ")
    assert len(deltas) >= 4


# -- from end to end --------------------------------------------------------------------------------------------------


def test_a_question_is_answered_in_text_and_in_its_own_units(chain: Path, question: Path) -> None:
    system = SpeechGPT.load(chain, temperature=0, omega=2)
    events = list(system.respond(read_audio(question)))
    reply = events[-1].reply  # type: ignore[union-attr]
    assert [type(event) for event in events].count(Done) == 1
    assert reply.text == "My name is Ada Lovelace"
    assert reply.text == "".join(event.delta for event in events if isinstance(event, Text))
    assert reply.units == [3, 7, 1, 9, 0]
    assert reply.token_ids[-1] == system.tokenizer.eos
    assert not reply.cut
    first_sound = next(i for i, event in enumerate(events) if isinstance(event, Audio))
    assert all(isinstance(event, Text) for event in events[:first_sound])
    whole = vocode_alone(load_hifigan(chain / "vocoder"), [torch.tensor(reply.units)])[0]
    assert torch.allclose(reply.audio, whole, atol=1e-5)
    times = reply.timings
    assert 0 < times.encode < times.first_token < times.first_units <= times.first_audio <= times.total
    assert times.prefill > 0
    assert times.audio_seconds == len(whole) / 16_000


def test_the_prompt_holds_the_question_s_units(chain: Path) -> None:
    system = SpeechGPT.load(chain)
    names = {place: token for token, place in system.tokenizer.added.items()}
    ids = system.prompt([5, 11])
    assert ids[0] == 1
    assert [names[token] for token in ids if token in names] == [
        "[Human]", "<sosp>", "<5>", "<11>", "<eosp>", "<eoh>", "[SpeechGPT]"]
    assert system.tokenizer.decode(ids[1:ids.index(system.tokenizer.added["[Human]"])]) == META.rstrip()


def test_its_words_are_those_of_generate_with_the_lora_beside(varied: Path) -> None:
    folder, wave = varied, writers.speech(1.0)
    system = SpeechGPT.load(folder, temperature=0, max_new_tokens=24)
    reply = list(system.respond(wave))[-1].reply  # type: ignore[union-attr]
    model = PeftModel.from_pretrained(
        LlamaForCausalLM.from_pretrained(folder / "SpeechGPT-7B-cm", dtype=torch.float32), folder / "SpeechGPT-7B-com")
    ids = torch.tensor([system.prompt(merge_repeats(system.quantiser.encode(wave))[0].tolist())])
    expected = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24,
                              min_new_tokens=10, eos_token_id=2)[0, ids.shape[1]:].tolist()
    assert reply.token_ids == expected
    assert reply.cut == (expected[-1] != 2)
    plain = LlamaForCausalLM.from_pretrained(folder / "SpeechGPT-7B-cm", dtype=torch.float32)
    without = plain.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24)
    assert without[0, ids.shape[1]:].tolist() != expected  # the LoRA is no decoration


def test_a_seed_decides_what_is_sampled(varied: Path) -> None:
    wave = writers.speech(0.5)

    def answer(seed: int) -> list[int]:
        system = SpeechGPT.load(varied, seed=seed, temperature=5.0, top_p=1.0, max_new_tokens=16)
        ids: list[int] = list(system.respond(wave))[-1].reply.token_ids  # type: ignore[union-attr]
        return ids

    assert answer(1) == answer(1) != answer(2)


def test_a_tts_reads_its_text_and_no_units_are_written(chain: Path) -> None:
    system = SpeechGPT.load(chain, writers.Tone(), temperature=0)
    reply = list(system.respond(writers.speech(0.5)))[-1].reply  # type: ignore[union-attr]
    assert reply.text == "My name is Ada Lovelace"
    assert reply.units == []
    assert (reply.sample_rate, len(reply.audio)) == (8000, 10 * len(reply.text))
    assert not set(reply.token_ids) & system._unit_of.keys()


def test_whoever_stops_listening_stops_the_model(chain: Path) -> None:
    system = SpeechGPT.load(chain, temperature=0)
    assert steps_until_left(system, system.model, writers.speech(0.5)) > 0


def test_a_question_of_nothing_is_refused(chain: Path) -> None:
    with pytest.raises(AudioError, match="question: 100 samples are too short for a unit"):
        list(SpeechGPT.load(chain).respond(torch.zeros(100)))


def test_settings_are_json_and_say_what_answers_depend_on(chain: Path) -> None:
    system = SpeechGPT.load(chain, omega=None, seed=5)
    assert json.loads(json.dumps(system.settings())) == {
        "model": str(chain), "dtype": "float32", "temperature": 0.7, "top_p": 0.8, "top_k": 50,
        "repetition_penalty": 1.0, "min_new_tokens": 10, "max_new_tokens": 2048, "seed": 5, "omega": None,
        "lookahead": None}
    assert (system.name, system.sample_rate) == ("speechgpt", 16_000)


# -- what cannot be used ----------------------------------------------------------------------------------------------


def test_missing_parts_are_told_all_at_once_with_where_they_are_had(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        SpeechGPT.load(tmp_path)
    message = str(caught.value)
    assert f"hf download fnlp/SpeechGPT-7B-cm --local-dir {tmp_path / 'SpeechGPT-7B-cm'}" in message
    assert "13.5 GB" in message
    assert f"curl -L -o {tmp_path / 'vocoder' / 'g_00500000'} https://dl.fbaipublicfiles.com/" in message
    assert message.count("\n") == 5


@pytest.mark.parametrize(("field", "value"), [("omega", 0), ("lookahead", -1), ("max_new_tokens", 0), ("top_p", 2.0)])
def test_a_setting_that_makes_no_sense(field: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{field}: found {value}"):
        SpeechGPT.load(tmp_path, **{field: value})


def test_a_tensor_that_is_missing(tmp_path: Path) -> None:
    folder = write(tmp_path / "speechgpt", without="model.layers.1.mlp.up_proj.weight")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: tensor 'model\.layers\.1\.mlp\.up_proj\.weight'"):
        SpeechGPT.load(folder)


def spoil_rank(folder: Path) -> None:
    path = folder / "SpeechGPT-7B-com" / "adapter_config.json"
    path.write_text(path.read_text().replace('"r": 4', '"r": 8'))


def spoil_half(folder: Path) -> None:
    path = folder / "SpeechGPT-7B-com" / "adapter_model.bin"
    values = torch.load(path)
    del values["base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"]
    torch.save(values, path)


def spoil_shape(folder: Path) -> None:
    path = folder / "SpeechGPT-7B-com" / "adapter_model.bin"
    values = torch.load(path)
    values["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"] = torch.zeros(4, 5)
    torch.save(values, path)


def spoil_added(folder: Path) -> None:
    path = folder / "SpeechGPT-7B-cm" / "added_tokens.json"
    path.write_text(path.read_text().replace('"<11>"', '"<99>"'))


def spoil_kind(folder: Path) -> None:
    path = folder / "SpeechGPT-7B-cm" / "config.json"
    path.write_text(path.read_text().replace('"llama"', '"gpt2"'))


@pytest.mark.parametrize(("spoil", "message"), [
    (spoil_rank, r"lora_A\.weight' has 4 rows; expected r \(8\)"),
    (spoil_half, r"layers\.1\.self_attn\.v_proj\.lora_B\.weight' is missing"),
    (spoil_shape, r"lora_A\.weight' is \[4, 5\]; expected \[4, \d+\]"),
    (spoil_added, r"token '<11>' is None; expected an id below"),
    (spoil_kind, "model_type is 'gpt2'; expected 'llama'"),
])
def test_files_that_do_not_fit(spoil: Any, message: str, chain: Path, tmp_path: Path) -> None:
    spoil(shutil.copytree(chain, tmp_path / "speechgpt"))
    with pytest.raises(CheckpointError, match=message):
        SpeechGPT.load(tmp_path / "speechgpt")
