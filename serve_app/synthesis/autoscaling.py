"""Scales synthesis replicas by the engine's own measure of spare real-time capacity, before listeners starve.

In a Serve YAML:

    autoscaling_config:
      min_replicas: 1
      max_replicas: 8
      look_back_period_s: 3
      policy:
        policy_function: serve_app.synthesis.autoscaling:SpareStreams
        policy_kwargs: {spare_share: 0.25}

Ray applies the YAML's bounds, factors and delays to what the policy wants.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

REFUSAL_WINDOW_S = 2.0
"""As long as `Retry-After` says: a client that comes back as told is counted once."""


class Context(Protocol):
    """What is read of `ray.serve.config.AutoscalingContext`.

    aggregated_metrics: name -> replica -> value of what `record_autoscaling_stats` reported.
    """

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[Any, float]] | None: ...

    target_num_replicas: int


class Refusals:
    """Requests that one replica had to refuse lately: demand that its streams do not show."""

    def __init__(self, window_s: float = REFUSAL_WINDOW_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s = window_s
        self._clock = clock
        self._times_s: deque[float] = deque(maxlen=10_000)

    def add(self, number: int = 1) -> None:
        """So many, just now."""
        self._times_s.extend([self._clock()] * number)

    def count(self) -> int:
        """Refusals within the window."""
        oldest_s = self._clock() - self._window_s
        while self._times_s and self._times_s[0] <= oldest_s:
            self._times_s.popleft()
        return len(self._times_s)


class SpareStreams:
    """Keeps a share of all streams spare, so that a burst finds room while a new replica starts.

    Every replica reports its `streams`, how many more it could take without an underrun (`spare`), from what its steps
    really cost (`capacity.py`), and how many it has just had to refuse (`refused`).
    """

    def __init__(self, spare_share: float = 0.25, down_share: float = 0.6) -> None:
        """spare_share: of the fleet's streams that shall be spare; below it, replicas are added.

        down_share: replicas are removed only if so large a share would still be spare afterwards; the distance to
        spare_share keeps the fleet from flapping. Raises ValueError unless 0 <= spare_share < down_share < 1.
        """
        if not 0 <= spare_share < down_share < 1:
            raise ValueError("0 <= spare_share < down_share < 1 must hold")
        self._spare_share = spare_share
        self._down_share = down_share

    def __call__(self, ctx: Context) -> tuple[int, dict[str, Any]]:
        """The number of replicas wanted, and no state."""
        metrics = ctx.aggregated_metrics or {}
        streams = sum(metrics.get("streams", {}).values())
        capacity = streams + sum(max(0.0, spare) for spare in metrics.get("spare", {}).values())
        refused = sum(metrics.get("refused", {}).values())
        num_reporting = len(metrics.get("streams", {}))
        return self.wanted(streams + refused, capacity, num_reporting, ctx.target_num_replicas), {}

    def wanted(self, demand: float, capacity: float, num_reporting: int, target: int) -> int:
        """Replicas wanted for so many streams, those that were refused included.

        capacity: streams that `num_reporting` replicas could hold together, at least one each: an idle engine takes
        anybody, however slow it is. target: replicas wanted so far; without a report it stays.
        """
        if num_reporting == 0:
            return target
        each = max(1.0, capacity / num_reporting)
        needed = max(1, math.ceil(demand / (each * (1 - self._spare_share))))
        if needed > target:
            return needed
        enough = max(1, math.ceil(demand / (each * (1 - self._down_share))))
        return min(target, enough)
