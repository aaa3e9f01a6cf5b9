"""How far to trust a forecast: by how much the last ones were wrong. Plain Python, like the scheduler."""

from collections import deque
from dataclasses import dataclass

USUAL = 1.35
"""Before anything was learnt."""
LEAST, MOST = 1.15, 1.8
NUM_REMEMBERED = 64
WORSE = 1.1
"""A little worse than the worst may yet come."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A first sound went out at `made_at_s`, when the chunk after it was forecast to take `expected_s` by the cost of
    steps."""

    made_at_s: float
    expected_s: float


class Caution:
    """How many times longer than forecast a chunk may take that somebody's sound hangs on.

    On a machine of one's own it takes what its steps usually cost. Where others take part of it, the same steps cost
    half as much again from one second to the next (measured, in CPU time: neighbours share caches and cores), which no
    average of past steps foretells. So what counts is the worst of the last forecasts.
    """

    def __init__(self) -> None:
        self._ratios = deque([USUAL / WORSE] * NUM_REMEMBERED, maxlen=NUM_REMEMBERED)

    @property
    def factor(self) -> float:
        return min(MOST, max(LEAST, WORSE * max(self._ratios)))

    def learn(self, promise: Promise, now_s: float) -> None:
        """The chunk is there."""
        if promise.expected_s > 0:  # else nothing was known of the cost of steps
            self._ratios.append((now_s - promise.made_at_s) / promise.expected_s)
