"""Systems by their names."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import pytest

from omnivox.errors import CheckpointError, ConfigError
from omnivox.systems.cascade import Cascade
from omnivox.systems.find import HOMES, VOICE, _load, _parsed, find_system
from omnivox.systems.omni import OmniSystem
from omnivox.systems.tts import TTS, offline
from tests import tiny
from tests.data.speaking import Hum, serving
from tests.data.speaking import spoken as speech

HUM = Hum({"any": ("one",)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("find") / "m"
    tiny.omni().save_pretrained(place)
    return place


@pytest.mark.parametrize(("query", "options", "expected"), [
    ("", {}, {"omega": 10, "lookahead": None, "alone": False, "temperature": 0.0, "seed": 0}),
    ("?omega=7&lookahead=8", {}, {"omega": 7, "lookahead": 8}),
    ("?omega=inf", {}, {"omega": None}),
    ("?omega=None&lookahead=none", {}, {"omega": None, "lookahead": None}),
    ("?alone=true&temperature=0.5&seed=-3", {}, {"alone": True, "temperature": 0.5, "seed": -3}),
    ("?omega=7", {"omega": 9}, {"omega": 9}),
    ("?omega=7", {"omega": None, "seed": "4"}, {"omega": None, "seed": 4}),
    ("?", {"alone": True}, {"alone": True}),
])
def test_settings_stand_behind_the_question_mark(query: str, options: dict[str, Any], expected: dict[str, Any],
                                                 folder: Path) -> None:
    found = find_system(f"omni:{folder}{query}", **options)
    assert isinstance(found, OmniSystem)
    assert found.settings().items() >= ({"model": str(folder)} | expected).items()


def test_names_of_their_own_kinds() -> None:
    assert _parsed("omni") == ("omni", "", {})
    assert _parsed("realtime:ws://h:1/v1/realtime?model=m&instructions=Be%20brief%3F") == (
        "realtime", "ws://h:1/v1/realtime", {"model": "m", "instructions": "Be brief?"})
    assert _parsed("realtime:wss://h/x?version=1?model=m") == ("realtime", "wss://h/x?version=1", {"model": "m"})
    assert _parsed("cascade:q/w?tts=espeak:en-us+f3")[2] == {"tts": "espeak:en-us+f3"}
    assert _parsed("cascade:http://h/v1") == ("cascade", "http://h/v1", {})


@pytest.mark.parametrize(("spec", "message"), [
    ("omny", "system: found 'omny'; expected one of omni, cascade, speechgpt, salmonn, qwen2_audio, realtime"),
    ("", "system: found ''"),
    ("omni?omga=3", "omga: omni has no such setting; expected one of omega, lookahead, alone, temperature"),
    ("omni?say=sentence", "say: omni has no such setting"),
    ("cascade?voice=x", "voice: cascade has no such setting; expected one of .*say, tts_voice"),
    ("omni?omega=ten", "omega: found 'ten'; expected a whole number, or none or inf"),
    ("omni?omega=1.5", r"omega: found '1\.5'; expected a whole number"),
    ("omni?omega=0", "omega: found 0; expected a number of units, 1 or more, or inf"),
    ("omni?seed=none", "seed: found 'none'; expected a whole number$"),
    ("omni?temperature=warm", "temperature: found 'warm'; expected a number$"),
    ("omni?alone=1", "alone: found '1'; expected true or false"),
    ("omni?omega", "found 'omega' behind the question mark; expected each setting once, as name=value"),
    ("omni?seed=1&seed=2", "found 'seed=2' behind the question mark; expected each setting once"),
    ("omni?&", "found '' behind the question mark"),
    ("realtime", "realtime: names no url; expected realtime:URL"),
    ("speechgpt", "speechgpt: names no folder; expected speechgpt:FOLDER"),
    ("realtime:ws://h?api_key=x", "api_key: stands in realtime:.*kept beside the results; give it as an option"),
    ("cascade?tts_key=x", "tts_key: stands in cascade:"),
    ("cascade?tts=kazoo", "voice: found 'kazoo'; expected offline, flite:NAME"),
    ("cascade?tts=server", "server: needs its URL, a model and the names of its voices"),
])
def test_bad_names_and_settings(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_system(spec)
    if "key" in spec:
        with pytest.raises(ConfigError) as found:
            find_system(spec)
        assert not re.search(r"=x\b", str(found.value))


def test_an_unknown_option_is_refused_too(folder: Path) -> None:
    with pytest.raises(ConfigError, match="speed: omni has no such setting"):
        find_system(f"omni:{folder}", speed=3)


@pytest.mark.parametrize("kind", HOMES)
def test_every_systems_settings_can_be_written_in_a_name(kind: str) -> None:
    first, *rest = inspect.signature(_load(kind), eval_str=True).parameters.values()
    assert first.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    for one in rest:
        assert one.kind is not inspect.Parameter.VAR_KEYWORD, f"{kind} does not say which settings it takes"
        kinds = set(get_args(one.annotation) or [one.annotation]) - {NoneType}
        if one.name == "tts":
            assert kinds == {TTS}
            continue
        assert one.name not in VOICE
        assert kinds & {int, float, bool, str}, f"{kind}: {one.name} is {one.annotation}"
        assert one.default is not inspect.Parameter.empty


# -- voices -----------------------------------------------------------------------------------------------------------

def test_a_voice_may_be_named_or_given(folder: Path) -> None:
    with serving(lambda body, _: speech(body)) as (url, api):
        found = find_system(f"cascade:omni:{folder}?asr=omni:{folder}&tts=server&tts_url={url}&tts_model=m&tts_voice=v"
                            "&say=words:2&max_new_tokens=5", tts_key="secret")
        assert isinstance(found, Cascade)
        assert found.settings()["tts"] == {"engine": "server", "model": "m", "seeded": False, "voices": {"any": ["v"]},
                                           "voice": "v", "say": "words:2"}
        assert {headers["Authorization"] for headers in api.headers} == {"Bearer secret"}
    given = offline(HUM)
    found = find_system(f"cascade:omni:{folder}", asr=f"omni:{folder}", tts=given)
    assert isinstance(found, Cascade)
    assert found.tts is given


@pytest.mark.parametrize("kind", ["speechgpt", "salmonn", "qwen2_audio"])
def test_a_folder_without_the_weights_says_what_to_download(kind: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"GB.*: hf download \w+/") as found:
        find_system(f"{kind}:{tmp_path / 'none'}", tts=offline(HUM))
    assert str(tmp_path / "none") in str(found.value)


def test_no_system_is_imported_before_it_is_asked_for() -> None:
    code = ("import sys, omnivox.systems.find as find\n"
            "assert not {name for name in sys.modules if name.startswith('omnivox.systems.')} "
            "- {'omnivox.systems.find', 'omnivox.systems.system'}\n"
            "assert 'transformers' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)
