"""A transformers model of this process as the one who rewrites and answers."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from omnivox.data.answer import AnswerByLLM, AnswerSettings
from omnivox.data.local import LocalLLM, LocalSettings
from omnivox.data.manifest import StageFolder
from omnivox.data.rewrite import RewriteByLLM, RewriteSettings
from omnivox.data.stage import run_stage
from omnivox.errors import CheckpointError
from tests.data.test_endpoint import ROWS, source

REPLY = ['{"sayable":', "true,", '"question":', '"so', "what", 'it?",', '"answer":', '"just', 'that."}']
WORDS = ["<pad>", "<eos>", "<unk>", "<user>", "<model>", *REPLY]
TEMPLATE = "{% for one in messages %}<user> {{ one['content'] }} {% endfor %}<model>"


def chain(folder: Path, reply: list[str], template: str | None = TEMPLATE) -> Path:
    """A Llama whose layers do nothing, so that each word decides the next: after <model> it says `reply`."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    size = 16
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(WORDS), hidden_size=size, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        eos_token_id=1, pad_token_id=0, bos_token_id=None, max_position_embeddings=2048))
    with torch.no_grad():
        for parameter in (model.model.layers[0].self_attn.o_proj, model.model.layers[0].mlp.down_proj):
            parameter.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(len(WORDS), size))
        model.lm_head.weight.zero_()
        for word, following in zip(["<model>", *reply], [*reply, "<eos>"], strict=True):
            model.lm_head.weight[WORDS.index(following), WORDS.index(word)] = 9.0
    model.save_pretrained(folder)
    return folder


def test_it_rewrites_and_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = source(tmp_path / "b", ROWS)
    llm = LocalLLM(LocalSettings(str(chain(tmp_path / "m", REPLY)), batch=2))
    run_stage(RewriteByLLM(RewriteSettings(), llm), build, "sources")
    run_stage(AnswerByLLM(AnswerSettings(), llm), build, "rewrite")
    rows = list(StageFolder(build, "answer").rows())
    assert [row.id for row in rows] == [row.id for row in ROWS]
    assert {(row.turns[0].question, row.turns[0].answer) for row in rows} == {("so what it?", "just that.")}

    def generate(*words: object, **more: object) -> None:
        raise AssertionError("what is in the cache is not generated again")

    monkeypatch.setattr(LocalLLM, "_generate", generate)
    for path in (build / "rewrite").iterdir():
        path.unlink()
    before = [row.turns for row in rows]
    run_stage(RewriteByLLM(RewriteSettings(), pickle.loads(pickle.dumps(llm))), build, "sources")
    assert [row.turns[0].question for row in StageFolder(build, "rewrite").rows()] == [
        turns[0].question for turns in before]


def test_a_model_that_says_no_json_is_tried_again_and_its_rows_are_rejected(tmp_path: Path) -> None:
    build = source(tmp_path / "b", ROWS[:3])
    llm = LocalLLM(LocalSettings(str(chain(tmp_path / "m", REPLY[1:5])), max_tokens=6))
    run_stage(RewriteByLLM(RewriteSettings(attempts=2), llm), build, "sources")
    folder = StageFolder(build, "rewrite")
    assert list(folder.rows()) == []
    assert {one["reason"][:25] for one in folder.rejections()} == {"reply: no JSON object in "}


@pytest.mark.parametrize(("template", "said"), [(None, "has no chat template"), ("", "no causal LM")])
def test_models_that_cannot_answer(template: str | None, said: str, tmp_path: Path) -> None:
    build = source(tmp_path / "b", ROWS[:1])
    folder = chain(tmp_path / "m", REPLY, template) if template is None else tmp_path / "nothing"
    with pytest.raises(CheckpointError, match=said):
        run_stage(RewriteByLLM(RewriteSettings(), LocalLLM(LocalSettings(str(folder)))), build, "sources")
