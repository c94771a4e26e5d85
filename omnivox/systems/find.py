"""Any system by its name, with its settings behind it as in a URL's query.

    omni                                omni:FOLDER?omega=10&lookahead=8      omni:nano?omega=inf
    cascade                             cascade:LLM?asr=whisper:NAME&tts=vits:NAME&say=words:3
    speechgpt:FOLDER                    salmonn:FOLDER?say=sentence           qwen2_audio:FOLDER
    realtime:URL?model=NAME

A system's settings are the arguments of its `load`. Where it takes a voice (`tts`), there are: tts, the engine as
`data.voices.speaker` names it; say: offline, sentence or words:N; tts_voice; tts_url and tts_model for tts=server.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin
from urllib.parse import unquote

from omnivox.errors import ConfigError
from omnivox.systems.system import System

HOMES = {"omni": "omni.OmniSystem", "cascade": "cascade.Cascade", "speechgpt": "speechgpt.SpeechGPT",
         "salmonn": "salmonn.Salmonn", "qwen2_audio": "qwen2_audio.Qwen2Audio", "realtime": "realtime.Realtime"}
SECRETS = ("api_key", "tts_key")
"""Settings that no spec may hold, for specs are kept beside the results."""
VOICE = {"tts": str, "say": str, "tts_voice": str, "tts_url": str, "tts_model": str, "tts_key": str}
_NONE = ("none", "inf")
_BOOLEANS = {"true": True, "false": False}


def find_system(spec: str, **options: Any) -> System:
    """The system that `spec` names. options: more settings, as values or as text; they win over the spec's.

    Raises ConfigError: an unknown system or setting, listing those that exist, or a value that makes no sense.
    CheckpointError: weights that are not here, saying what to download, how large it is and where it goes.
    """
    kind, target, given = _parsed(spec)
    load = _load(kind)
    takes = inspect.signature(load, eval_str=True).parameters
    first, *_ = takes
    if not target and takes[first].default is inspect.Parameter.empty:
        raise ConfigError(f"{kind}: names no {first}; expected {kind}:{first.upper()}")
    known: dict[str, Any] = {name: one.annotation for name, one in takes.items() if name != first}
    known |= VOICE if "tts" in takes else {}
    values = {name: _value(kind, name, value, known) for name, value in {**given, **options}.items()}
    if "tts" in takes:
        needed = takes["tts"].default is inspect.Parameter.empty
        values = _with_voice(values, _bundled(kind, target), needed)
    return load(*([target] if target else []), **values)  # type: ignore[no-any-return]


def _parsed(spec: str) -> tuple[str, str, dict[str, str]]:
    """A spec's system, what it is made of, and its settings."""
    head, mark, query = spec.rpartition("?")
    kind, _, target = (head if mark else spec).partition(":")
    given = dict[str, str]()
    for pair in query.split("&") if mark and query else []:
        name, equals, value = pair.partition("=")
        if not equals or not name or name in given:
            raise ConfigError(f"{kind}: found {pair!r} behind the question mark; expected each setting once, as "
                              "name=value, with & between")
        if name in SECRETS:
            raise ConfigError(f"{name}: stands in {kind}:...?{name}=, which is kept beside the results; give it as an "
                              "option of its own")
        given[name] = unquote(value)
    return kind, target, given


def _load(kind: str) -> Callable[..., Any]:
    if kind not in HOMES:
        raise ConfigError(f"system: found {kind!r}; expected one of {', '.join(HOMES)}, such as omni:nano?omega=10")
    module, _, name = HOMES[kind].partition(".")
    return getattr(import_module(f"omnivox.systems.{module}"), name).load  # type: ignore[no-any-return]


def _value(kind: str, name: str, value: Any, known: Mapping[str, Any]) -> Any:
    """A setting's value; text is read as what the system wants there."""
    if name not in known:
        raise ConfigError(f"{name}: {kind} has no such setting; expected one of {', '.join(known)}")
    return _read(name, value, known[name]) if isinstance(value, str) else value


def _read(name: str, text: str, wanted: Any) -> Any:
    kinds = get_args(wanted) if get_origin(wanted) in (UnionType, Union) else (wanted,)
    if NoneType in kinds and text.lower() in _NONE:
        return None
    if bool in kinds:
        if text.lower() not in _BOOLEANS:
            raise ConfigError(f"{name}: found {text!r}; expected true or false")
        return _BOOLEANS[text.lower()]
    for number, called in ((int, "a whole number"), (float, "a number")):
        if number in kinds:
            try:
                return number(text)
            except ValueError as error:
                or_none = f", or {' or '.join(_NONE)}" if NoneType in kinds else ""
                raise ConfigError(f"{name}: found {text!r}; expected {called}{or_none}") from error
    return text


def _bundled(kind: str, target: str) -> bool:
    """Whether nano's voice is the one to take where none is named."""
    return kind == "cascade" and (target in ("", "nano") or target.startswith("omni:"))


def _with_voice(values: dict[str, Any], ours: bool, needed: bool) -> dict[str, Any]:
    """`values` with a voice in the place of the settings that name one; where none does, only if it is `needed`."""
    named = {name: values.pop(name) for name in VOICE if name in values}
    if not isinstance(named.get("tts", ""), str):  # made already
        return values | named
    if not named and not needed:
        return values
    from omnivox.checkpoint.load import pick_device
    from omnivox.systems.tts import NANO, PAPER, find_tts

    tts = find_tts(named.get("tts", NANO if ours else PAPER), named.get("say", "offline"),
                   voice=named.get("tts_voice"), url=named.get("tts_url"), model=named.get("tts_model"),
                   api_key=named.get("tts_key"), device=str(pick_device(values.get("device", "auto"))))
    return values | {"tts": tts}
