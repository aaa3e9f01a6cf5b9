"""What replicas tell of themselves when an operator asks: counts of this moment, and of the last minutes.

Each replica keeps its own; whoever is asked (`api/status.py`) asks all of them and adds up. Nothing is kept of a single
request.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

WINDOW_S = 300
"""What "the last minutes" are."""
_SLOT_S = 10
_GROWTH = 1.02
"""Times are kept in bins, each so much wider than the one before: a percentile is true to one per cent."""


class Recent:
    """Counts of events over the last `WINDOW_S` seconds, in slots of ten seconds: memory and cost stay bounded.

    One event loop owns it. clock: seconds; an argument so that tests own time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._slots: deque[tuple[int, Counter[str]]] = deque()

    def add(self, name: str, amount: int = 1) -> None:
        """Counts an event of now."""
        slot = int(self._clock() // _SLOT_S)
        if not self._slots or self._slots[-1][0] != slot:
            self._slots.append((slot, Counter()))
            self._drop_old(slot)
        self._slots[-1][1][name] += amount

    def counts(self) -> dict[str, int]:
        """Name -> events in the window."""
        self._drop_old(int(self._clock() // _SLOT_S))
        total: Counter[str] = Counter()
        for _, counter in self._slots:
            total.update(counter)
        return dict(total)

    def _drop_old(self, slot: int) -> None:
        while self._slots and self._slots[0][0] <= slot - WINDOW_S // _SLOT_S:
            self._slots.popleft()


class RecentTimes:
    """Durations of the last `WINDOW_S` seconds, as counts by bin, which add up over replicas."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._bins = Recent(clock)

    def add(self, seconds: float) -> None:
        self._bins.add(str(round(math.log(max(seconds, 1e-6), _GROWTH))))

    def counts(self) -> dict[str, int]:
        """Bin -> how many; for `percentile_s`."""
        return self._bins.counts()


def percentile_s(bins: Mapping[str, int], share: float) -> float | None:
    """The nearest rank, in seconds, of what `RecentTimes.counts` gave; None of nothing."""
    rank = math.ceil(share * sum(bins.values()))
    for name in sorted(bins, key=int):
        rank -= bins[name]
        if rank <= 0:
            return float(_GROWTH ** int(name))
    return None


@dataclass(frozen=True, slots=True)
class IngressFigures:
    """One ingress replica.

    preparing: requests handed to preprocessing and not answered yet. unheard: handed to synthesis, without a sound yet.
    speaking: heard and not ended. recent: name -> events of the window: how requests ended (`spoken`, `left`,
    `invalid`, `refused`, `failed`, as `api/ledger.py` has them) and `underruns`.
    ttfa, audible_ttfa: bins of `RecentTimes`.
    """

    replica: str
    preparing: int = 0
    unheard: int = 0
    speaking: int = 0
    recent: Mapping[str, int] = field(default_factory=dict)
    ttfa: Mapping[str, int] = field(default_factory=dict)
    audible_ttfa: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PreprocessFigures:
    """One preprocessing replica. preparing: requests it works on."""

    replica: str
    preparing: int


@dataclass(frozen=True, slots=True)
class SynthesisFigures:
    """One synthesis replica. streams: requests it speaks; spare: how many more it could take without an underrun."""

    replica: str
    streams: int
    spare: int


@dataclass(frozen=True, slots=True)
class ServiceFigures:
    """All replicas by stage; None for a stage that did not answer in time."""

    ingress: tuple[IngressFigures, ...] | None = ()
    preprocess: tuple[PreprocessFigures, ...] | None = ()
    synthesis: tuple[SynthesisFigures, ...] | None = ()
