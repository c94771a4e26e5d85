"""The OpenAI Realtime protocol (GA), as data: identifiers, events, errors and a session's configuration."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from omnivox.errors import ConfigError
from omnivox.runtime.history import LETTERS
from omnivox.runtime.wire import AudioFormat

Json = dict[str, Any]
VOICE = "default"
VOICES = ("default", "alloy", "ash", "ballad", "cedar", "coral", "echo", "marin", "sage", "shimmer", "verse")
"""Names that clients send unasked; each means the model's one voice."""
EAGERNESS = {"low": 8.0, "medium": 4.0, "high": 2.0, "auto": 4.0}  # seconds of silence at most, as OpenAI documents
_IGNORED = {"type", "object", "id", "model", "expires_at", "include", "prompt", "tracing", "reasoning", "client_secret",
            "parallel_tool_calls", "truncation", "tool_choice"}


class ProtocolError(Exception):
    """Something a client asked for that cannot be; its session goes on."""

    def __init__(self, message: str, code: str | None = None, param: str | None = None,
                 kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.message, self.code, self.param, self.kind = message, code, param, kind


def too_long(param: str, found: int, most: int) -> ProtocolError:
    """Of a text with so many characters."""
    return ProtocolError(f"Invalid '{param}': found {found} characters; expected at most {most}.",
                         "string_above_max_length", param)


def read_json(text: str | bytes) -> Any:
    """What JSON says. Raises ValueError, RecursionError; also for what JSON does not have: NaN, and numbers so large
    that they would come out as Infinity."""
    return json.loads(text, parse_constant=_finite, parse_float=_finite)


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"found {text[:40]}; expected a finite number")
    return number


def new_id(kind: str) -> str:
    """Such as item_5f0c...; ids come from here alone, so that a test can count them."""
    return f"{kind}_{secrets.token_hex(12)}"


def error_event(error: ProtocolError, event_id: str | None) -> Json:
    """What a client is told."""
    return {"type": "error", "error": {"type": error.kind, "code": error.code, "message": error.message,
                                       "param": error.param, "event_id": event_id}}


@dataclass(frozen=True)
class Voicing:
    """Our own settings, an object `omnivox` in the session: Ω, lookahead, sampling, and whether timings are told."""

    chunk_units: int = 10
    lookahead: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    timings: bool = False


@dataclass(frozen=True)
class SessionConfig:
    """What a client may set of its session."""

    model: str
    output_modalities: tuple[str, ...] = ("audio",)
    instructions: str = ""
    input_format: AudioFormat = field(default_factory=AudioFormat)
    output_format: AudioFormat = field(default_factory=AudioFormat)
    transcription: Json | None = None
    noise_reduction: Json | None = None
    turn_detection: Json | None = field(default_factory=lambda: server_vad({}))
    voice: str = VOICE
    tool_choice: str = "auto"
    max_output_tokens: int | str = "inf"
    omnivox: Voicing | None = None
    letters: int = LETTERS * 2048  # that instructions may have

    def updated(self, values: Mapping[str, Any]) -> SessionConfig:
        """With the fields of a `session.update`; those that are not sent stay. Raises ProtocolError: none changes."""
        changes: Json = {}
        kind = values.get("type", "realtime")
        if kind != "realtime":
            raise _bad("session.type", kind, "'realtime'")
        if isinstance(text := values.get("instructions"), str) and len(text) > self.letters:
            raise too_long("session.instructions", len(text), self.letters)
        for name, value in values.items():
            if name == "audio":
                changes |= _audio(_object(value, "session.audio"))
            elif name in _FIELDS:
                changes[name] = _FIELDS[name](value, f"session.{name}")
            elif name not in _IGNORED:
                raise ProtocolError(f"Unknown parameter: 'session.{name}'.", "unknown_parameter", f"session.{name}")
        if isinstance(choice := values.get("tool_choice"), str):
            changes["tool_choice"] = choice
        changes.pop("tools", None)
        return replace(self, **changes)

    def to_json(self) -> Json:
        """As `session.created` and `session.updated` show it."""
        shown: Json = {
            "type": "realtime", "object": "realtime.session", "model": self.model,
            "output_modalities": list(self.output_modalities), "instructions": self.instructions, "tools": [],
            "tool_choice": self.tool_choice, "max_output_tokens": self.max_output_tokens, "truncation": "auto",
            "tracing": None, "prompt": None,
            "audio": {"input": {"format": self.input_format.to_json(), "transcription": self.transcription,
                                "noise_reduction": self.noise_reduction, "turn_detection": self.turn_detection},
                      "output": {"format": self.output_format.to_json(), "voice": self.voice, "speed": 1.0}}}
        if self.omnivox is not None:
            shown["omnivox"] = vars(self.omnivox)
        return shown


# -- fields -----------------------------------------------------------------------------------------------------------

def _bad(param: str, found: object, expected: str) -> ProtocolError:
    return ProtocolError(f"Invalid value for '{param}': found {found!r}; expected {expected}.", "invalid_value", param)


def _object(value: object, param: str) -> Json:
    if not isinstance(value, dict):
        raise _bad(param, value, "an object")
    return value


def _text(value: object, param: str) -> str:
    if value is not None and (not isinstance(value, str) or not is_whole(value)):
        raise _bad(param, ascii(value)[:80], "a string")
    return value or ""


def is_whole(text: str) -> bool:
    """Whether no character is half a pair, as JSON may have it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _modalities(value: object, param: str) -> tuple[str, ...]:
    if value not in (["audio"], ["text"]):
        raise _bad(param, value, "['audio'] or ['text']")
    return tuple(value)


def max_tokens(value: object, param: str) -> int | str:
    """A whole number of tokens, or "inf"."""
    if value is None or value == "inf":
        return "inf"
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 4096:
        raise _bad(param, value, "1 to 4096, or 'inf'")
    return value


def _tools(value: object, param: str) -> None:
    if value not in (None, []):
        raise _bad(param, value, "[]: this model calls no tools")


def _number(values: Json, name: str, default: float, low: float, high: float, param: str, whole: bool = False) -> Any:
    value = values.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not low <= value <= high:
        raise _bad(f"{param}.{name}", value, f"{'a whole number' if whole else 'a number'}, {low} to {high}")
    return value


def _flag(values: Json, name: str, param: str, default: bool = True) -> bool:
    value = values.get(name, default)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise _bad(f"{param}.{name}", value, "true or false")
    return value


def server_vad(values: Json, param: str = "session.audio.input.turn_detection") -> Json:
    """Turns end after a pause."""
    return {"type": "server_vad",
            "threshold": _number(values, "threshold", 0.5, 0.16, 0.99, param),
            "prefix_padding_ms": _number(values, "prefix_padding_ms", 300, 0, 5000, param, whole=True),
            "silence_duration_ms": _number(values, "silence_duration_ms", 500, 32, 10_000, param, whole=True),
            "create_response": _flag(values, "create_response", param),
            "interrupt_response": _flag(values, "interrupt_response", param)}


def _turn_detection(value: object, param: str) -> Json | None:
    if value is None:
        return None
    values = _object(value, param)
    kind = values.get("type", "server_vad")
    if kind == "server_vad":
        if values.get("idle_timeout_ms") is not None:
            raise _bad(f"{param}.idle_timeout_ms", values["idle_timeout_ms"], "null: this server asks nobody to speak")
        return server_vad(values, param)
    if kind == "semantic_vad":
        eagerness = values.get("eagerness") or "auto"
        if not isinstance(eagerness, str) or eagerness not in EAGERNESS:
            raise _bad(f"{param}.eagerness", eagerness, ", ".join(EAGERNESS))
        return {"type": "semantic_vad", "eagerness": eagerness,
                "create_response": _flag(values, "create_response", param),
                "interrupt_response": _flag(values, "interrupt_response", param)}
    raise _bad(f"{param}.type", kind, "'server_vad' or 'semantic_vad', or null for manual turns")


def _transcription(value: object, param: str) -> Json | None:
    if value is None:
        return None
    values = _object(value, param)
    kept = {name: _text(values[name], f"{param}.{name}") for name in ("model", "language", "prompt")
            if values.get(name) is not None}
    return {"model": "own"} | kept


def _noise_reduction(value: object, param: str) -> Json | None:
    if value is None:
        return None
    kind = _object(value, param).get("type")
    if kind not in ("near_field", "far_field"):
        raise _bad(f"{param}.type", kind, "'near_field' or 'far_field'")
    return {"type": kind}


def _format(value: object, param: str) -> AudioFormat:
    try:
        return AudioFormat.parse(value, param)
    except ConfigError as error:
        raise ProtocolError(str(error), "invalid_value", param) from error


def _voice(value: object, param: str) -> str:
    name = value.get("id") if isinstance(value, dict) else value
    if name is not None and name not in VOICES:
        raise _bad(param, value, f"one of {', '.join(VOICES)}: all of them the model's one voice")
    return VOICE


def _speed(value: object, param: str) -> None:
    if value is not None and (isinstance(value, bool) or value != 1):
        raise _bad(param, value, "1.0: this model speaks at one speed")


def _audio(values: Json) -> Json:
    changes: Json = {}
    for side in values.keys() - {"input", "output"}:
        raise ProtocolError(f"Unknown parameter: 'session.audio.{side}'.", "unknown_parameter", f"session.audio.{side}")
    for side, fields in _AUDIO.items():
        given = _object(values.get(side) or {}, f"session.audio.{side}")
        for name, value in given.items():
            param = f"session.audio.{side}.{name}"
            if name not in fields:
                raise ProtocolError(f"Unknown parameter: '{param}'.", "unknown_parameter", param)
            key, parse = fields[name]
            parsed = parse(value, param)
            if key:
                changes[key] = parsed
    return changes


def _voicing(value: object, param: str) -> Voicing | None:
    if value is None:
        return None
    values = _object(value, param)
    if unknown := sorted(values.keys() - vars(Voicing()).keys()):
        raise ProtocolError(f"Unknown parameter: '{param}.{unknown[0]}'.", "unknown_parameter", f"{param}.{unknown[0]}")
    lookahead = values.get("lookahead")
    return Voicing(
        _number(values, "chunk_units", 10, 1, 1000, param, whole=True),
        None if lookahead is None else _number(values, "lookahead", 0, 0, 1000, param, whole=True),
        _number(values, "temperature", 0.0, 0.0, 10.0, param), _number(values, "top_p", 1.0, 0.001, 1.0, param),
        _number(values, "seed", 0, -(2**63), 2**63 - 1, param, whole=True), _flag(values, "timings", param, False))


_FIELDS: dict[str, Callable[[object, str], Any]] = {
    "output_modalities": _modalities, "instructions": _text, "max_output_tokens": max_tokens, "tools": _tools,
    "omnivox": _voicing}
_AUDIO: dict[str, dict[str, tuple[str | None, Callable[[object, str], Any]]]] = {
    "input": {"format": ("input_format", _format), "transcription": ("transcription", _transcription),
              "noise_reduction": ("noise_reduction", _noise_reduction),
              "turn_detection": ("turn_detection", _turn_detection)},
    "output": {"format": ("output_format", _format), "voice": ("voice", _voice), "speed": (None, _speed)}}
