"""Counts and percentiles of the last minutes."""

import pytest

from serve_app.figures import WINDOW_S, Recent, RecentTimes, percentile_s


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_events_are_forgotten_after_the_window() -> None:
    clock = Clock()
    recent = Recent(clock)
    recent.add("spoken")
    clock.now_s += WINDOW_S / 2
    recent.add("spoken", 2)
    recent.add("failed")
    assert recent.counts() == {"spoken": 3, "failed": 1}
    clock.now_s += WINDOW_S / 2
    assert recent.counts() == {"spoken": 2, "failed": 1}
    clock.now_s += WINDOW_S
    assert recent.counts() == {}


def test_percentiles_are_true_to_a_per_cent_from_a_millisecond_to_a_minute() -> None:
    for scale in (0.001, 0.1, 1.0, 60.0):
        times = RecentTimes(Clock())
        for number in range(1, 101):
            times.add(number * scale)
        bins = times.counts()
        for share in (0.5, 0.95, 0.99):
            assert percentile_s(bins, share) == pytest.approx(share * 100 * scale, rel=0.02)


def test_bins_of_replicas_add_up() -> None:
    fast, slow = RecentTimes(Clock()), RecentTimes(Clock())
    for _ in range(10):
        fast.add(0.1)
        slow.add(1.0)
    both = fast.counts() | slow.counts()
    assert percentile_s(both, 0.5) == pytest.approx(0.1, rel=0.02)
    assert percentile_s(both, 0.51) == pytest.approx(1.0, rel=0.02)


def test_nothing_has_no_percentile() -> None:
    assert percentile_s({}, 0.5) is None
