"""Exceptions inside a step: the streams of that batch end with an error, the others sound as if nothing had been."""

import logging
from typing import Any

import numpy as np
import pytest
import torch

from serve_app.errors import GenerationFailed, Overloaded
from serve_app.model.checkpoint import Checkpoint
from serve_app.synthesis.engine import StreamingEngine
from serve_app.synthesis.failures import MAX_FAILED_BATCHES
from serve_app.synthesis.scheduler import Batch, Work
from tests.synthesis.conftest import make_utterance, make_voice, open_stream, run


class Faulty(StreamingEngine):
    """Raises `error` in the batches that `strikes` chooses."""

    error: Exception = RuntimeError("a bug")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.victims: list[tuple[int, ...]] = []

    def strikes(self, batch: Batch) -> bool:
        return False

    def _run(self, batch: Batch) -> Any:
        events = super()._run(batch)  # the state is as broken as it can be: changed, and nobody told
        if self.strikes(batch):
            self.victims.append(batch.stream_ids)
            raise self.error
        return events


@pytest.fixture
def faulty(checkpoint: Checkpoint, engine_config: Any, caplog: pytest.LogCaptureFixture) -> Faulty:
    caplog.set_level(logging.CRITICAL, "serve_app.synthesis.failures")
    return Faulty(checkpoint, engine_config)


def open_some(engine: StreamingEngine, number: int) -> None:
    for stream_id in range(number):
        voice = make_voice(stream_id)
        open_stream(engine, stream_id, voice, make_utterance(voice, stream_id), stream_id)


@pytest.mark.parametrize("work", [Work.PREFILL, Work.RENDER])
def test_an_exception_in_one_stream_ends_that_stream_alone(
    engine: StreamingEngine, faulty: Faulty, monkeypatch: pytest.MonkeyPatch, work: Work
) -> None:
    open_some(engine, 3)
    undisturbed = run(engine)
    monkeypatch.setattr(faulty, "strikes", lambda batch: batch.work is work and batch.stream_ids == (1,))
    open_some(faulty, 3)
    spoken = run(faulty)
    assert faulty.victims == [(1,)]
    assert isinstance(spoken[1].events[-1].error, GenerationFailed) and spoken[1].events[-1].finished
    for stream_id in (0, 2):
        np.testing.assert_array_equal(spoken[stream_id].samples, undisturbed[stream_id].samples)
    faulty.check()


def test_an_exception_in_a_whole_batch_ends_its_streams_and_the_next_are_served(
    engine: StreamingEngine, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_some(engine, 3)
    undisturbed = run(engine)
    monkeypatch.setattr(faulty, "strikes", lambda batch: batch.work is Work.DECODE and not faulty.victims)
    open_some(faulty, 3)
    spoken = run(faulty)
    [victims] = faulty.victims
    assert len(victims) > 1
    for stream_id in victims:
        assert isinstance(spoken[stream_id].events[-1].error, GenerationFailed)
    faulty.check()
    open_some(faulty, 3)
    again = run(faulty)
    for stream_id in range(3):
        np.testing.assert_array_equal(again[stream_id].samples, undisturbed[stream_id].samples)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_device_without_memory_refuses_and_gives_back_what_it_can(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    faulty.error = error
    open_some(faulty, 1)
    run(faulty)
    assert faulty.prefixes.num_bytes > 0
    monkeypatch.setattr(faulty, "strikes", lambda batch: not faulty.victims)
    open_some(faulty, 1)
    [event] = faulty.step()
    assert isinstance(event.error, Overloaded)
    assert faulty.prefixes.num_bytes == 0
    faulty.check()
    open_some(faulty, 1)
    assert len(run(faulty)[0].samples) > 0


def test_an_engine_that_fails_again_and_again_is_itself_at_fault(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faulty, "strikes", lambda batch: True)
    open_some(faulty, MAX_FAILED_BATCHES)
    for _ in range(MAX_FAILED_BATCHES - 1):
        assert all(event.error is not None for event in faulty.step())
    with pytest.raises(RuntimeError, match="a bug"):
        faulty.step()
