"""When requests are due: computed before the first is sent, so that a slow server cannot slow its own load down."""

import csv
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from serve_app.loadtest.faults import LoadTestError

MAX_RATE_HZ = 10_000.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request due `at_s` seconds into the run. text: None takes the next of the run's texts."""

    at_s: float
    text: str | None = None


def poisson(rate_hz: float, max_seconds: float, max_requests: int, seed: int) -> tuple[Arrival, ...]:
    """Independent listeners, `rate_hz` of them a second on average. Errors: `LoadTestError`."""
    return ramp(rate_hz, rate_hz, max_seconds, max_requests, seed)


def ramp(from_hz: float, to_hz: float, max_seconds: float, max_requests: int, seed: int) -> tuple[Arrival, ...]:
    """Poisson arrivals whose rate goes in a straight line from `from_hz` to `to_hz` over `max_seconds`.

    By inversion: a Poisson process of rate 1 on the axis of the expected count, mapped back to time. Errors:
    `LoadTestError`.
    """
    _check_rate(from_hz)
    _check_rate(to_hz)
    slope = (to_hz - from_hz) / max_seconds
    expected_total = (from_hz + to_hz) / 2 * max_seconds
    rng = random.Random(seed)

    def times() -> Iterator[float]:
        expected = rng.expovariate(1.0)
        while expected < expected_total:
            # the root of from_hz * t + slope * t^2 / 2 = expected, in the form that holds for slope 0 too
            yield 2 * expected / (from_hz + math.sqrt(max(0.0, from_hz**2 + 2 * slope * expected)))
            expected += rng.expovariate(1.0)

    return _arrivals(times(), max_requests)


def bursts(rate_hz: float, burst_size: int, max_seconds: float, max_requests: int) -> tuple[Arrival, ...]:
    """`burst_size` listeners at once, at even intervals, `rate_hz` a second on average. Errors: `LoadTestError`."""
    _check_rate(rate_hz)
    if burst_size < 1:
        raise LoadTestError("a burst holds at least one request")
    num_bursts = math.ceil(max_seconds * rate_hz / burst_size)
    times = (index * burst_size / rate_hz for index in range(num_bursts) for _ in range(burst_size))
    return _arrivals(times, max_requests)


def replay(path: Path, max_seconds: float, max_requests: int) -> tuple[Arrival, ...]:
    """The arrivals recorded in a CSV file, in order of time, up to `max_seconds` after the first.

    The file is either this program's own `--csv`, or lines of `seconds` or `seconds,text`; times count from the first.
    Errors: `LoadTestError`.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LoadTestError(f"cannot read the arrivals in {path}: {error}") from error
    time_column, text_column = 0, 1
    if rows and "arrival_s" in rows[0]:
        header = rows.pop(0)
        time_column = header.index("arrival_s")
        text_column = header.index("text") if "text" in header else len(header)
    recorded: list[Arrival] = []
    for number, row in enumerate(rows, 1):
        try:
            at_s = float(row[time_column])
        except (ValueError, IndexError):
            at_s = math.nan
        if not math.isfinite(at_s):
            raise LoadTestError(f"arrival {number} in {path} does not begin with a time in seconds")
        recorded.append(Arrival(at_s, row[text_column] or None if text_column < len(row) else None))
    if not recorded:
        raise LoadTestError(f"{path} holds no arrivals")
    recorded.sort(key=lambda arrival: arrival.at_s)
    first_s = recorded[0].at_s
    shifted = [Arrival(arrival.at_s - first_s, arrival.text) for arrival in recorded]
    return tuple(arrival for arrival in shifted if arrival.at_s <= max_seconds)[:max_requests]


def _arrivals(times_s: Iterator[float], max_requests: int) -> tuple[Arrival, ...]:
    return tuple(Arrival(at_s) for at_s in islice(times_s, max_requests))


def _check_rate(rate_hz: float) -> None:
    if not 0 < rate_hz <= MAX_RATE_HZ:
        raise LoadTestError(f"a rate lies above 0 and is at most {MAX_RATE_HZ:g} requests a second, not {rate_hz:g}")
