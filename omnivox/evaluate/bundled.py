"""The tables of what is bundled, on a bare machine: nano against the cascade of its own parts, on held-out questions.

nano answers at several Ω and offline, once exactly and once in chunks vocoded alone, and at Ω = 10 with shorter
lookaheads than its vocoder's 7 frames; the cascade speaks all at the end, or three words at a time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omnivox.evaluate.compare import Asked, compare, slug
from omnivox.evaluate.measures import MAKERS, MeasureOptions
from omnivox.evaluate.summary import Summary, find_runs, summarise
from omnivox.hardware import hardware
from omnivox.writing import atomic

OURS, OFFLINE, ALONE, CASCADE = "omni", "omni?omega=inf", "omni?omega=10&alone=true", "cascade"
OMEGAS = (20, 40, 100)  # beside 10
LOOKAHEADS = (0, 2, 4)
SPECS = (OURS, OFFLINE, CASCADE, ALONE, *(f"omni?omega={omega}" for omega in OMEGAS),
         *(f"omni?omega={omega}&alone=true" for omega in OMEGAS),
         *(f"omni?lookahead={lookahead}" for lookahead in LOOKAHEADS), "cascade?say=words:3")
QUESTIONS = "nano"
LIMIT = 20
MARK = "bundled.json"  # in a folder that holds these


def is_bundled(work: Path) -> bool:
    """Whether `work` is for the bundled tables: it holds them, or nothing yet."""
    return (work / MARK).exists() or not find_runs(work)


def run_bundled(work: Path, limit: int | None = None, options: MeasureOptions | None = None, echo: bool = True
                ) -> None:
    """Answer and measure all that is bundled, in folder `work`, and note why a system or measure cannot be had.

    limit: questions; LIMIT if None. Raises DataError: a folder holds another run.
    """
    limit = LIMIT if limit is None else limit
    work.mkdir(parents=True, exist_ok=True)
    with atomic(work / MARK) as temporary:
        temporary.write_text(json.dumps({"limit": limit, "systems": SPECS}) + "\n", encoding="utf-8")
    asked = Asked(QUESTIONS, tuple(MAKERS), limit)
    compare(SPECS, work, asked, options or MeasureOptions(asr="pocketsphinx"), skip=True, echo=echo)


def headline(work: Path) -> dict[str, Any]:
    """What is worth watching, of the runs in `work`; None where it was not measured.

    first_audio_ratio_vs_cascade: how many times sooner nano's first sound comes. omega10_minus_offline: what streaming
    at Ω = 10 costs, exactly and with chunks alone.
    """
    runs = {run.spec: run for run in map(summarise, find_runs(work / slug(QUESTIONS)))}
    ours, cascade = (_value(runs.get(spec), "first_audio_ms") for spec in (OURS, CASCADE))
    found: dict[str, Any] = {
        "first_audio_ratio_vs_cascade": round(cascade / ours, 2) if ours and cascade else None,
        "first_audio_ms": _rounded(ours), "cascade_first_audio_ms": _rounded(cascade)}
    for name in ("plcmos", "wer", "dnsmos_ovrl", "utmos"):
        for spec, way in ((OURS, ""), (ALONE, "alone_")):
            found[f"{name}_{way}omega10_minus_offline"] = _difference(runs, name, spec)
    for name in ("exact", "wer", "plcmos", "dnsmos_ovrl"):
        found |= {name: _rounded(_value(runs.get(OURS), name)),
                  f"cascade_{name}": _rounded(_value(runs.get(CASCADE), name))}
    found |= {"questions": len(runs[OURS].rows) if OURS in runs else 0, "failed": sum(r.failed for r in runs.values()),
              "runs": len(runs), "hardware": hardware()}
    return found


def _difference(runs: dict[str, Summary], name: str, spec: str) -> float | None:
    at_ten, offline = _value(runs.get(spec), name), _value(runs.get(OFFLINE), name)
    return None if at_ten is None or offline is None else round(at_ten - offline, 4)


def _value(run: Summary | None, name: str) -> float | None:
    return None if run is None else run.figure(name).value


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
