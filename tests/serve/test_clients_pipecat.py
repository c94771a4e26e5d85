"""Pipecat's OpenAI Realtime service, in a pipeline of its own, against our server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pipecat", exc_type=ImportError)

from tests.serve.running import WAIT
from tests.serve.snippets import ANSWER, RATE, WORDS, loudness, run, snippet


def pipecat(llm: Any, frames: list[Any], until: type) -> list[Any]:
    """Puts `frames` into a pipeline of `llm` alone; gives what comes out, up to the first frame of that type."""
    from pipecat.frames.frames import EndFrame, ErrorFrame
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineWorker
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
    from pipecat.workers.runner import WorkerRunner

    class Sink(FrameProcessor):
        """Keeps what comes; an error travels up, so there is one at either end."""

        async def process_frame(self, frame: Any, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            came.append(frame)
            if isinstance(frame, until | ErrorFrame):
                finished.set()
            await self.push_frame(frame, direction)

    came: list[Any] = []

    async def talk() -> None:
        worker = PipelineWorker(Pipeline([Sink(), llm, Sink()]), cancel_on_idle_timeout=False, enable_rtvi=False)
        started = asyncio.Event()

        @worker.event_handler("on_pipeline_started")
        async def on_started(worker: Any, frame: Any) -> None:
            started.set()

        async def push() -> None:
            await asyncio.wait_for(started.wait(), WAIT)
            for frame in frames:
                await worker.queue_frame(frame)
            await asyncio.wait_for(finished.wait(), WAIT)
            await worker.queue_frame(EndFrame())

        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        await asyncio.gather(runner.run(), push())

    finished = asyncio.Event()
    asyncio.run(talk())
    errors = [frame for frame in came if isinstance(frame, ErrorFrame)]
    assert not errors, errors
    return came


@pytest.fixture
def pipecat_service(address: str, root: Path) -> Any:
    return run(snippet("Pipecat", "python", address, root))["llm"]


def audio_frames(spoken: bytes) -> list[Any]:
    """A microphone's: a little silence, the question, a second of silence, in frames of 20 ms."""
    from pipecat.frames.frames import InputAudioRawFrame

    stream = bytes(RATE) + spoken + bytes(2 * RATE)
    return [InputAudioRawFrame(stream[start:start + 960], RATE, 1) for start in range(0, len(stream), 960)]


def test_pipecat_is_spoken_to_and_answers(pipecat_service: Any, spoken: bytes) -> None:
    from pipecat.frames import frames

    came = pipecat(pipecat_service, audio_frames(spoken), frames.TTSStoppedFrame)
    heard = "".join(frame.text for frame in came if isinstance(frame, frames.TTSTextFrame))
    assert heard == ANSWER
    sound = b"".join(frame.audio for frame in came if isinstance(frame, frames.TTSAudioRawFrame))
    assert len(sound) > RATE
    assert loudness(sound) > 0.01
    order = [type(frame) for frame in came if isinstance(frame, frames.LLMFullResponseStartFrame
                                                         | frames.TTSStartedFrame | frames.TTSStoppedFrame)]
    assert order == [frames.LLMFullResponseStartFrame, frames.TTSStartedFrame, frames.TTSStoppedFrame]
    proposed = {type(frame) for frame in came}
    assert {frames.ProposedUserStartedSpeakingFrame, frames.ProposedUserStoppedSpeakingFrame} <= proposed


def test_pipecat_sends_its_context(pipecat_service: Any) -> None:
    from pipecat.frames import frames
    from pipecat.processors.aggregators.llm_context import LLMContext

    context = LLMContext(messages=[{"role": "user", "content": WORDS}])
    came = pipecat(pipecat_service, [frames.LLMContextFrame(context)], frames.TTSStoppedFrame)
    assert "".join(frame.text for frame in came if isinstance(frame, frames.TTSTextFrame)) == ANSWER


def test_pipecat_is_interrupted(pipecat_service: Any) -> None:
    """It truncates what it has not played; that must not be an error, for any error ends its session."""
    from pipecat.frames import frames
    from pipecat.processors.aggregators.llm_context import LLMContext

    context = LLMContext(messages=[{"role": "user", "content": WORDS}])
    seen: list[str] = []
    truncate = pipecat_service._truncate_current_audio_response

    async def noted() -> None:
        seen.append("truncate" if pipecat_service._current_audio_response else "nothing to truncate")
        await truncate()

    pipecat_service._truncate_current_audio_response = noted
    handle = pipecat_service._handle_evt_audio_delta

    async def speak_over(event: Any) -> None:
        await handle(event)
        await pipecat_service._handle_interruption()

    pipecat_service._handle_evt_audio_delta = speak_over
    pipecat(pipecat_service, [frames.LLMContextFrame(context)], frames.LLMFullResponseEndFrame)
    assert "truncate" in seen
