"""Whether a step of the engine hangs, told apart from a machine that stood still."""

import time
from collections.abc import Callable

MAX_GAP_S = 2.0
"""Twice as long as the pause between two of Ray's looks at a replica's health."""


class Watchdog:
    """Adds up how long one and the same step was seen to run, look by look; no look counts for more than `MAX_GAP_S`.

    A virtual machine that is saved, a laptop that sleeps and a process that is stopped all make the clock jump: between
    two looks much time has passed, in which no step could have ended. One that really hangs is seen again and again.
    """

    def __init__(self, max_step_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """max_step_s: a step that is seen for longer hangs. clock: seconds; an argument so that tests own time."""
        self._max_step_s = max_step_s
        self._clock = clock
        self._looked_at_s = clock()
        self._began_at_s: float | None = None
        self._seen_s = 0.0

    def hangs(self, began_at_s: float | None) -> bool:
        """A look at the step that began then; None: there is none."""
        now_s = self._clock()
        if began_at_s != self._began_at_s:
            self._began_at_s, self._seen_s = began_at_s, 0.0
        if began_at_s is not None:
            self._seen_s += min(now_s - max(began_at_s, self._looked_at_s), MAX_GAP_S)
        self._looked_at_s = now_s
        return self._seen_s > self._max_step_s
