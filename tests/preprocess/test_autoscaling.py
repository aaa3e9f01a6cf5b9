"""Preprocessing scaled by queue time, as a pure function; and what one replica measures of its calls."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.preprocess.autoscaling import CallCosts, QueueTime

POLICY = QueueTime(max_wait_s=0.05, max_busy=0.7, keep=0.5)
REQUESTS = st.floats(0, 1e4)
BUSY = st.floats(0, 500)
CALL_S = st.floats(1e-4, 10)
TARGET = st.integers(1, 1000)


@given(REQUESTS, BUSY, CALL_S, TARGET)
def test_a_steady_load_settles_in_one_step(requests: float, busy: float, call_s: float, target: int) -> None:
    settled = POLICY.wanted(requests, busy, call_s, target)
    assert settled >= 1
    assert POLICY.wanted(requests, busy, call_s, settled) == settled


@given(REQUESTS, REQUESTS, BUSY, BUSY, CALL_S, TARGET)
def test_more_work_never_wants_fewer_replicas(
    one: float, other: float, busy_one: float, busy_other: float, call_s: float, target: int
) -> None:
    less = POLICY.wanted(min(one, other), min(busy_one, busy_other), call_s, target)
    assert less <= POLICY.wanted(max(one, other), max(busy_one, busy_other), call_s, target)


@given(REQUESTS, BUSY, CALL_S, TARGET)
def test_what_is_wanted_keeps_both_limits(requests: float, busy: float, call_s: float, target: int) -> None:
    wanted = POLICY.wanted(requests, busy, call_s, target)
    wait_s = max(0.0, requests - wanted) * call_s / wanted
    assert wait_s <= 0.05 * 1.001 and busy / wanted <= 0.7 * 1.001


@given(st.floats(0, 400), st.floats(0, 0.2), st.integers(1, 500))
def test_noise_of_a_fifth_moves_the_target_at_most_once(busy: float, noise: float, target: int) -> None:
    changes = []
    for step in range(20):
        wanted = POLICY.wanted(0, busy * (1 + noise * (step % 2)), 0.01, target)
        changes.append(wanted != target)
        target = wanted
    assert not any(changes[2:])


def test_a_queue_adds_replicas_and_only_idle_cpus_remove_them() -> None:
    assert POLICY.wanted(requests=7, busy=0.6, call_s=0.01, target=1) == 2, "60 ms of work before a newcomer"
    assert POLICY.wanted(requests=1, busy=0.8, call_s=0.01, target=2) == 2, "the queue is gone, the work is not"
    assert POLICY.wanted(requests=1, busy=0.3, call_s=0.01, target=2) == 1


def test_the_policy_reads_what_replicas_report() -> None:
    metrics = {"busy": {"a": 0.9, "b": 0.9}, "call_s": {"a": 0.02, "b": 0.0}}
    ctx = SimpleNamespace(aggregated_metrics=metrics, total_num_requests=2.0, target_num_replicas=2)
    assert POLICY(ctx) == (3, {})
    silent = SimpleNamespace(aggregated_metrics=None, total_num_requests=9.0, target_num_replicas=4)
    assert POLICY(silent) == (4, {})


@pytest.mark.parametrize("limits", [(0.0, 0.7, 0.5), (0.05, 0.0, 0.5), (0.05, 0.7, 1.0), (0.05, 0.7, 0.0)])
def test_impossible_limits_are_refused(limits: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="must hold"):
        QueueTime(*limits)


def test_a_replica_reports_its_last_seconds_and_what_a_call_costs() -> None:
    now_s = 100.0
    costs = CallCosts(clock=lambda: now_s)
    assert costs.stats() == {"busy": 0.0, "call_s": 0.0}
    for _ in range(10):
        costs.add(0.1)
    assert costs.stats() == pytest.approx({"busy": 1.0 / 5, "call_s": 0.1})
    now_s += 5
    assert costs.stats() == pytest.approx({"busy": 0.0, "call_s": 0.1})


def test_a_call_is_measured_also_when_it_fails() -> None:
    costs = CallCosts()
    assert costs.measured(max, 1, 2) == 2
    with pytest.raises(ValueError, match="invalid literal"):
        costs.measured(int, "one")
    assert costs.stats()["call_s"] > 0
