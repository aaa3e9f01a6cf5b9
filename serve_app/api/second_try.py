"""A request that a replica took with it as it died, or had no room for, is put to another one, if nothing was heard."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from serve_app.errors import NotReady, Overloaded

T = TypeVar("T")

PAUSES_S = (0.0, 0.1, 0.4)
"""Before each further try: whoever hands out the requests must hear of the death first."""


class ReplicaGone(NotReady):
    """The replica, or the way to it, went away while it served this request."""


async def answer_again(call: Callable[[], Awaitable[T]]) -> T:
    """What `call` answers, made again while its replica dies; for calls that change nothing. Errors: of the last."""
    for pause_s in PAUSES_S:
        try:
            return await call()
        except ReplicaGone:
            await asyncio.sleep(pause_s)
    return await call()


async def items_again(call: Callable[[], AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
    """What `call` yields, made again while its replica dies before the first item: what was heard is not said twice."""
    for pause_s in (*PAUSES_S, None):
        begun = False
        try:
            async with aclosing(call()) as items:
                async for item in items:
                    begun = True
                    yield item
            return
        except ReplicaGone:
            if begun or pause_s is None:
                raise
        await asyncio.sleep(pause_s)


async def items_elsewhere(
    own: Callable[[], AsyncGenerator[T, None]], other: Callable[[], AsyncGenerator[T, None]]
) -> AsyncGenerator[T, None]:
    """What `own` yields, or if that is refused before its first item, what `other` yields.

    The replica that a voice prefers may be full while its neighbour is not. A refusal costs a few milliseconds, so that
    whoever nobody has room for still hears of it at once.
    """
    begun = False
    try:
        async with aclosing(own()) as items:
            async for item in items:
                begun = True
                yield item
        return
    except Overloaded:
        if begun:
            raise
    async with aclosing(other()) as items:
        async for item in items:
            yield item
