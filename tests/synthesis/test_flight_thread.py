"""Renders that are under way, seen from outside the engine's thread: one that does not end, and an end meanwhile."""

import asyncio
import itertools
import threading
from dataclasses import dataclass, field

import pytest
import torch

from serve_app.config import SynthesisConfig
from serve_app.errors import GenerationFailed
from serve_app.messages import PreparedSpeech
from serve_app.model.checkpoint import Checkpoint
from serve_app.synthesis.engine import StreamingEngine
from serve_app.synthesis.engine_thread import EngineThread
from serve_app.synthesis.flight import OVERDUE_S
from tests.synthesis.conftest import make_utterance
from tests.synthesis.late_copies import LateCopy
from tests.synthesis.test_engine_thread import collect
from tests.synthesis.test_flight import NEVER, SETTINGS, VOICE, late_engine
from tests.synthesis.test_watchdog import until_fault


@dataclass
class Stuck(LateCopy):
    """Cannot be waited for until the gate opens."""

    gate: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> torch.Tensor:
        self.gate.wait()
        return super().__call__()


async def test_the_watchdog_sees_a_render_that_does_not_end(checkpoint: Checkpoint) -> None:
    seconds, gate = itertools.count(0, 2 * OVERDUE_S), threading.Event()
    config = SynthesisConfig.model_validate(SETTINGS)
    engine = StreamingEngine(
        checkpoint, config, clock=lambda: next(seconds), copy_samples=lambda tensor: Stuck(tensor, NEVER, gate=gate)
    )
    thread = EngineThread(engine, max_streams=2, max_step_s=0.05)
    speech = PreparedSpeech("request", VOICE, (make_utterance(VOICE, 1),), 1)
    speaking = asyncio.create_task(collect(thread.speak(speech)))
    try:
        assert "has not ended" in str(await until_fault(thread, there=True))
    finally:
        gate.set()
    assert len(await speaking) > 0, "it was only slow"
    thread.stop()


async def test_a_thread_that_is_stopped_while_a_render_is_under_way_tells_its_listeners(checkpoint: Checkpoint) -> None:
    begun, loop = asyncio.Event(), asyncio.get_running_loop()

    def begin() -> int:
        loop.call_soon_threadsafe(begun.set)
        return NEVER

    engine, _ = late_engine(checkpoint, begin)
    thread = EngineThread(engine, max_streams=2)
    speech = PreparedSpeech("request", VOICE, (make_utterance(VOICE, 1, num_text_tokens=20),), 1)
    speaking = asyncio.create_task(collect(thread.speak(speech)))
    await asyncio.wait_for(begun.wait(), 60)
    thread.stop()
    with pytest.raises(GenerationFailed, match="stopped"):
        await speaking
