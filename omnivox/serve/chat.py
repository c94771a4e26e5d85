"""What a request to /v1/chat/completions asks for, read strictly: what would be ignored is refused instead.

Left aside without a word are only fields that change nothing of the answer, such as `user` and `metadata`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from omnivox.rates import SAMPLE_RATE
from omnivox.runtime.history import LETTERS, History
from omnivox.runtime.respond import Omni, ReplySettings
from omnivox.runtime.sampling import SamplingSettings
from omnivox.serve.clips import READABLE, WRITABLE, read_clip
from omnivox.serve.protocol import VOICES, read_json
from omnivox.serve.refusal import RefusedError

_CHANGES_NOTHING = {"metadata", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_retention", "reasoning_effort",
                    "safety_identifier", "service_tier", "store", "user", "verbosity"}
# What they may say where they are sent all the same.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "frequency_penalty": (0,), "function_call": ("none",), "functions": ([],), "logit_bias": ({},),
    "logprobs": (False,), "moderation": (), "n": (1,), "prediction": (), "presence_penalty": (0,),
    "response_format": ({"type": "text"},), "stop": ([],), "tool_choice": ("none", "auto"), "tools": ([],),
    "top_logprobs": (0,), "web_search_options": (),
}
_READ = {"audio", "max_completion_tokens", "max_tokens", "messages", "modalities", "model", "seed", "stream",
         "stream_options", "temperature", "top_p"}


@dataclass(frozen=True)
class Clip:
    """A spoken part of a message: a file's bytes. field: where it stood."""

    data: bytes
    kind: str
    field: str


@dataclass(frozen=True)
class Message:
    """role: who said it. parts: in order, written and spoken."""

    role: Literal["user", "assistant"]
    parts: tuple[str | Clip, ...]


@dataclass(frozen=True)
class ChatRequest:
    """A request that can be answered. sound: the format of a spoken answer, None for a written one."""

    messages: tuple[Message, ...]
    instructions: str | None
    settings: ReplySettings
    sound: str | None
    stream: bool
    usage: bool  # streams end in a count of tokens

    def history(self, omni: Omni, context: int, max_seconds: float) -> History:
        """The conversation, as far back as the context reaches. Raises AudioError, ConfigError."""
        history = History(omni, self.instructions, context)
        longest = min(max_seconds, omni.model.max_samples / SAMPLE_RATE)
        for message in reversed(self.messages):
            for part in reversed(message.parts):
                if history.full:  # what is older would be forgotten at once
                    return history
                item = (history.speech(read_clip(part.data, part.kind, part.field, longest))
                        if isinstance(part, Clip) else history.text(message.role, part))
                history.add(item, place=0)
        return history


def read_request(body: bytes, model: str, omni: Omni, reply_tokens: int, context: int) -> ChatRequest:
    """The request in a body. Raises RefusedError naming the field that cannot be obeyed.

    model: the only one there is; reply_tokens: of the longest answer; context: positions that the LLM reads.
    """
    try:
        asked = read_json(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"body: not JSON ({error}); expected an object", code="invalid_json") from error
    asked = {name: value for name, value in _object(asked, "body").items() if value is not None}
    _check_names(asked)
    if (name := _typed(asked, "model", str, required=True)) != model:
        raise RefusedError(f"model: found {name!r}; this server has {model!r}", status=404, code="model_not_found",
                           param="model")
    sound, stream = _sound(asked, omni), bool(_typed(asked, "stream", bool))
    if stream and sound not in (None, "pcm16"):
        raise _refused("audio.format", sound, "pcm16 where stream is true")
    options = _object(asked.get("stream_options", {}), "stream_options")
    messages, instructions = _messages(asked, LETTERS * context)
    return ChatRequest(messages, instructions, _settings(asked, sound is not None, reply_tokens), sound, stream,
                       bool(_typed(options, "include_usage", bool, "stream_options.")))


def _check_names(asked: Mapping[str, Any]) -> None:
    for name, value in asked.items():
        if name in _NEUTRAL and value not in _NEUTRAL[name]:
            raise RefusedError(f"{name}: found {json.dumps(value)[:80]}; this model cannot do that, leave it out",
                               code="unsupported_parameter", param=name)
        if name not in _READ | _CHANGES_NOTHING | _NEUTRAL.keys():
            raise RefusedError(f"{name[:80]}: no such parameter", code="unknown_parameter", param=name[:80])


def _sound(asked: Mapping[str, Any], omni: Omni) -> str | None:
    modalities = asked.get("modalities", ["text"])
    if modalities not in (["text"], ["text", "audio"], ["audio", "text"], ["audio"]):
        raise _refused("modalities", modalities, '["text"] or ["text", "audio"]')
    if modalities == ["text"]:
        return None
    if not omni.can_speak:
        raise _refused("modalities", modalities, '["text"], for this model has no voice')
    audio = _object(asked.get("audio"), "audio")
    kind = _typed(audio, "format", str, "audio.", required=True)
    if kind not in WRITABLE:
        raise _refused("audio.format", kind, ", ".join(WRITABLE))
    if (voice := audio.get("voice")) is not None and voice not in VOICES:
        raise _refused("audio.voice", voice, f"one of {', '.join(VOICES)}: all of them the model's one voice")
    return str(kind)


def _settings(asked: Mapping[str, Any], speak: bool, reply_tokens: int) -> ReplySettings:
    wanted = _typed(asked, "max_completion_tokens", int) or _typed(asked, "max_tokens", int)
    for name in ("max_completion_tokens", "max_tokens"):
        if name in asked and asked[name] < 1:
            raise _refused(name, asked[name], "1 or more")
    temperature: float = _typed(asked, "temperature", float) or 0.0
    if not 0 <= temperature <= 2:
        raise _refused("temperature", temperature, "0 (greedy, as without it) to 2")
    top_p: float = _typed(asked, "top_p", float, default=1.0)
    if not 0 < top_p <= 1:
        raise _refused("top_p", top_p, "more than 0 and at most 1")
    seed = _typed(asked, "seed", int) or 0
    if not -(2**63) <= seed < 2**63:
        raise _refused("seed", seed, "a 64-bit integer")
    return ReplySettings(max_new_tokens=min(wanted or reply_tokens, reply_tokens), speak=speak,
                         sampling=SamplingSettings(float(temperature), float(top_p), seed=seed))


# -- messages ---------------------------------------------------------------------------------------------------------

def _messages(asked: Mapping[str, Any], letters: int) -> tuple[tuple[Message, ...], str | None]:
    """What was said, and the instructions. letters: characters that one message may have, and the instructions."""
    found = asked.get("messages")
    if not isinstance(found, list) or not found:
        raise _refused("messages", found, "a list of messages")
    said: list[Message] = []
    instructions: list[str] = []
    for number, value in enumerate(found):
        field = f"messages[{number}]"
        message = _object(value, field)
        role = message.get("role")
        parts = _parts(message, role, field)
        _check_length(parts, f"{field}.content", letters)
        if role in ("system", "developer"):
            instructions += [part for part in parts if isinstance(part, str)]
        elif role in ("user", "assistant"):
            said.append(Message(role, parts))
        else:
            raise _refused(f"{field}.role", role, "system, developer, user or assistant")
    if not any(message.role == "user" for message in said):
        raise RefusedError("messages: none is the user's; expected a question", param="messages")
    _check_length(instructions, "messages", letters)
    return tuple(said), "\n\n".join(instructions) or None


def _check_length(parts: Iterable[str | Clip], field: str, letters: int) -> None:
    if (found := sum(len(part) for part in parts if isinstance(part, str))) > letters:
        raise RefusedError(f"{field}: found {found} characters; expected at most {letters}",
                           code="string_above_max_length", param=field)


def _parts(message: Mapping[str, Any], role: object, field: str) -> tuple[str | Clip, ...]:
    content = message.get("content")
    if content is None and message.get("audio") is not None:
        raise RefusedError(f"{field}.audio: earlier answers are not kept here; send what was said as content",
                           param=f"{field}.audio")
    if isinstance(content, str):
        return (_text(content, f"{field}.content"),)
    if not isinstance(content, list) or not content:
        raise _refused(f"{field}.content", content, "text, or a list of parts")
    return tuple(_part(part, role, f"{field}.content[{number}]") for number, part in enumerate(content))


def _part(value: object, role: object, field: str) -> str | Clip:
    part = _object(value, field)
    if part.get("type") == "text":
        return _text(part.get("text"), f"{field}.text")
    if part.get("type") != "input_audio" or role != "user":
        raise _refused(f"{field}.type", part.get("type"), "text" if role != "user" else "text or input_audio")
    sound, field = _object(part.get("input_audio"), f"{field}.input_audio"), f"{field}.input_audio"
    kind, data = sound.get("format"), sound.get("data")
    if not isinstance(kind, str) or kind not in READABLE:
        raise _refused(f"{field}.format", kind, ", ".join(READABLE))
    if not isinstance(data, str):
        raise _refused(f"{field}.data", type(data).__name__, "a file in base64")
    try:
        return Clip(base64.b64decode(data, validate=True), kind, f"{field}.data")
    except (binascii.Error, ValueError) as error:
        raise RefusedError(f"{field}.data: not base64 ({error}); expected a file in base64, without a data: prefix",
                           param=f"{field}.data") from error


def _text(value: object, field: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _refused(field, value, "some words")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RefusedError(f"{field}: holds half a character (a lone surrogate)", param=field) from error
    return value


# -- fields -----------------------------------------------------------------------------------------------------------

def _object(value: object, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _refused(field, value, "an object")
    return value


def _typed(fields: Mapping[str, Any], name: str, kind: type[str | bool | int | float], where: str = "", *,
           default: object = None, required: bool = False) -> Any:
    """A field's value. A float may be written as an integer, a boolean is none."""
    value = fields.get(name)
    if value is None and not required:
        return default
    right = isinstance(value, int | float) if kind is float else isinstance(value, kind)
    if not right or (isinstance(value, bool) and kind is not bool):
        words = {str: "a string", bool: "true or false", int: "a whole number", float: "a number"}
        raise _refused(where + name, value, words[kind])
    return value


def _refused(field: str, found: object, expected: str) -> RefusedError:
    shown = repr(found)
    shown = shown if len(shown) <= 80 else f"{shown[:80]}..."
    return RefusedError(f"{field}: found {shown}; expected {expected}", param=field)
