"""The bridge between asyncio and the engine, over an engine that makes numbers instead of sound."""

import asyncio
import dataclasses
import threading
from collections.abc import AsyncGenerator, Iterator

import numpy as np
import pytest

from serve_app.errors import GenerationFailed, InputTooLong, InvalidRequest, NotReady, Overloaded
from serve_app.messages import AudioChunk, Int32Array, PreparedSpeech, PreparedUtterance, SpeakingReplica, VoicePrompt
from serve_app.synthesis.engine_thread import EngineThread
from serve_app.synthesis.scheduler import Playback
from serve_app.synthesis.settings import LiveSettings
from serve_app.synthesis.stream import StreamEvent, failed

NONE = np.zeros(0, dtype=np.int32)


class CountingEngine:
    """Each stream's samples are its utterance's first text id, one chunk a step, as many chunks as the id says.

    A fed stream says each id that it is given, once.
    """

    def __init__(self) -> None:
        self.streams: dict[int, list[int]] = {}
        self.fed: dict[int, list[int | None]] = {}
        self.opened: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.broken = False
        self.leak = False
        self.most_listeners = 1_000_000

    def wait_s(self) -> float | None:
        return 0.0 if self.streams or any(self.fed.values()) else None

    def open(self, stream_id: int, speech: PreparedSpeech, index: int, playback: Playback) -> None:
        if speech.fed:
            self.fed[stream_id] = [*speech.utterances[index].text_ids.tolist()]
            return
        size = int(speech.utterances[index].text_ids[0])
        if size == 99:
            raise InputTooLong("too long")
        self.opened.append(index)
        self.streams[stream_id] = [size, size]

    def close(self, stream_id: int) -> None:
        self.streams.pop(stream_id, None)
        self.fed.pop(stream_id, None)

    def feed(self, stream_id: int, text_ids: Int32Array) -> None:
        if stream_id in self.fed:
            self.fed[stream_id] += text_ids.tolist()

    def end(self, stream_id: int) -> None:
        if stream_id in self.fed:
            self.fed[stream_id].append(None)

    def step(self) -> list[StreamEvent]:
        self.gate.wait()
        if self.broken:
            raise RuntimeError("a bug")
        if any(self.fed.values()):
            return [self.say_what_was_fed()]
        stream_id = next(iter(self.streams))
        state = self.streams[stream_id]
        if state[0] == 66:
            self.close(stream_id)
            return [failed(stream_id, GenerationFailed("no valid sound"))]
        state[1] -= 1
        finished = state[1] == 0
        if finished:
            self.close(stream_id)
        return [StreamEvent(stream_id, np.full(2, state[0], np.float32), 1, generated=True, finished=finished)]

    def say_what_was_fed(self) -> StreamEvent:
        stream_id, ids = next((stream_id, ids) for stream_id, ids in self.fed.items() if ids)
        value = ids.pop(0)
        if value is None:
            self.close(stream_id)
        samples = np.full(0 if value is None else 2, value or 0, np.float32)
        return StreamEvent(stream_id, samples, 1, generated=value is None, finished=value is None)

    def prefix_counts(self) -> tuple[int, int]:
        return 5, 2

    def num_spare(self) -> int:
        return 7 - len(self.streams)

    def admits(self, num_listeners: int) -> bool:
        return num_listeners < self.most_listeners

    def adjust(self, settings: LiveSettings) -> None:
        self.settings = settings

    def check(self) -> None:
        assert not self.leak, "a slot leaked"


def speech(*sizes: int) -> PreparedSpeech:
    voice = VoicePrompt("v", NONE, NONE, np.zeros((0, 80), np.float32), np.zeros(192, np.float32))
    utterances = tuple(PreparedUtterance(np.array([s], np.int32), NONE, NONE, 0, 1) for s in sizes)
    return PreparedSpeech("r", voice, utterances, seed=1)


def fed_speech(*ids: int, request_id: str = "fed") -> PreparedSpeech:
    utterance = dataclasses.replace(speech(1).utterances[0], text_ids=np.array(ids, np.int32))
    return dataclasses.replace(speech(1), request_id=request_id, utterances=(utterance,), fed=True)


async def chunks_of(items: AsyncGenerator[AudioChunk | SpeakingReplica, None]) -> AsyncGenerator[AudioChunk, None]:
    async for item in items:
        assert isinstance(item, AudioChunk)
        yield item


async def collect(items: AsyncGenerator[AudioChunk | SpeakingReplica, None]) -> list[tuple[int, int]]:
    return [(chunk.utterance, int(chunk.samples[0])) async for chunk in chunks_of(items) if len(chunk.samples)]


@pytest.fixture
def engine() -> CountingEngine:
    return CountingEngine()


@pytest.fixture
def thread(engine: CountingEngine) -> Iterator[EngineThread]:
    bridge = EngineThread(engine, max_streams=2, replica_id="here")
    yield bridge
    engine.gate.set()
    bridge.stop()


async def test_utterances_arrive_in_order_whole(thread: EngineThread) -> None:
    assert await collect(thread.speak(speech(3, 1, 2))) == [(0, 3)] * 3 + [(1, 1)] + [(2, 2)] * 2
    assert thread.num_streams == 0


async def test_the_first_chunk_says_how_long_the_engine_worked_for_it(
    thread: EngineThread, engine: CountingEngine
) -> None:
    works = [chunk.work_s async for chunk in chunks_of(thread.speak(speech(3, 1)))]
    assert works[0] > 0 and works[1:] == [0.0] * 3


async def test_a_pause_at_the_end_is_exact_silence(thread: EngineThread) -> None:
    spoken = dataclasses.replace(speech(1), pause_after_s=0.25)
    chunks = [(len(chunk.samples), bool(chunk.samples.any())) async for chunk in chunks_of(thread.speak(spoken))]
    assert chunks == [(2, True), (6_000, False)]


async def test_two_listeners_at_once_get_their_own(thread: EngineThread) -> None:
    first, second = await asyncio.gather(collect(thread.speak(speech(5))), collect(thread.speak(speech(4))))
    assert first == [(0, 5)] * 5 and second == [(0, 4)] * 4


async def test_one_listener_too_many_is_refused_and_its_place_returns(
    thread: EngineThread, engine: CountingEngine
) -> None:
    engine.gate.clear()
    waiting = [asyncio.ensure_future(collect(thread.speak(speech(1)))) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await collect(thread.speak(speech(1)))
    engine.gate.set()
    await asyncio.gather(*waiting)
    assert await collect(thread.speak(speech(1))) == [(0, 1)]


async def test_whom_there_is_no_time_for_is_refused_in_the_middle_of_a_step(
    thread: EngineThread, engine: CountingEngine
) -> None:
    engine.most_listeners = 1
    engine.gate.clear()
    waiting = asyncio.ensure_future(collect(thread.speak(speech(1))))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="run dry"):
        await collect(thread.speak(speech(1)))
    engine.gate.set()
    assert await waiting == [(0, 1)]
    assert await collect(thread.speak(speech(1))) == [(0, 1)]


async def test_a_listener_that_leaves_frees_its_streams(thread: EngineThread, engine: CountingEngine) -> None:
    chunks = thread.speak(speech(1_000_000, 1_000_000))
    await anext(chunks)
    await chunks.aclose()
    await thread.check()  # answered by the engine's thread, so after the close
    assert not engine.streams and thread.num_streams == 0


async def test_a_cancelled_listener_frees_its_streams(thread: EngineThread, engine: CountingEngine) -> None:
    engine.gate.clear()
    task = asyncio.ensure_future(collect(thread.speak(speech(1_000_000))))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    engine.gate.set()
    await thread.check()
    assert not engine.streams and thread.num_streams == 0


@pytest.mark.parametrize(("size", "error"), [(99, InputTooLong), (66, GenerationFailed)])
async def test_an_error_of_one_stream_reaches_its_listener_alone(
    thread: EngineThread, size: int, error: type[Exception]
) -> None:
    good, bad = await asyncio.gather(
        collect(thread.speak(speech(4))), collect(thread.speak(speech(size))), return_exceptions=True
    )
    assert good == [(0, 4)] * 4 and isinstance(bad, error)


async def test_a_bug_in_the_engine_fails_every_listener_and_is_remembered(
    thread: EngineThread, engine: CountingEngine
) -> None:
    engine.gate.clear()
    listeners = [asyncio.ensure_future(collect(thread.speak(speech(3)))) for _ in range(2)]
    await asyncio.sleep(0)
    engine.broken = True
    engine.gate.set()
    outcomes = await asyncio.gather(*listeners, return_exceptions=True)
    assert all(isinstance(outcome, GenerationFailed | NotReady) for outcome in outcomes)
    assert "a bug" in str(thread.fault())
    with pytest.raises(NotReady):
        await collect(thread.speak(speech(1)))


async def test_a_leak_is_found_when_the_engine_is_idle(thread: EngineThread, engine: CountingEngine) -> None:
    await thread.check()
    engine.leak = True
    with pytest.raises(AssertionError, match="a slot leaked"):
        await thread.check()


async def test_spare_streams_are_the_least_of_what_engine_and_limit_allow(
    thread: EngineThread, engine: CountingEngine
) -> None:
    assert await thread.num_spare() == 2
    engine.gate.clear()
    task = asyncio.ensure_future(collect(thread.speak(speech(1))))
    await asyncio.sleep(0)
    engine.gate.set()
    await task
    assert await thread.num_spare() == 2


async def test_the_uses_of_the_prefix_cache_can_be_asked_for(thread: EngineThread) -> None:
    assert await thread.prefix_counts() == (5, 2)


async def test_a_stopped_thread_refuses(engine: CountingEngine) -> None:
    bridge = EngineThread(engine, max_streams=1)
    bridge.stop()
    with pytest.raises(NotReady):
        await collect(bridge.speak(speech(1)))


async def test_text_is_fed_while_it_is_spoken(thread: EngineThread) -> None:
    items = thread.speak(fed_speech(5))
    assert await anext(items) == SpeakingReplica("here")
    first = await anext(items)
    assert isinstance(first, AudioChunk) and first.samples.tolist() == [5, 5]
    thread.feed("fed", np.array([7, 8], np.int32))
    second = await anext(items)
    assert isinstance(second, AudioChunk) and second.samples.tolist() == [7, 7]
    thread.feed("another", np.array([1], np.int32))
    thread.end("another")
    thread.feed("fed", np.array([9], np.int32))
    thread.end("fed")
    assert await collect(items) == [(0, 8), (0, 9)]
    thread.feed("fed", np.array([1], np.int32))  # too late, and nobody's fault
    await thread.check()
    assert thread.num_streams == 0


async def test_a_fed_request_can_begin_without_text_and_end_without_any(thread: EngineThread) -> None:
    items = thread.speak(fed_speech())
    assert isinstance(await anext(items), SpeakingReplica)
    thread.end("fed")
    assert await collect(items) == []
    assert thread.num_streams == 0


async def test_an_abandoned_fed_request_leaves_nothing(thread: EngineThread, engine: CountingEngine) -> None:
    for _ in range(50):
        items = thread.speak(fed_speech())
        await anext(items)
        thread.feed("fed", np.array([3], np.int32))
        await items.aclose()
    await thread.check()
    assert not engine.fed and not engine.streams and thread.num_streams == 0


async def test_an_id_is_fed_once_at_a_time(thread: EngineThread) -> None:
    items = thread.speak(fed_speech())
    await anext(items)
    with pytest.raises(InvalidRequest):
        await anext(thread.speak(fed_speech()))
    thread.end("fed")
    assert await collect(items) == []
    again = thread.speak(fed_speech(4))
    assert isinstance(await anext(again), SpeakingReplica)
    thread.end("fed")
    assert await collect(again) == [(0, 4)]


async def test_an_engine_that_breaks_ends_a_fed_request_too(thread: EngineThread, engine: CountingEngine) -> None:
    items = thread.speak(fed_speech())
    await anext(items)
    engine.broken = True
    thread.feed("fed", np.array([3], np.int32))
    with pytest.raises(GenerationFailed):
        await anext(items)
    thread.feed("fed", np.array([3], np.int32))
    with pytest.raises(NotReady):
        await thread.check()
