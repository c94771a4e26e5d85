"""Any LLM's own chat template, with speech where the user's words would be.

The template is rendered with marks in the place of speech and answers, and cut there: what comes out is a `Prompt`,
the same pieces that a conversation is made of when the model is used. So training and use cannot differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from omnivox.checkpoint.llama_omni import SYSTEM
from omnivox.checkpoint.prompt import Prompt, piece_ids
from omnivox.errors import ConfigError
from omnivox.model.omni import IGNORED, SPEECH

INSTRUCTION = "\nPlease directly answer the questions in the user's speech."  # follows the speech, as published
_HEARD, _ANSWERED = "\u2402heard\u2403", "\u2402answered\u2403"


def chat_prompt(tokenizer: PreTrainedTokenizerBase, llm: PretrainedConfig | None = None, system: str | None = SYSTEM,
                instruction: str = INSTRUCTION) -> Prompt:
    """The pieces around speech that a tokenizer's chat template writes.

    llm: names more tokens that end a reply. system: left out where None; a template that has no place for one gets it
    at the head of the first question. instruction: what is written after each question's speech.
    Raises ConfigError: no template, or one that does not keep what the user says.
    """
    if tokenizer.chat_template is None:
        raise ConfigError(f"{tokenizer.name_or_path or 'tokenizer'}: has no chat template; expected an instruct "
                          "model's")
    question = {"role": "user", "content": _HEARD + instruction}
    answer = {"role": "assistant", "content": _ANSWERED}
    before, after = _cut(_opening(tokenizer, system, question), _HEARD)
    _, tail = _cut(_render(tokenizer, [question, answer, question], generate=True), _ANSWERED)
    between, _ = _cut(tail, _HEARD)
    end = _end_token(tokenizer, between)
    return Prompt(before, after, _end_ids(end, tokenizer, llm), again=between.removeprefix(end),
                  system=system if system is not None and system in before else None)


def conversation_ids(prompt: Prompt, tokenizer: PreTrainedTokenizerBase, answers: Sequence[str]
                     ) -> tuple[list[int], list[int], list[int]]:
    """Token ids with SPEECH for each question; labels, IGNORED but on answers and their end; and the turn of each
    label, IGNORED elsewhere. Raises ConfigError for several answers where the prompt knows one turn alone."""
    if len(answers) > 1 and prompt.again is None:
        raise ConfigError("prompt: knows one turn; expected conversations of one turn, or a chat template")
    ids, labels, turns = list[int](), list[int](), list[int]()
    for turn, answer in enumerate(answers):
        said = [*piece_ids(prompt.before if turn == 0 else prompt.again or (), tokenizer), SPEECH,
                *piece_ids(prompt.after, tokenizer)]
        learnt = [*tokenizer.encode(answer, add_special_tokens=False), *prompt.end_ids[:1]]
        ids += said + learnt
        labels += [IGNORED] * len(said) + learnt
        turns += [IGNORED] * len(said) + [turn] * len(learnt)
    return ids, labels, turns


def _opening(tokenizer: PreTrainedTokenizerBase, system: str | None, question: dict[str, str]) -> str:
    """The first turn up to where the answer begins."""
    if system is None:
        return _render(tokenizer, [question], generate=True)
    try:
        text = _render(tokenizer, [{"role": "system", "content": system}, question], generate=True)
    except ConfigError:  # Gemma's template, for one, has no such role
        text = ""
    if system in text.partition(_HEARD)[0]:
        return text
    return _render(tokenizer, [{"role": "user", "content": f"{system}\n\n{question['content']}"}], generate=True)


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], generate: bool) -> str:
    options: dict[str, Any] = {"enable_thinking": False}  # unknown to most templates, which ignore it
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate, **options)
    except Exception as error:  # jinja's own kinds, and whatever a template raises
        raise ConfigError(f"{tokenizer.name_or_path or 'tokenizer'}: its chat template refuses "
                          f"{[message['role'] for message in messages]} ({error})") from error
    assert isinstance(text, str)
    return text


def _cut(text: str, mark: str) -> tuple[str, str]:
    """What stands before the first mark and after it."""
    before, found, after = text.partition(mark)
    if not found:
        raise ConfigError("chat template: does not repeat what is said word for word; expected a plain conversation")
    return before, after


def _end_token(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """The special token that follows an answer."""
    named = [token for token in tokenizer.get_added_vocab() if text.startswith(token)]
    if not named:
        raise ConfigError(f"chat template: an answer is followed by {text[:20]!r}; expected a special token that "
                          "ends it")
    return str(max(named, key=len))


def _end_ids(end: str, tokenizer: PreTrainedTokenizerBase, llm: PretrainedConfig | None) -> tuple[int, ...]:
    first = tokenizer.convert_tokens_to_ids(end)
    more = getattr(llm, "eos_token_id", None)
    others = [*(more if isinstance(more, list) else [more]), tokenizer.eos_token_id]
    return tuple(dict.fromkeys(int(token) for token in [first, *others] if token is not None))
