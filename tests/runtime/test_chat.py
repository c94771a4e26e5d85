"""Chat: turns found by the real detector in real speech, answers sent to a device, and clear errors without one."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from omnivox.errors import ConfigError
from omnivox.rates import SAMPLE_RATE
from omnivox.runtime import turns as listening
from omnivox.runtime.chat import Heard, SoundDevice, converse, questions
from omnivox.runtime.events import Audio, Done, Reply, Text
from omnivox.runtime.turns import BLOCK, Silero, TurnSettings, blocks_ms
from omnivox.sound import read_audio
from tests import tiny


class Recording:
    """A device whose microphone plays a recording; it notes what its speaker was given."""

    def __init__(self, samples: Tensor) -> None:
        self.blocks = [block for block in samples.split(BLOCK) if len(block) == BLOCK]
        self.heard: list[str | tuple[int, int]] = []
        self.at = 0

    def record(self) -> Tensor | None:
        self.at += 1
        return self.blocks[self.at - 1] if self.at <= len(self.blocks) else None

    def play(self, samples: Tensor, rate: int) -> None:
        self.heard.append((len(samples), rate))

    def drain(self) -> None:
        self.heard.append("drained")


class Script:
    """A detector that has decided beforehand."""

    def __init__(self, probabilities: Sequence[float]) -> None:
        self.probabilities = iter(probabilities)
        self.resets = 0

    def __call__(self, block: Tensor) -> float:
        return next(self.probabilities)

    def reset(self) -> None:
        self.resets += 1


class Parrot:
    """Answers each question with its length in words and itself in sound."""

    sample_rate = SAMPLE_RATE

    def __init__(self, hears: float = 30.0) -> None:
        self.model = SimpleNamespace(max_samples=round(hears * SAMPLE_RATE))
        self.settings: list[dict[str, object]] = []

    def respond(self, question: Tensor, **settings: object) -> Iterator[Text | Audio | Done]:
        self.settings.append(settings)
        text = f"{len(question)}"
        yield Text(text)
        yield Audio(question)
        yield Done(Reply(text, [], [], question, self.sample_rate))


def numbered(blocks: int) -> Tensor:
    """A recording whose block i holds the value i."""
    return torch.arange(blocks).repeat_interleave(BLOCK).float()


def turns(probabilities: Sequence[float], **settings: float) -> list[list[int]]:
    """Which blocks each turn holds, where the detector says `probabilities`."""
    device = Recording(numbered(len(probabilities)))
    found = questions(device, Script(probabilities), TurnSettings(**settings))
    return [turn.view(-1, BLOCK)[:, 0].int().tolist() for turn in found]


def test_a_turn_runs_from_before_its_speech_to_the_pause_that_ends_it() -> None:
    heard = [0.0] * 5 + [0.9] * 6 + [0.0] * 10
    assert turns(heard, prefix_ms=blocks_ms(2), silence_ms=blocks_ms(3)) == [list(range(3, 14))]


def test_a_short_pause_does_not_end_a_turn() -> None:
    heard = [0.9] * 6 + [0.0] * 2 + [0.9] * 6 + [0.0] * 10
    assert turns(heard, silence_ms=blocks_ms(3)) == [list(range(17))]


def test_doubt_below_the_threshold_neither_starts_nor_ends_a_turn() -> None:
    doubt = 0.4  # between threshold - hysteresis and threshold
    assert turns([doubt] * 20) == []
    assert turns([0.9] * 6 + [doubt] * 5 + [0.9] + [0.0] * 3, silence_ms=blocks_ms(3)) == [list(range(15))]


def test_a_click_is_no_turn_and_is_kept_as_prefix_of_the_next() -> None:
    heard = [0.0] * 3 + [0.9] + [0.0] * 3 + [0.9] * 6 + [0.0] * 3
    settings = {"silence_ms": blocks_ms(3), "min_speech_ms": blocks_ms(3), "prefix_ms": blocks_ms(4)}
    assert turns(heard, **settings) == [list(range(3, 16))]


def test_two_turns_share_no_block_and_the_detector_forgets_between_them() -> None:
    heard = ([0.9] * 6 + [0.0] * 3) * 2
    detector = Script(heard)
    found = list(questions(Recording(numbered(len(heard))), detector, TurnSettings(silence_ms=blocks_ms(3))))
    assert [turn.view(-1, BLOCK)[:, 0].int().tolist() for turn in found] == [list(range(9)), list(range(9, 18))]
    assert detector.resets == 2


def test_an_endless_turn_is_cut() -> None:
    assert [len(turn) for turn in turns([0.9] * 40, max_seconds=blocks_ms(16) / 1000)] == [16, 16, 8]


def test_what_is_being_said_when_the_microphone_ends_is_a_turn() -> None:
    assert turns([0.0] * 2 + [0.9] * 8, prefix_ms=blocks_ms(1)) == [list(range(1, 10))]


@pytest.mark.parametrize(("name", "value"), [("threshold", 0.1), ("threshold", 1.0), ("silence_ms", 5.0)])
def test_settings_that_make_no_sense_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: found {value}"):
        TurnSettings(**{name: value})


def test_the_real_detector_finds_each_question_in_a_noisy_recording(question: Path) -> None:
    pytest.importorskip("silero_vad")
    spoken = read_audio(question)
    pause = torch.zeros(SAMPLE_RATE)
    recording = torch.cat([pause, spoken, pause, spoken, pause])
    recording = recording + 0.003 * torch.randn(len(recording), generator=torch.Generator().manual_seed(0))
    found = list(questions(Recording(recording), Silero()))
    assert len(found) == 2
    for turn in found:  # most of the question, and not much more than the prefix and the pause beside it
        assert 0.8 * len(spoken) < len(turn) < len(spoken) + SAMPLE_RATE


def test_the_real_detector_hears_nothing_in_noise() -> None:
    pytest.importorskip("silero_vad")
    noise = 0.01 * torch.randn(5 * SAMPLE_RATE, generator=torch.Generator().manual_seed(1))
    assert list(questions(Recording(noise), Silero())) == []


def test_loading_the_detector_leaves_the_number_of_threads_alone() -> None:
    pytest.importorskip("silero_vad")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        Silero()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_conversation_plays_each_answer_before_it_listens_again() -> None:
    heard = ([0.9] * 6 + [0.0] * 3) * 2
    device, parrot = Recording(numbered(len(heard))), Parrot()
    settings = TurnSettings(silence_ms=blocks_ms(3))
    events = list(converse(parrot, device, Script(heard), settings, chunk_units=20))  # type: ignore[arg-type]
    assert [type(event) for event in events] == [Heard, Text, Audio, Done] * 2
    assert device.heard == [(9 * BLOCK, SAMPLE_RATE), "drained"] * 2
    assert parrot.settings == [{"chunk_units": 20}] * 2


@pytest.mark.parametrize(("hears", "longest"), [(2.0, 62 * BLOCK), (100.0, 937 * BLOCK)])
def test_a_turn_ends_at_what_the_model_hears(hears: float, longest: int) -> None:
    device = Recording(numbered(1000))
    events = list(converse(Parrot(hears), device, Script([0.9] * 1000)))  # type: ignore[arg-type]
    assert max(len(event.samples) for event in events if isinstance(event, Heard)) == longest
    assert longest <= hears * SAMPLE_RATE


def test_a_model_answers_somebody_who_does_not_stop() -> None:
    omni = tiny.omni()  # it hears 8 s
    device = Recording(0.1 * torch.randn(700 * BLOCK, generator=torch.Generator().manual_seed(0)))
    events = list(converse(omni, device, Script([0.9] * 700), max_new_tokens=2))
    assert sum(isinstance(event, Done) for event in events) == 3


# -- PortAudio, played by a module of the same surface ----------------------------------------------------------------

class FakeStream:
    """Keeps its callback for the test to call."""

    def __init__(self, **settings: object) -> None:
        self.settings, self.callback, self.state = settings, settings["callback"], "made"

    def start(self) -> None:
        self.state = "started"

    def close(self) -> None:
        self.state = "closed"


@pytest.fixture
def portaudio(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("sounddevice")
    module.InputStream = module.OutputStream = FakeStream  # type: ignore[attr-defined]
    module.PortAudioError = type("PortAudioError", (Exception,), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module


def listen(device: SoundDevice, frames: int) -> list[float]:
    """What the speaker plays in its next `frames` samples."""
    out = np.full((frames, 1), np.nan, dtype=np.float32)
    device._say(out, frames, None, SimpleNamespace())
    return out[:, 0].tolist()


def test_what_is_played_comes_out_in_order_and_then_silence(portaudio: ModuleType) -> None:
    with SoundDevice() as device:
        device.play(torch.tensor([0.25, 0.5, 0.75]), SAMPLE_RATE)
        device.play(torch.tensor([1.0]), SAMPLE_RATE)
        assert listen(device, 2) == [0.25, 0.5]
        assert listen(device, 4) == [0.75, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("rate", [24_000, 8_000])
def test_another_rate_is_converted_without_seams(portaudio: ModuleType, rate: int) -> None:
    reply = torch.from_numpy(0.5 * np.sin(2 * np.pi * 220 * np.arange(2 * rate) / rate))
    heard: list[float] = []
    with SoundDevice() as device:
        for _ in range(2):  # the second reply knows nothing of the first
            heard.clear()
            for piece in reply.split(3840):
                device.play(piece, rate)
            waiting = threading.Thread(target=device.drain)
            waiting.start()
            while device._converter is not None:  # until the reply's end has been handed over
                time.sleep(0.001)
            while waiting.is_alive():
                heard += listen(device, BLOCK)
            waiting.join()
    t = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    inner = slice(400, -400)
    assert len(np.trim_zeros(heard)) == pytest.approx(len(t), abs=4)
    np.testing.assert_allclose(np.asarray(heard)[:len(t)][inner], 0.5 * np.sin(2 * np.pi * 220 * t)[inner], atol=1e-4)


def test_the_microphone_gives_blocks_in_order_and_drain_forgets_them(portaudio: ModuleType) -> None:
    with SoundDevice() as device:
        for value in range(3):
            device._hear(np.full((BLOCK, 1), value, dtype=np.float32), BLOCK, None, SimpleNamespace())
        first = device.record()
        assert first is not None
        assert first.tolist() == [0.0] * BLOCK
        device.play(torch.ones(1), SAMPLE_RATE)
        listen(device, 1)
        assert not device._quiet.is_set()  # the last sample has only just been handed over
        listen(device, 1)
        device.drain()
        assert device._recorded.empty()


def test_the_streams_are_closed_even_when_the_conversation_fails(portaudio: ModuleType) -> None:
    device = SoundDevice()
    with device:
        assert device._speaker.state == device._microphone.state == "started"
    with pytest.raises(RuntimeError), device:
        raise RuntimeError
    assert device._speaker.state == device._microphone.state == "closed"


def test_no_microphone_is_one_clear_error(portaudio: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**settings: object) -> None:
        raise portaudio.PortAudioError("Error querying device -1")

    monkeypatch.setattr(portaudio, "InputStream", refuse)
    with pytest.raises(ConfigError, match=r"no microphone or speaker .*Error querying device -1"):
        SoundDevice()


@pytest.mark.parametrize(("package", "make"), [("sounddevice", SoundDevice), ("silero_vad", Silero)])
def test_a_missing_package_is_named_with_what_installs_it(package: str, make: type,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    listening._silero.cache_clear()
    with pytest.raises(ConfigError, match=r"pip install 'omnivox\[chat\]'"):
        make()
