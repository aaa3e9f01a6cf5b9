"""Capacity from measured costs: pure arithmetic."""

import pytest

from serve_app.synthesis.capacity import Capacity, MemoryBudget, StepCosts
from serve_app.synthesis.scheduler import Limits, Work


def measured(**costs: dict[int, float]) -> StepCosts:
    return StepCosts(table={work: dict(costs.get(work.value, {})) for work in Work})


def test_costs_follow_measurements_smoothly() -> None:
    costs = StepCosts(smoothing=0.5)
    costs.observe(Work.DECODE, 1, 0.010)
    costs.observe(Work.DECODE, 1, 0.020)
    assert costs.of(Work.DECODE, 1) == pytest.approx(0.015)
    assert costs.of(Work.RENDER, 1) == 0.0


def test_costs_between_sizes_are_interpolated_and_beyond_them_proportional() -> None:
    costs = measured(decode={2: 0.010, 4: 0.020})
    assert costs.of(Work.DECODE, 1) == pytest.approx(0.010)
    assert costs.of(Work.DECODE, 3) == pytest.approx(0.015)
    assert costs.of(Work.DECODE, 8) == pytest.approx(0.040)


def test_load_is_what_a_second_of_playback_costs() -> None:
    capacity = Capacity(measured(prefill={1: 0.1}, decode={1: 0.004, 8: 0.008}, render={1: 0.05}), Limits(render=1))
    assert capacity.load(1) == pytest.approx(25 * 0.004 + 0.05 + 0.1 / 5)
    assert capacity.load(8) == pytest.approx(25 * 0.008 + 8 * 0.05 + 8 * 0.1 / 5)


def test_a_round_is_the_next_second_for_everybody_unless_that_takes_longer_than_it() -> None:
    capacity = Capacity(measured(prefill={1: 0.1}, decode={1: 0.004, 8: 0.008}, render={1: 0.05}), Limits(render=1))
    assert capacity.round_s(0) == 0.0
    assert capacity.round_s(8) == pytest.approx(25 * 0.008 + 8 * 0.05)
    assert capacity.round_s(20) == 0.0, "nobody can be kept in sound: newcomers take their turn"


def test_listeners_beyond_the_largest_batch_take_turns() -> None:
    capacity = Capacity(measured(decode={4: 0.01}, render={2: 0.02}), Limits(decode=4, render=2))
    assert capacity.load(8) == pytest.approx(25 * 0.01 * 2 + 0.02 * 4)


def test_spare_is_exactly_what_admission_allows() -> None:
    capacity = Capacity(measured(decode={1: 0.002, 64: 0.004}, render={1: 0.03}), Limits())
    listeners = 0
    while capacity.admits(listeners):
        assert capacity.spare(listeners) >= 1
        listeners += 1
    assert 20 < listeners < 30
    assert capacity.spare(listeners) == 0
    assert capacity.spare(3) == listeners - 3


def test_an_idle_engine_serves_anyone_however_slow() -> None:
    slow = Capacity(measured(decode={1: 1.0}, render={1: 5.0}), Limits())
    assert slow.admits(0) and not slow.admits(1) and slow.spare(0) == 0


def test_an_engine_keeps_up_with_so_many_and_no_more() -> None:
    capacity = Capacity(measured(decode={1: 0.004, 8: 0.008}, render={1: 0.05}), Limits())
    assert capacity.keeps_up(0) and capacity.keeps_up(8) and not capacity.keeps_up(20)


def test_reserved_memory_is_never_more_than_there_is() -> None:
    budget = MemoryBudget(100)
    assert budget.take(1, 60)
    assert not budget.take(2, 50)
    assert budget.take(3, 40)
    budget.give_back(1)
    budget.give_back(1)
    assert budget.held == {3: 40}
    assert budget.fits_alone(100)
    assert not budget.fits_alone(101)
    assert MemoryBudget(None).take(1, 10**15)
