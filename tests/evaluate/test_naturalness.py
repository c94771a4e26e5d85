"""DNSMOS and PLCMOS, whose networks are in the wheel of speechmos: equal to that package's own code, and repeatable."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from omnivox.errors import ConfigError
from omnivox.evaluate import naturalness
from omnivox.evaluate.measure import Answer
from omnivox.evaluate.naturalness import Dnsmos, Plcmos, clipped
from omnivox.sound import read_audio
from tests.evaluate.sounds import noise, tone


@pytest.fixture
def _installed() -> None:
    pytest.importorskip("speechmos", reason="speechmos is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def answers(*waves: torch.Tensor | None, rate: int = 16_000) -> list[Answer]:
    return [Answer(f"a{i}", "?", "x", wave, rate) for i, wave in enumerate(waves)]


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("seconds", [1.0, 9.5, 21.3])
def test_dnsmos_is_the_packages_own(seconds: float) -> None:
    pytest.importorskip("librosa", reason="librosa, which speechmos itself needs, is not installed")
    dnsmos = pytest.importorskip("speechmos.dnsmos")
    wave = clipped(noise(seconds) * tone(seconds, hertz=0.7).abs())
    theirs = dnsmos.run(wave, 16_000)
    for part in Dnsmos.parts:
        [value] = Dnsmos(part).measure(answers(torch.from_numpy(wave)))
        assert value.value == pytest.approx(theirs[f"{part}_mos"], abs=1e-6)


@pytest.mark.usefixtures("_installed")
def test_plcmos_is_the_packages_own_with_the_same_raters(monkeypatch: pytest.MonkeyPatch) -> None:
    from speechmos.plcmos import PLCMOS

    ours, wave = Plcmos(), clipped(noise(1.5))
    raters = iter(ours._raters)
    monkeypatch.setattr(np.random, "normal", lambda size: next(raters).astype(np.float64))
    assert ours.score(wave) == pytest.approx(PLCMOS().get_mos(wave), abs=1e-5)


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("make", [Dnsmos, lambda: Dnsmos("sig"), lambda: Dnsmos("bak"), Plcmos])
def test_the_same_answers_have_the_same_scores(make: type[Plcmos]) -> None:
    heard = answers(noise(1.0), tone(2.0), None, torch.zeros(0), noise(0.2))
    np.random.seed(5)
    measure = make()
    first = measure.measure(heard)
    assert first == measure.measure(heard) == make().measure(heard)
    assert all(value.value is not None and 0.5 < value.value < 5.5 for value in first[:2])
    assert [value.why for value in first[2:]] == [
        "nothing was spoken", "lasts 0.00 s; at least 0.25 s can be judged",
        "lasts 0.20 s; at least 0.25 s can be judged"]
    assert measure.settings()["package"].startswith("speechmos ")


@pytest.mark.usefixtures("_installed")
def test_noise_is_heard(question: object) -> None:
    clean = read_audio(str(question))
    noisy = clean + 0.2 * noise(len(clean) / 16_000)
    for measure in (Dnsmos("ovrl"), Dnsmos("bak")):
        better, worse = measure.measure(answers(clean, noisy))
        assert better.value is not None
        assert worse.value is not None
        assert better.value > worse.value + 0.1, measure.name


@pytest.mark.usefixtures("_installed")
def test_any_rate_and_any_loudness_can_be_judged() -> None:
    for measure in (Dnsmos(), Plcmos()):
        [loud] = measure.measure(answers(5 * noise(1.0)))
        [other] = measure.measure(answers(tone(1.0, 22_050), rate=22_050))
        [same] = measure.measure(answers(tone(1.0)))
        assert loud.value is not None
        assert other.value == pytest.approx(same.value, abs=0.15)
        [broken] = measure.measure(answers(torch.full((16_000,), torch.nan)))
        assert broken.value is None
        assert "16000 of 16000 samples are NaN" in str(broken.why)


def test_an_unknown_part_is_told() -> None:
    with pytest.raises(ConfigError, match="dnsmos: found 'p808'; expected one of ovrl, sig, bak"):
        Dnsmos("p808")


@pytest.mark.parametrize("make", [Dnsmos, Plcmos])
def test_a_missing_package_is_told(make: type[Plcmos], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "speechmos", None)
    naturalness._dnsmos.cache_clear()
    naturalness._plcmos.cache_clear()
    with pytest.raises(ConfigError, match=r"speechmos and onnxruntime are needed .*pip install 'omnivox\[evaluate\]'"):
        make()
