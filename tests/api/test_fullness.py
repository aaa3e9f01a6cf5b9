"""What an ingress remembers of a refusal: requests after it are refused at once, until there may be room again."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from serve_app.api.fullness import REMEMBERED_S, Fullness
from serve_app.errors import NotReady, Overloaded


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def items(number: int, error: Exception | None = None) -> AsyncGenerator[int, None]:
    for item in range(number):
        yield item
    if error is not None:
        raise error


async def hear(fullness: Fullness, number: int, error: Exception | None = None) -> list[int]:
    return [item async for item in fullness.learn(items(number, error))]


async def be_refused(fullness: Fullness) -> None:
    with pytest.raises(Overloaded):
        await hear(fullness, 0, Overloaded("full"))


async def test_there_is_room_until_somebody_is_refused_and_again_after_a_while() -> None:
    clock = Clock()
    fullness = Fullness(clock)
    fullness.check()
    await be_refused(fullness)
    clock.now_s += 0.9 * REMEMBERED_S
    with pytest.raises(Overloaded):
        fullness.check()
    clock.now_s += 0.2 * REMEMBERED_S
    fullness.check()


async def test_a_stream_that_ends_leaves_room() -> None:
    fullness = Fullness(Clock())
    async with aclosing(fullness.learn(items(3))) as playing:
        assert await anext(playing) == 0
        await be_refused(fullness)
        with pytest.raises(Overloaded):
            fullness.check()
    fullness.check()
    await be_refused(fullness)
    assert await hear(fullness, 2) == [0, 1]
    fullness.check()


@pytest.mark.parametrize(("heard", "error"), [(1, Overloaded("full")), (0, NotReady("gone"))])
async def test_what_breaks_or_fails_otherwise_does_not_mean_that_there_is_no_room(heard: int, error: Exception) -> None:
    fullness = Fullness(Clock())
    with pytest.raises(type(error)):
        await hear(fullness, heard, error)
    fullness.check()


async def test_a_client_that_leaves_before_it_was_served_is_not_a_refusal() -> None:
    async def never() -> AsyncGenerator[int, None]:
        await asyncio.Event().wait()
        yield 0

    fullness = Fullness(Clock())
    first = asyncio.ensure_future(anext(fullness.learn(never())))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    fullness.check()


async def test_who_was_turned_away_is_counted_once() -> None:
    fullness = Fullness(Clock())
    await be_refused(fullness)
    assert fullness.take_turned_away() == 0, "the replica that refused knows of it"
    for _ in range(3):
        with pytest.raises(Overloaded):
            fullness.check()
    assert fullness.take_turned_away() == 3
    assert fullness.take_turned_away() == 0
