"""A step that does not end is noticed: the replica says so, refuses newcomers at once, and can still be stopped."""

import asyncio
from collections.abc import Iterator

import pytest

from serve_app.errors import NotReady
from serve_app.synthesis.engine_thread import EngineThread
from serve_app.synthesis.watchdog import Watchdog
from tests.synthesis.test_engine_thread import CountingEngine, collect, speech


@pytest.fixture
def engine() -> CountingEngine:
    return CountingEngine()


@pytest.fixture
def thread(engine: CountingEngine) -> Iterator[EngineThread]:
    bridge = EngineThread(engine, max_streams=2, max_step_s=0.02)
    yield bridge
    engine.gate.set()
    bridge.stop()


async def until_fault(thread: EngineThread, *, there: bool) -> str | None:
    for _ in range(1000):
        if (thread.fault() is not None) == there:
            return thread.fault()
        await asyncio.sleep(0.01)
    raise AssertionError("the watchdog saw nothing")


async def test_a_step_that_hangs_is_a_fault_and_newcomers_are_refused(
    engine: CountingEngine, thread: EngineThread
) -> None:
    assert await collect(thread.speak(speech(2))) == [(0, 2)] * 2
    engine.gate.clear()
    waiting = asyncio.create_task(collect(thread.speak(speech(1))))
    assert "has not ended" in str(await until_fault(thread, there=True))
    with pytest.raises(NotReady):
        await anext(thread.speak(speech(1)))
    engine.gate.set()
    assert await waiting == [(0, 1)], "it was only slow"
    await until_fault(thread, there=False)


def looks_until_it_hangs(pauses_s: list[float], ends_after: int | None = None) -> int | None:
    """Looks at a step, a pause before each, until one sees that it hangs. ends_after: the next begins at that look."""
    now_s = 100.0
    watchdog = Watchdog(5.0, lambda: now_s)
    began_at_s = now_s
    for number, pause_s in enumerate(pauses_s):
        now_s += pause_s
        if number == ends_after:
            began_at_s = now_s
        if watchdog.hangs(began_at_s):
            return number
    return None


def test_a_machine_that_stood_still_is_no_step_that_hangs() -> None:
    assert looks_until_it_hangs([1.0] * 20) == 5, "the sixth second"
    assert looks_until_it_hangs([0.1, 3600.0, 0.1]) is None
    assert looks_until_it_hangs([0.1, 3600.0] + [1.0] * 20) == 4, "still there a few looks later"
    assert looks_until_it_hangs([3.0, 3600.0, 1.0, 0.5, 0.5, 0.5], ends_after=2) is None


async def test_waiting_for_work_is_no_fault(thread: EngineThread) -> None:
    await asyncio.sleep(0.1)
    assert thread.fault() is None


def test_a_thread_that_hangs_does_not_hold_up_the_end_of_its_process(engine: CountingEngine) -> None:
    bridge = EngineThread(engine, max_streams=2, max_step_s=0.02)
    engine.gate.clear()

    async def leave() -> None:
        speaking = asyncio.create_task(collect(bridge.speak(speech(1))))
        await until_fault(bridge, there=True)
        speaking.cancel()

    asyncio.run(leave())
    bridge.stop()
    assert bridge.fault() is not None
    engine.gate.set()
