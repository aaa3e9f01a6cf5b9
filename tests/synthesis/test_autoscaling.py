"""The autoscaling policy as a pure function: in time, bounded, and without flapping."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.synthesis.autoscaling import Refusals, SpareStreams


def context(streams: list[float], spare: list[float], target: int, refused: float = 0) -> SimpleNamespace:
    metrics = {"streams": dict(enumerate(streams)), "spare": dict(enumerate(spare)), "refused": {0: refused}}
    return SimpleNamespace(aggregated_metrics=metrics, target_num_replicas=target)


def test_replicas_are_added_before_the_last_stream_is_taken() -> None:
    policy = SpareStreams(spare_share=0.25)
    assert policy(context([7], [3], 1)) == (1, {})
    assert policy(context([8], [2], 1)) == (2, {})


def test_a_jump_in_load_is_followed_at_once() -> None:
    assert SpareStreams(spare_share=0.25).wanted(demand=30, capacity=10, num_reporting=1, target=1) == 4


def test_those_who_were_refused_are_scaled_for_too() -> None:
    """Streams cannot exceed what there is, so from streams alone a jump is followed in many small steps."""
    assert SpareStreams()(context([10], [0], 1)) == (2, {})
    assert SpareStreams()(context([10], [0], 1, refused=50)) == (8, {})


def test_replicas_that_are_beyond_their_capacity_do_not_hide_that_of_others() -> None:
    assert SpareStreams()(context([10, 0], [-5, 10], 2)) == (2, {})


def test_replicas_leave_only_when_plenty_would_stay_spare() -> None:
    policy = SpareStreams(spare_share=0.25, down_share=0.6)
    assert policy.wanted(demand=9, capacity=30, num_reporting=3, target=3) == 3
    assert policy.wanted(demand=8, capacity=30, num_reporting=3, target=3) == 2
    assert policy.wanted(demand=0, capacity=30, num_reporting=3, target=3) == 1


@pytest.mark.parametrize("streams", range(0, 200))
def test_a_steady_load_settles_in_one_step(streams: int) -> None:
    policy = SpareStreams()
    for target in (1, 3, 10, 30):
        settled = policy.wanted(streams, 10 * target, target, target)
        assert policy.wanted(streams, 10 * settled, settled, settled) == settled


DEMAND, EACH, TARGET = st.floats(0, 1e5), st.floats(1, 1000), st.integers(1, 1000)


@given(DEMAND, EACH, TARGET)
def test_any_steady_demand_settles_in_one_step_with_enough_spare(demand: float, each: float, target: int) -> None:
    policy = SpareStreams(spare_share=0.25)
    settled = policy.wanted(demand, each * target, target, target)
    assert settled >= 1
    assert demand <= settled * each * 0.75 * 1.001
    assert policy.wanted(demand, each * settled, settled, settled) == settled


@given(DEMAND, DEMAND, EACH, TARGET, st.integers(1, 50))
def test_more_demand_never_wants_fewer_replicas(
    one: float, other: float, each: float, target: int, num_reporting: int
) -> None:
    policy, capacity = SpareStreams(), each * num_reporting
    less = policy.wanted(min(one, other), capacity, num_reporting, target)
    assert less <= policy.wanted(max(one, other), capacity, num_reporting, target)


@given(DEMAND, EACH, TARGET)
def test_demand_must_fall_by_a_third_before_replicas_that_were_just_added_leave(
    demand: float, each: float, target: int
) -> None:
    policy = SpareStreams(spare_share=0.25, down_share=0.6)
    added = policy.wanted(demand, each * target, target, target)
    if added > target:
        assert policy.wanted(0.67 * demand, each * added, added, added) == added


def test_noise_around_a_threshold_does_not_flap() -> None:
    policy, target, changes = SpareStreams(), 2, 0
    for step in range(100):
        wanted = policy.wanted(15 + (step % 2), 10 * target, target, target)
        changes += wanted != target
        target = wanted
    assert changes == 1


@pytest.mark.parametrize(
    "silent", [context([], [], 3), SimpleNamespace(aggregated_metrics=None, target_num_replicas=3)]
)
def test_without_reports_nothing_changes(silent: SimpleNamespace) -> None:
    assert SpareStreams()(silent) == (3, {})


def test_refusals_are_forgotten_after_their_window() -> None:
    now_s = 10.0
    refusals = Refusals(window_s=2.0, clock=lambda: now_s)
    refusals.add()
    now_s = 11.0
    refusals.add()
    assert refusals.count() == 2
    now_s = 12.5
    assert refusals.count() == 1
    now_s = 13.0
    assert refusals.count() == 0
    refusals.add(7)
    refusals.add(0)
    assert refusals.count() == 7


def test_replicas_too_slow_for_a_single_listener_still_take_one_and_leave_when_idle() -> None:
    assert SpareStreams()(context([0, 0], [0, 0], 2)) == (1, {})
    assert SpareStreams()(context([1, 1], [0, 0], 2)) == (3, {})


@pytest.mark.parametrize("shares", [(-0.1, 0.5), (0.5, 0.5), (0.2, 1.0)])
def test_impossible_shares_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="spare_share"):
        SpareStreams(*shares)
