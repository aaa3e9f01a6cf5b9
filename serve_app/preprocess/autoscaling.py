"""Scales preprocessing replicas by the time that one more request would wait for a CPU.

In a Serve YAML:

    autoscaling_config:
      min_replicas: 1
      max_replicas: 8
      look_back_period_s: 3
      policy:
        policy_function: serve_app.preprocess.autoscaling:QueueTime
        policy_kwargs: {max_wait_s: 0.05}

Ray applies the YAML's bounds, factors and delays to what the policy wants.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

WINDOW_S = 5.0
SMOOTHING = 0.1


class CallCosts:
    """CPU time of one replica's calls, whichever threads run them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._ended: deque[tuple[float, float]] = deque()
        self._call_s = 0.0

    def measured(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls the function in this thread, and counts what it cost, also when it raises."""
        started_s = time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            self.add(time.thread_time() - started_s)

    def add(self, cpu_s: float) -> None:
        """One call that has just ended."""
        with self._lock:
            self._ended.append((self._clock(), cpu_s))
            self._call_s = cpu_s if self._call_s == 0 else self._call_s + SMOOTHING * (cpu_s - self._call_s)

    def stats(self) -> dict[str, float]:
        """busy: CPU seconds a second, lately. call_s: CPU seconds of a call; 0 before the first."""
        with self._lock:
            oldest_s = self._clock() - WINDOW_S
            while self._ended and self._ended[0][0] <= oldest_s:
                self._ended.popleft()
            return {"busy": sum(cpu_s for _, cpu_s in self._ended) / WINDOW_S, "call_s": self._call_s}


class Context(Protocol):
    """What is read of `ray.serve.config.AutoscalingContext`.

    aggregated_metrics: name -> replica -> value of what `record_autoscaling_stats` reported. total_num_requests: at
    work or waiting, in all replicas and the queues before them.
    """

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[Any, float]] | None: ...

    @property
    def total_num_requests(self) -> float: ...

    target_num_replicas: int


class QueueTime:
    """As many replicas as it takes to begin every request soon, and to stay below a share of their CPUs.

    A newcomer waits for those before it: `requests` of `call_s` CPU seconds each, over the replicas. The queue says
    that there are too few replicas; that there are too many only their idle CPUs can say.
    """

    def __init__(self, max_wait_s: float = 0.05, max_busy: float = 0.7, keep: float = 0.5) -> None:
        """max_wait_s: for a CPU. max_busy: CPU seconds a second of one replica.

        keep: replicas are removed only if the rest would stay below this share of both limits; its distance to 1 keeps
        the fleet from flapping. Raises ValueError unless the limits are above 0 and 0 < keep < 1.
        """
        if max_wait_s <= 0 or max_busy <= 0 or not 0 < keep < 1:
            raise ValueError("max_wait_s > 0, max_busy > 0 and 0 < keep < 1 must hold")
        self._max_wait_s = max_wait_s
        self._max_busy = max_busy
        self._keep = keep

    def __call__(self, ctx: Context) -> tuple[int, dict[str, Any]]:
        """The number of replicas wanted, and no state."""
        metrics = ctx.aggregated_metrics or {}
        calls_s = [call_s for call_s in metrics.get("call_s", {}).values() if call_s > 0]
        if not calls_s:
            return ctx.target_num_replicas, {}
        busy = sum(metrics.get("busy", {}).values())
        return self.wanted(ctx.total_num_requests, busy, sum(calls_s) / len(calls_s), ctx.target_num_replicas), {}

    def wanted(self, requests: float, busy: float, call_s: float, target: int) -> int:
        """Replicas wanted.

        requests: at work or waiting, everywhere. busy: CPU seconds a second of all replicas. target: wanted so far.
        """
        needed = self._needed(requests, busy, call_s, 1.0)
        return needed if needed > target else min(target, self._needed(requests, busy, call_s, self._keep))

    def _needed(self, requests: float, busy: float, call_s: float, share: float) -> int:
        """Replicas that stay below so large a share of both limits."""
        # n replicas work on n requests; the others wait: (requests - n) * call_s / n <= share * max_wait_s
        for_queue = requests * call_s / (call_s + share * self._max_wait_s)
        return max(1, math.ceil(for_queue), math.ceil(busy / (share * self._max_busy)))
