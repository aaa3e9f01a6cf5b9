"""Exceptions inside a step: a stream whose own step fails ends with an error; the others never hear of it."""

import logging
from typing import Any

import numpy as np
import pytest
import torch

from serve_app.errors import GenerationFailed, Overloaded
from serve_app.model.checkpoint import Checkpoint
from serve_app.synthesis.attempt import Attempt
from serve_app.synthesis.engine import StreamingEngine
from serve_app.synthesis.failures import MAX_FAILED_BATCHES
from serve_app.synthesis.scheduler import Batch, Work
from tests.synthesis.conftest import make_utterance, make_voice, open_stream, run


class Faulty(StreamingEngine):
    """Raises `error` in the batches that `strikes` chooses; with `forward_only` where the forward would: before a token
    is taken."""

    error: Exception = RuntimeError("a bug")
    forward_only = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.victims: list[tuple[int, ...]] = []

    def strikes(self, batch: Batch) -> bool:
        return False

    def _run(self, attempt: Attempt) -> Any:
        batch = attempt.batch
        if not self.forward_only:
            events = super()._run(attempt)  # the state is as broken as it can be: changed, and nobody told
        if self.strikes(batch):
            self.victims.append(batch.stream_ids)
            for stream_id in batch.stream_ids:
                self._streams[stream_id].position += self.forward_only  # as decode does before it draws
            raise type(self.error)(*self.error.args)  # a raised exception keeps the engine; those here are for ever
        return super()._run(attempt) if self.forward_only else events


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


@pytest.mark.parametrize("error", [RuntimeError("a bug"), torch.OutOfMemoryError("CUDA out of memory")])
def test_of_a_decode_batch_only_the_stream_at_fault_ends(
    engine: StreamingEngine, faulty: Faulty, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    open_some(engine, 4)
    undisturbed = run(engine)
    faulty.error, faulty.forward_only = error, True
    monkeypatch.setattr(faulty, "strikes", lambda batch: batch.work is Work.DECODE and 2 in batch.stream_ids)
    open_some(faulty, 4)
    spoken = run(faulty)
    assert len(faulty.victims[0]) > 1 and faulty.victims[1:] == [(2,)]
    answer = Overloaded if isinstance(error, torch.OutOfMemoryError) else GenerationFailed
    assert isinstance(spoken[2].events[-1].error, answer)
    for stream_id in (0, 1, 3):
        np.testing.assert_array_equal(spoken[stream_id].samples, undisturbed[stream_id].samples)
    faulty.check()


def test_a_batch_that_has_no_stream_at_fault_ends_none(
    engine: StreamingEngine, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_some(engine, 3)
    undisturbed = run(engine)
    faulty.forward_only = True
    monkeypatch.setattr(faulty, "strikes", lambda batch: len(batch.stream_ids) == 3 and len(faulty.victims) < 9)
    open_some(faulty, 3)
    spoken = run(faulty)
    assert len(faulty.victims) == 9
    for stream_id in range(3):
        np.testing.assert_array_equal(spoken[stream_id].samples, undisturbed[stream_id].samples)
    faulty.check()


def test_streams_that_are_too_many_together_for_the_memory_become_fewer(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty.error, faulty.forward_only = torch.OutOfMemoryError("CUDA out of memory"), True
    monkeypatch.setattr(faulty, "strikes", lambda batch: len(batch.stream_ids) > 2)
    open_some(faulty, 5)
    spoken = run(faulty)
    assert [len(victims) for victims in faulty.victims] == [5, 4, 3], "one less each time, and no more failures then"
    refused = [isinstance(spoken[stream_id].events[-1].error, Overloaded) for stream_id in range(5)]
    assert refused == [False, False, True, True, True], "the least urgent first"
    faulty.check()


def test_an_exception_in_a_whole_batch_that_cannot_be_repeated_ends_its_streams(
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
