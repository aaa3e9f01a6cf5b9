"""How many listeners this engine can keep in sound, from what its steps really cost. Plain Python, like the scheduler.

A listener consumes one second of audio per second: 25 decode steps, shared with everybody in the batch, and one chunk
of rendering. The engine keeps up while the time its steps take for one second of everybody's audio is below one second.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from serve_app.synthesis.scheduler import Limits, Work

TOKENS_PER_S = 25
CHUNKS_PER_S = 1
"""One chunk is 25 tokens, one second of audio."""
DEFAULT_MAX_LOAD = 0.9
REQUEST_S = 5.0
"""A listener is assumed to be replaced by a new one, whose prompt must be read, this often."""


@dataclass(slots=True)
class StepCosts:
    """Running estimates of what a step costs, in seconds, by kind of work and batch size.

    Between two measured sizes a cost is interpolated; beyond the largest it grows in proportion, which errs on the safe
    side; below the smallest it is that of the smallest. watch: told of every observation, in the engine's thread.
    """

    smoothing: float = 0.1
    table: dict[Work, dict[int, float]] = field(default_factory=lambda: {work: {} for work in Work})
    watch: Callable[[Work, int, float], None] | None = None

    def observe(self, work: Work, batch_size: int, seconds: float) -> None:
        """Blends one measured step into the estimate for its kind and size."""
        if self.watch is not None:
            self.watch(work, batch_size, seconds)
        known = self.table[work].get(batch_size)
        self.table[work][batch_size] = seconds if known is None else known + self.smoothing * (seconds - known)

    def of(self, work: Work, batch_size: int) -> float:
        """Estimated seconds of a step; 0 when nothing of its kind was ever measured."""
        sizes = sorted(self.table[work])
        if not sizes:
            return 0.0
        below = max((size for size in sizes if size <= batch_size), default=sizes[0])
        above = min((size for size in sizes if size >= batch_size), default=None)
        low = self.table[work][below]
        if above is None:
            return low * batch_size / below
        if above <= below:
            return low
        return low + (self.table[work][above] - low) * (batch_size - below) / (above - below)


@dataclass(frozen=True, slots=True)
class Capacity:
    """Answers whether one more listener could be kept in sound.

    max_load: share of the engine's time that steady playback may take; the rest absorbs prefills and first chunks.
    """

    costs: StepCosts
    limits: Limits
    max_load: float = DEFAULT_MAX_LOAD
    max_listeners: int = 10_000

    def load(self, listeners: int) -> float:
        """Seconds of engine time that one second of playback by so many listeners takes."""
        if listeners == 0:
            return 0.0
        return self._playing(listeners) + self.costs.of(Work.PREFILL, 1) * listeners / REQUEST_S

    def round_s(self, listeners: int) -> float:
        """Seconds in which each of so many gets the next second of sound.

        0 where the engine cannot keep up anyway: then those who have heard nothing yet must not wait for ever.
        """
        round_s = self._playing(listeners)
        return round_s if round_s < 1 else 0.0

    def admits(self, listeners: int) -> bool:
        """Whether a newcomer may join so many listeners. An idle engine serves anyone, however slow it is."""
        return listeners == 0 or self.load(listeners + 1) <= self.max_load

    def keeps_up(self, listeners: int) -> bool:
        """Whether so many can be kept in sound at all; if not, sooner is better for everybody."""
        return self.load(listeners) < 1

    def _playing(self, listeners: int) -> float:
        """Seconds of decoding and rendering for one second of playback by so many listeners."""
        if listeners == 0:
            return 0.0
        batch = min(listeners, self.limits.decode)
        decode = TOKENS_PER_S * self.costs.of(Work.DECODE, batch) * listeners / batch
        return decode + self._renders(listeners)

    def _renders(self, listeners: int) -> float:
        """Seconds of rendering for one second of playback by so many listeners."""
        if listeners == 0:
            return 0.0
        batch = min(listeners, self.limits.render)
        return CHUNKS_PER_S * self.costs.of(Work.RENDER, batch) * listeners / batch

    def spare(self, listeners: int) -> int:
        """How many more listeners could join so many; the signal that synthesis replicas are scaled by."""
        low, high = 0, self.max_listeners
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.load(listeners + middle) <= self.max_load else (low, middle - 1)
        return low


@dataclass(slots=True)
class MemoryBudget:
    """What open streams may come to keep, in bytes, so that memory cannot run out while they speak.

    limit: None for none. held: by stream.
    """

    limit: int | None
    held: dict[int, int] = field(default_factory=dict)

    def fits_alone(self, num_bytes: int) -> bool:
        return self.limit is None or num_bytes <= self.limit

    def take(self, stream_id: int, num_bytes: int) -> bool:
        """Reserves for a stream; False, with nothing reserved, when that is too much now."""
        if self.limit is not None and sum(self.held.values()) + num_bytes > self.limit:
            return False
        self.held[stream_id] = num_bytes
        return True

    def give_back(self, stream_id: int) -> None:
        """Idempotent."""
        self.held.pop(stream_id, None)
