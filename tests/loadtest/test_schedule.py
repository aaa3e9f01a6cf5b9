"""Arrivals are fixed beforehand, bounded, and of the rate that was asked for."""

from itertools import pairwise
from pathlib import Path

import pytest

from serve_app.loadtest.faults import LoadTestError
from serve_app.loadtest.schedule import Arrival, bursts, poisson, ramp, replay


def times(arrivals: tuple[Arrival, ...]) -> list[float]:
    return [arrival.at_s for arrival in arrivals]


def test_poisson_has_its_rate_and_its_spread() -> None:
    at_s = times(poisson(50, 100, 100_000, seed=1))
    assert at_s == sorted(at_s)
    assert at_s[0] > 0 and at_s[-1] < 100
    assert len(at_s) == pytest.approx(5000, rel=0.05)
    gaps = [b - a for a, b in pairwise(at_s)]
    mean = sum(gaps) / len(gaps)
    # of an exponential distribution, the standard deviation is the mean
    assert (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 == pytest.approx(mean, rel=0.1)


def test_one_seed_gives_one_schedule() -> None:
    assert poisson(5, 10, 100, seed=1) == poisson(5, 10, 100, seed=1) != poisson(5, 10, 100, seed=2)


def test_requests_are_bounded_however_high_the_rate() -> None:
    assert len(poisson(10_000, 1e6, 7, seed=0)) == 7
    assert len(bursts(10_000, 3, 1e6, 7)) == 7


@pytest.mark.parametrize(("from_hz", "to_hz"), [(1.0, 99.0), (99.0, 1.0)])
def test_a_ramp_changes_its_rate_evenly(from_hz: float, to_hz: float) -> None:
    at_s = times(ramp(from_hz, to_hz, 100, 100_000, seed=3))
    assert len(at_s) == pytest.approx(5000, rel=0.05)
    first_half = sum(at < 50 for at in at_s)
    # the rate's mean over the first half is at a quarter of the way
    assert first_half == pytest.approx(50 * (from_hz + (to_hz - from_hz) / 4), rel=0.08)
    assert max(at_s) < 100


def test_bursts_come_together_at_even_intervals() -> None:
    assert times(bursts(6, 3, 1.6, 100)) == [0, 0, 0, 0.5, 0.5, 0.5, 1, 1, 1, 1.5, 1.5, 1.5]


@pytest.mark.parametrize("rate", [0.0, -1.0, 10_001.0, float("nan"), float("inf")])
def test_impossible_rates_are_refused(rate: float) -> None:
    with pytest.raises(LoadTestError, match="a rate lies above 0"):
        poisson(rate, 10, 10, seed=0)


def test_a_recording_is_replayed_from_its_first_arrival(tmp_path: Path) -> None:
    file = tmp_path / "arrivals.csv"
    file.write_text('100.5,"later, much"\n\n100\n102\n', encoding="utf-8")
    assert replay(file, 10, 10) == (Arrival(0.0), Arrival(0.5, "later, much"), Arrival(2.0))
    assert replay(file, 1, 10) == (Arrival(0.0), Arrival(0.5, "later, much"))
    assert replay(file, 10, 1) == (Arrival(0.0),)


@pytest.mark.parametrize(
    ("content", "message"), [("", "holds no arrivals"), ("1\nsoon,x\n", "arrival 2"), ("inf\n", "arrival 1")]
)
def test_an_unreadable_recording_is_said(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "arrivals.csv"
    file.write_text(content)
    with pytest.raises(LoadTestError, match=message):
        replay(file, 10, 10)


def test_a_missing_recording_is_said(tmp_path: Path) -> None:
    with pytest.raises(LoadTestError, match="cannot read"):
        replay(tmp_path / "none.csv", 10, 10)
