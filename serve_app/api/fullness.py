"""What an ingress replica remembers of a refusal, so that those after it cost next to nothing."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

from serve_app.errors import Overloaded

T = TypeVar("T")

REMEMBERED_S = 0.5
"""Room may come without this replica's hearing of it: a stream of another ingress ends, a replica is added."""


class Fullness:
    """Whether the last stream that was asked for found no room. One event loop owns it.

    A whole refusal walks through every stage, and takes its time from those who are being spoken to. So until a stream
    ends, and for half a second at most, requests are refused here before anything is done for them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds."""
        self._clock = clock
        self._until_s = 0.0
        self._num_turned_away = 0

    def check(self) -> None:
        """Raises Overloaded while there is no room as far as is known."""
        if self._clock() < self._until_s:
            self._num_turned_away += 1
            raise Overloaded("every stream is taken")

    def take_turned_away(self) -> int:
        """How many were refused here since the last time: demand that no synthesis replica has heard of."""
        taken, self._num_turned_away = self._num_turned_away, 0
        return taken

    async def learn(self, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """The items of a stream: whether they are refused, or there is room again where they end."""
        begun, refused = False, False
        try:
            async with aclosing(items):
                async for item in items:
                    begun = True
                    yield item
        except Overloaded:
            refused = not begun
            raise
        finally:
            self._until_s = self._clock() + REMEMBERED_S if refused else 0.0
