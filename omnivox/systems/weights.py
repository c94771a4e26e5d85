"""What to download where a model that was asked for is not here: how large it is, and where it goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omnivox.errors import CheckpointError
from omnivox.systems.parts import Part

OMNI, WHISPER = "ICTNLP/Llama-3.1-8B-Omni", "openai/whisper-large-v3"
LLM, VITS = "meta-llama/Llama-3.1-8B-Instruct", "kakao-enterprise/vits-ljs"
SIZES = {OMNI: "about 18 GB", WHISPER: "3.1 GB in float16", LLM: "16 GB", VITS: "150 MB",
         "openai/whisper-small": "1 GB", "Qwen/Qwen2.5-0.5B-Instruct": "1 GB"}
VOCODER = Part(("vocoder/g_00500000",), "https://dl.fbaipublicfiles.com/fairseq/speech_to_speech/vocoder/code_hifigan/"
               "mhubert_vp_en_es_fr_it3_400k_layer11_km1000_lj/g_00500000", "about 60 MB, and config.json beside it")
ENCODER = Part(("large-v3.pt",), "https://openaipublic.azureedge.net/main/whisper/models/"
               "e5b1a55b89c1367dacf97e3e19bfd829a01529dbfdeefa8caeb59b3f1b81dadb/large-v3.pt", "3.1 GB, to be named by "
               "whisper=")


@contextmanager
def told_how(name: str, usual: str, *more: Part) -> Iterator[None]:
    """Inside, a CheckpointError about the model `name`, where that is no folder here, says how to come by it, or by the
    `usual` one of the hub, and by `more` parts of it."""
    try:
        yield
    except CheckpointError as error:
        if name == "nano" or Path(name).exists():
            raise
        source = name if name.count("/") == 1 and not name.startswith((".", "/", "~")) else usual
        parts = [Part((".",), source, SIZES.get(source, "its page says how large")), *more]
        raise CheckpointError(f"{error}; download\n  " + "\n  ".join(part.wanted(Path(name)) for part in parts)) \
            from error
