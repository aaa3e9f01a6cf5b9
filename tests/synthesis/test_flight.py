"""Renders that are under way while the engine does something else: the same speech, and nothing given back too soon."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from serve_app.config import SynthesisConfig
from serve_app.errors import GenerationFailed, Overloaded
from serve_app.messages import PreparedSpeech, PreparedUtterance
from serve_app.model.checkpoint import Checkpoint
from serve_app.model.paged_chunks import PagedKept
from serve_app.synthesis.engine import StreamingEngine
from serve_app.synthesis.failures import MAX_FAILED_BATCHES
from serve_app.synthesis.flight import LOOK_S, OVERDUE_S
from serve_app.synthesis.scheduler import Playback
from serve_app.synthesis.stream import StreamEvent
from tests.synthesis.conftest import NO_IDS, Spoken, make_utterance, make_voice, open_stream, run
from tests.synthesis.late_copies import LateCopies

NEVER = 10**9
VOICE = make_voice(1, num_tokens=63)
TEXT = np.random.default_rng(9).integers(0, 256, 17).astype(np.int32)
SETTINGS = {"max_streams": 4, "max_positions": 1024, "render_batch": 4}
FIXED: dict[str, Any] = {"fixed_shapes": True, "memory_mib": 256, "flow_cache_mib": 64}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "serve_app.synthesis.failures")


def late_engine(
    checkpoint: Checkpoint, looks: Callable[[], int] = lambda: NEVER, **settings: object
) -> tuple[StreamingEngine, LateCopies]:
    copies = LateCopies(looks)
    config = SynthesisConfig.model_validate(SETTINGS | settings)
    return StreamingEngine(checkpoint, config, clock=lambda: 0.0, copy_samples=copies), copies


def open_all(engine: StreamingEngine) -> None:
    """Three streams of two voices; the last one is fed its text."""
    for seed in range(2):
        voice = make_voice(seed, num_tokens=40 + 7 * seed)
        open_stream(engine, seed, voice, make_utterance(voice, seed, num_text_tokens=6), seed)
    fed = PreparedUtterance(NO_IDS, VOICE.transcript_ids, VOICE.speech_ids, 0, 0)
    engine.open(2, PreparedSpeech("fed", VOICE, (fed,), seed=4, fed=True), 0, Playback(2.0))


def speak(engine: StreamingEngine) -> tuple[dict[int, list[int]], dict[int, Spoken]]:
    """Tokens and sound of `open_all`'s streams; text comes word by word."""
    open_all(engine)
    streams, spoken = dict(engine._streams), {number: Spoken() for number in range(3)}
    rest = TEXT.tolist()
    while rest or engine.wait_s() is not None:
        if rest:
            engine.feed(2, np.array(rest[:2], np.int32))
            del rest[:2]
            if not rest:
                engine.end(2)
        for _ in range(3):
            for event in engine.step():
                spoken[event.stream_id].events.append(event)
                spoken[event.stream_id].chunks.append(event.samples)
            engine.check()
    return {number: stream.outputs for number, stream in streams.items()}, spoken


def until_under_way(engine: StreamingEngine, copies: LateCopies, num_streams: int = 1) -> list[StreamEvent]:
    """Until a render of so many streams that brings a sound is under way; all before it end at once."""
    events: list[StreamEvent] = []
    while not (engine._flight and len(engine._flight.streams) >= num_streams and len(copies.begun[-1].tensor)):
        if copies.begun:
            copies.begun[-1].looks = 0
        events += engine.step()
    return events


ALONE = {"render_batch": 1}
"""Then a chunk's numbers depend on nobody else in its batch."""


@pytest.mark.parametrize(("settings", "tolerance"), [(ALONE, 0.0), (FIXED, 5e-4)], ids=["ragged", "fixed"])
def test_tokens_and_samples_are_those_of_renders_that_end_at_once(
    checkpoint: Checkpoint, settings: dict[str, object], tolerance: float
) -> None:
    config = SynthesisConfig.model_validate(SETTINGS | settings)
    tokens, sound = speak(StreamingEngine(checkpoint, config, clock=lambda: 0.0))
    random = np.random.default_rng(3)
    engine, copies = late_engine(checkpoint, lambda: int(random.integers(1, 30)), **settings)
    our_tokens, ours = speak(engine)
    assert our_tokens == tokens
    for number, expected in sound.items():
        assert len(expected.samples) > 0
        np.testing.assert_allclose(ours[number].samples, expected.samples, rtol=0, atol=tolerance)
        assert ours[number].events[-1].finished
        assert [event.finished for event in ours[number].events].count(True) == 1
    assert not any(copy.waited for copy in copies.begun)


def test_the_language_model_fills_a_render_and_newcomers_are_read_meanwhile(checkpoint: Checkpoint) -> None:
    engine, copies = late_engine(checkpoint)
    open_stream(engine, 0, VOICE, make_utterance(VOICE, 1, num_text_tokens=36), 1)
    until_under_way(engine, copies)
    stream, num_renders = engine._streams[0], len(copies.begun)
    num_tokens = len(stream.tokens)
    while engine.wait_s() == 0:
        assert not any(len(event.samples) for event in engine.step())
    assert len(stream.tokens) >= num_tokens + 50, "two chunks ahead of those that are rendered"
    assert engine.wait_s() == LOOK_S
    assert engine.step() == []
    open_stream(engine, 1, VOICE, make_utterance(VOICE, 2, num_text_tokens=30), 2)
    while engine.wait_s() == 0:
        engine.step()
    assert engine._streams[1].tokens, "read, and speaking"
    assert len(copies.begun) == num_renders, "one render at a time"
    copies.begun[-1].looks = 0
    assert engine.wait_s() == 0
    (event,) = engine.step()
    assert event.stream_id == 0 and len(event.samples)
    engine.step()
    assert len(copies.begun) == num_renders + 1


def test_who_leaves_hears_nothing_and_gives_back_what_it_held_when_the_render_has_ended(checkpoint: Checkpoint) -> None:
    undisturbed, _ = late_engine(checkpoint, lambda: 0, **FIXED)
    for number in range(2):
        open_stream(undisturbed, number, VOICE, make_utterance(VOICE, number, 8), number)
    expected = run(undisturbed)[1]
    engine, copies = late_engine(checkpoint, **FIXED)
    num_slots = engine._language.num_free_slots
    for number in range(2):
        open_stream(engine, number, VOICE, make_utterance(VOICE, number, 8), number)
    events = until_under_way(engine, copies)
    slots_left = engine._language.num_free_slots
    leaver = engine._streams[0]
    assert leaver.flow is not None and isinstance(leaver.flow.kept, PagedKept)
    slot, kept, pages = leaver.slot, leaver.flow.kept, list(leaver.flow.kept.pages)
    engine.close(0)
    engine.close(0)
    engine.check()
    assert leaver.slot == slot and kept.pages == pages and pages
    assert engine._language.num_free_slots == slots_left == num_slots - 2
    assert engine.num_listeners == 1
    copies.looks = lambda: 0
    copies.begun[-1].looks = 0
    while engine.wait_s() is not None:
        events += engine.step()
        engine.check()
    assert leaver.slot is None and not kept.pages
    assert not any(event.stream_id == 0 and len(event.samples) for event in events)
    ours = np.concatenate([event.samples for event in events if event.stream_id == 1])
    np.testing.assert_allclose(ours, expected.samples, atol=5e-4)
    assert engine._language.num_free_slots == num_slots


def test_an_engine_that_everybody_has_left_still_ends_the_render(checkpoint: Checkpoint) -> None:
    engine, copies = late_engine(checkpoint)
    open_stream(engine, 0, VOICE, make_utterance(VOICE, 1, 8), 1)
    until_under_way(engine, copies)
    engine.close(0)
    assert (engine.wait_s(), engine.num_listeners) == (LOOK_S, 0)
    copies.begun[-1].error = RuntimeError("a device that failed")
    copies.begun[-1].looks = 0
    assert engine.step() == []
    assert not engine._streams
    assert run(engine) == {}
    assert engine._language.num_free_slots == engine._num_slots
    engine.check()


def test_a_render_that_fails_under_way_ends_those_in_it_alone(checkpoint: Checkpoint) -> None:
    undisturbed, _ = late_engine(checkpoint, lambda: 0)
    engine, copies = late_engine(checkpoint, render_batch=2)
    for each in (undisturbed, engine):
        for number in range(3):
            open_stream(each, number, VOICE, make_utterance(VOICE, number, 4), number)
    expected = run(undisturbed)
    events = until_under_way(engine, copies, num_streams=2)
    assert engine._flight is not None
    stays, leaves = (stream.stream_id for stream in engine._flight.streams)
    engine.close(leaves)
    copies.begun[-1].error, copies.begun[-1].looks = torch.OutOfMemoryError("CUDA out of memory"), 0
    copies.looks = lambda: 0
    (event,) = engine.step()
    assert event.stream_id == stays and event.finished
    assert isinstance(event.error, Overloaded)
    engine.check()
    while engine.wait_s() is not None:
        events += engine.step()
    (other,) = set(range(3)) - {stays, leaves}
    ours = np.concatenate([event.samples for event in events if event.stream_id == other])
    np.testing.assert_allclose(ours, expected[other].samples, atol=1e-4)
    engine.check()


def test_renders_that_fail_again_and_again_are_the_engines_fault(checkpoint: Checkpoint) -> None:
    engine, copies = late_engine(checkpoint, lambda: 1)
    failures = 0
    for number in range(MAX_FAILED_BATCHES):
        open_stream(engine, number, VOICE, make_utterance(VOICE, number, 1), number)
        stream = engine._streams[number]
        stream.progress.unread, stream.progress.generated = 0, True  # nothing but a render is left to do
        stream.tokens = [5] * 30
        engine._render.open(stream)
        assert engine.step() == []
        copies.begun[-1].error = RuntimeError("a broken device")
        if number < MAX_FAILED_BATCHES - 1:
            (event,) = engine.step()
            failures += event.error is not None
    assert failures == MAX_FAILED_BATCHES - 1
    with pytest.raises(RuntimeError, match="a broken device"):
        engine.step()


def test_a_stream_whose_decoding_fails_while_its_chunk_is_rendered_ends_once(checkpoint: Checkpoint) -> None:
    engine, copies = late_engine(checkpoint)
    open_stream(engine, 0, VOICE, make_utterance(VOICE, 1, num_text_tokens=20), 1)
    until_under_way(engine, copies)
    stream = engine._streams[0]
    fault = stream.fault = GenerationFailed("the model produced no valid speech")
    (event,) = engine.step()
    assert event.error is fault and event.finished
    assert stream.slot is not None
    engine.check()
    copies.begun[-1].looks = 0
    assert engine.step() == []
    engine.check()
    assert engine._language.num_free_slots == engine._num_slots


def test_a_render_that_does_not_end_is_waited_for_in_a_step(checkpoint: Checkpoint) -> None:
    now = [0.0]
    copies = LateCopies(lambda: NEVER)
    config = SynthesisConfig.model_validate(SETTINGS)
    engine = StreamingEngine(checkpoint, config, clock=lambda: now[0], copy_samples=copies)
    open_stream(engine, 0, VOICE, make_utterance(VOICE, 1, num_text_tokens=20), 1)
    until_under_way(engine, copies)
    engine.step()
    assert not copies.begun[-1].waited
    now[0] += 2 * OVERDUE_S
    assert engine.wait_s() == 0
    assert len(engine.step()[0].samples) and copies.begun[-1].waited
