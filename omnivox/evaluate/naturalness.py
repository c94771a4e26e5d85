"""How natural speech sounds, by models of listeners' ratings from 1 to 5, each under its own name.

    utmos         UTMOS22-strong (Saeki et al. 2022), the paper's measure (v1 and v2); needs its weights
    dnsmos_ovrl   DNSMOS P.835 (Reddy et al. 2022): the whole,
    dnsmos_sig    the speech,
    dnsmos_bak    and how little the background disturbs
    plcmos        PLCMOS v2 (Diener et al. 2023): made for gaps that were filled in; it hears seams

DNSMOS and PLCMOS are Microsoft's, from the wheel of `speechmos`. Their networks are run here, and not by that package's
`run`: it draws PLCMOS's raters from a generator that anybody may have turned, so the same sound has another score each
time, it never ends on an empty sound, and it wants librosa for a score that is not reported. The first is cured by
raters drawn once from a seed; in all else the numbers are equal.

They are given 16 kHz, and clipped to full scale. Shapes: n samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from omnivox.errors import ConfigError
from omnivox.evaluate.measure import Answer, Value, of_speech
from omnivox.evaluate.utmos import default_weights, load_utmos, naturalness
from omnivox.rates import SAMPLE_RATE

SHORTEST = SAMPLE_RATE // 4  # samples: the networks need a little more than 0.1 s
WINDOW = 9.01  # seconds that DNSMOS hears at once
Samples = np.ndarray[Any, np.dtype[np.float32]]


class Utmos:
    """utmos. weights: the published file, by default where torch.hub keeps it. Raises CheckpointError."""

    name = "utmos"

    def __init__(self, weights: str | Path | None = None, device: str = "cpu") -> None:
        self.model = load_utmos(weights).to(device)
        file = default_weights() if weights is None else Path(weights)
        with file.open("rb") as content:
            self._digest = hashlib.file_digest(content, "sha256").hexdigest()

    def settings(self) -> Mapping[str, Any]:
        return {"model": "UTMOS22-strong", "weights_sha256": self._digest}

    def measure(self, answers: Sequence[Answer]) -> list[Value]:
        return of_speech(answers, _long_enough(lambda wave: naturalness(self.model, wave)))


class Dnsmos:
    """dnsmos_ovrl, dnsmos_sig or dnsmos_bak. Raises ConfigError: no such part, or a package is missing."""

    parts = ("ovrl", "sig", "bak")

    def __init__(self, part: str = "ovrl") -> None:
        if part not in self.parts:
            raise ConfigError(f"dnsmos: found {part!r}; expected one of {', '.join(self.parts)}")
        self.name, self._part = f"dnsmos_{part}", part
        self._network = _dnsmos()

    def settings(self) -> Mapping[str, Any]:
        return _speechmos_settings("DNSMOS P.835")

    def measure(self, answers: Sequence[Answer]) -> list[Value]:
        return of_speech(answers, _long_enough(lambda wave: self._network.scores(clipped(wave))[self._part]))


class Plcmos:
    """plcmos: the mean over 15 raters. Raises ConfigError: a package is missing."""

    name = "plcmos"
    raters = 15
    seed = 0

    def __init__(self) -> None:
        self._network = _plcmos()
        self._raters = np.random.default_rng(self.seed).normal(size=(self.raters, 1, 64)).astype(np.float32)

    def settings(self) -> Mapping[str, Any]:
        return {**_speechmos_settings("PLCMOS v2"), "raters": self.raters, "seed": self.seed}

    def measure(self, answers: Sequence[Answer]) -> list[Value]:
        return of_speech(answers, _long_enough(lambda wave: self.score(clipped(wave))))

    def score(self, samples: Samples) -> float:
        """Of `samples` [n] at 16 kHz, n ≥ SHORTEST."""
        features = self._network.stft_transform(samples).astype(np.float32)[None, None]
        rated = [self._network.session.run(None, {"degraded_audio": features, "rater_embed": rater})[0]
                 for rater in self._raters]
        return float(np.mean(rated, dtype=np.float64))


class DnsmosNetwork:
    """DNSMOS P.835 over windows of 9.01 s, one a second, averaged; shorter sounds are repeated until they fill one."""

    _window = int(WINDOW * SAMPLE_RATE)  # 144,160 samples
    _fits = (("sig", (-0.08397278, 1.22083953, 0.0052439)),  # published, from the network's numbers to ratings
             ("bak", (-0.13166888, 1.60915514, -0.39604546)),
             ("ovrl", (-0.06766283, 1.11546468, 0.04602535)))

    def __init__(self, session: Any) -> None:
        self.session = session
        self._scored: dict[bytes, dict[str, float]] = {}

    def scores(self, samples: Samples) -> dict[str, float]:
        """Of `samples` [n] at 16 kHz, n > 0; the same sound passes the network once, whichever part is asked for."""
        key = hashlib.sha256(samples.tobytes()).digest()
        if key not in self._scored:
            raw = np.stack([self.session.run(None, {"input_1": window[None]})[0][0]
                            for window in self._windows(samples)]).astype(np.float64)
            self._scored[key] = {part: float(np.polyval(fit, raw[:, i]).mean())
                                 for i, (part, fit) in enumerate(self._fits)}
        return self._scored[key]

    def _windows(self, samples: Samples) -> list[Samples]:
        while len(samples) < self._window:
            samples = np.concatenate([samples, samples])
        count = int(len(samples) // SAMPLE_RATE - WINDOW) + 1
        windows = [samples[i * SAMPLE_RATE:int((i + WINDOW) * SAMPLE_RATE)] for i in range(count)]
        return [window for window in windows if len(window) == self._window]  # rounding drops some, as published


def _long_enough(score: Callable[[Tensor], float]) -> Callable[[Answer, Tensor], Value]:
    """The judge of speech that gives `score` where there is enough to be heard."""
    def judge(_: Answer, wave: Tensor) -> Value:
        if len(wave) < SHORTEST:
            return Value(None, f"lasts {len(wave) / SAMPLE_RATE:.2f} s; at least {SHORTEST / SAMPLE_RATE:.2f} s "
                               "can be judged")
        return Value(score(wave), None, {"seconds": round(len(wave) / SAMPLE_RATE, 3)})

    return judge


def clipped(wave: Tensor) -> Samples:
    """`wave` [n] within full scale."""
    samples: Samples = wave.detach().cpu().clamp(-1.0, 1.0).numpy()
    return samples


@cache
def _dnsmos() -> DnsmosNetwork:
    _, folder = _speechmos()
    return DnsmosNetwork(_session(folder / "dnsmos_models" / "sig_bak_ovr.onnx"))


@cache
def _plcmos() -> Any:
    plcmos, _ = _speechmos()
    network = plcmos.PLCMOS()
    network.session = _session(Path(network.model_path))
    return network


def _session(file: Path) -> Any:
    """A network on one thread: the numbers do not depend on how many cores there are."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _speechmos() -> tuple[Any, Path]:
    """The package's module of PLCMOS, and the folder of its networks."""
    try:
        from speechmos import plcmos
    except ImportError as error:
        raise ConfigError("dnsmos and plcmos: Python packages speechmos and onnxruntime are needed "
                          f"({error}); install them with: pip install 'omnivox[evaluate]'") from error
    return plcmos, Path(plcmos.__file__).parent


def _speechmos_settings(model: str) -> Mapping[str, Any]:
    return {"model": model, "package": f"speechmos {version('speechmos')}"}
