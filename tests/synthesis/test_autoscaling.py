"""The autoscaling policy as a pure function: in time, bounded, and without flapping."""

from types import SimpleNamespace

import pytest

from serve_app.synthesis.autoscaling import SpareStreams


def context(streams: list[float], spare: list[float], target: int) -> SimpleNamespace:
    metrics = {"streams": dict(enumerate(streams)), "spare": dict(enumerate(spare))}
    return SimpleNamespace(aggregated_metrics=metrics, target_num_replicas=target)


def test_replicas_are_added_before_the_last_stream_is_taken() -> None:
    policy = SpareStreams(spare_share=0.25)
    assert policy(context([7], [3], 1)) == (1, {})
    assert policy(context([8], [2], 1)) == (2, {})


def test_a_jump_in_load_is_followed_at_once() -> None:
    assert SpareStreams(spare_share=0.25).wanted(streams=30, capacity=10, num_reporting=1, target=1) == 4


def test_replicas_leave_only_when_plenty_would_stay_spare() -> None:
    policy = SpareStreams(spare_share=0.25, down_share=0.6)
    assert policy.wanted(streams=9, capacity=30, num_reporting=3, target=3) == 3
    assert policy.wanted(streams=8, capacity=30, num_reporting=3, target=3) == 2
    assert policy.wanted(streams=0, capacity=30, num_reporting=3, target=3) == 1


@pytest.mark.parametrize("streams", range(0, 200))
def test_a_steady_load_settles_in_one_step(streams: int) -> None:
    policy = SpareStreams()
    for target in (1, 3, 10, 30):
        settled = policy.wanted(streams, 10 * target, target, target)
        assert policy.wanted(streams, 10 * settled, settled, settled) == settled


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


def test_replicas_that_can_hold_nothing_do_not_divide_by_zero() -> None:
    assert SpareStreams().wanted(streams=0, capacity=0, num_reporting=2, target=2) == 2


@pytest.mark.parametrize("shares", [(-0.1, 0.5), (0.5, 0.5), (0.2, 1.0)])
def test_impossible_shares_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="spare_share"):
        SpareStreams(*shares)
