"""What a user may rely on, by name."""

from __future__ import annotations

import inspect
import subprocess
import sys

import omnivox


def test_public_names() -> None:
    assert omnivox.__all__ == ["Audio", "AudioError", "CheckpointError", "Client", "ConfigError", "DataError", "Done",
                               "Omni", "OmnivoxError", "Reply", "Text", "load"]
    for name in omnivox.__all__:
        assert getattr(omnivox, name).__module__.startswith("omnivox")


def test_signatures() -> None:
    def names(function: object) -> list[str]:
        return list(inspect.signature(function).parameters)  # type: ignore[arg-type]

    assert names(omnivox.load) == ["name", "device", "dtype", "whisper", "vocoder"]
    assert names(omnivox.Omni.respond) == ["self", "question", "chunk_units", "lookahead", "temperature", "top_p",
                                           "top_k", "seed", "max_new_tokens", "speak"]
    assert names(omnivox.Client) == ["url", "api_key", "model", "instructions", "voice_activity", "sample_rate",
                                     "session", "timeout"]
    assert names(omnivox.Client.ask) == ["self", "question"]
    assert names(omnivox.Text) == ["delta"]
    assert names(omnivox.Audio) == ["samples"]
    assert names(omnivox.Done) == ["reply"]
    assert names(omnivox.Reply) == ["text", "token_ids", "units", "audio", "sample_rate", "timings", "token_ends",
                                    "cancelled", "cut"]


def test_every_error_is_an_omnivox_error_and_a_value_error() -> None:
    errors = {getattr(omnivox, name) for name in omnivox.__all__ if name.endswith("Error")}
    assert all(issubclass(error, omnivox.OmnivoxError) for error in errors)
    assert issubclass(omnivox.OmnivoxError, ValueError)


def test_importing_omnivox_is_quick() -> None:
    """The heavy libraries are not imported before something needs them."""
    code = "import sys, omnivox; print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
