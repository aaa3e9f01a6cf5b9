"""The simulation drives the real scheduler: it must conserve requests and show what overload and growth do."""

from serve_app.synthesis.capacity import Capacity
from serve_app.synthesis.scheduler import Limits
from serve_app.synthesis.simulate import Workload, read_costs, simulate

COSTS = read_costs(None)
LIMITS = Limits(render=16)


def figures(replicas: int, rate_per_s: float, max_load: float = 0.9) -> dict[str, object]:
    return simulate(COSTS, LIMITS, replicas, Workload(rate_per_s, 4.6, 60 * replicas), max_load)


def p95(result: dict[str, object]) -> float:
    ttfa = result["ttfa_ms"]
    assert isinstance(ttfa, dict)
    return float(ttfa["p95"])


def test_a_light_load_is_served_at_once_and_nobody_is_refused() -> None:
    result = figures(1, rate_per_s=1)
    assert result["refused"] == 0 and p95(result) < 150


def test_prompts_are_read_together_so_a_burst_does_not_queue_one_behind_another() -> None:
    one_after_another_ms = 60 * (6 + 16 * 1.5 + 15)
    assert p95(figures(1, rate_per_s=1e6, max_load=10)) < 0.75 * one_after_another_ms


def test_overload_is_refused_rather_than_queued() -> None:
    result = figures(1, rate_per_s=200, max_load=0.2)
    assert Capacity(COSTS, LIMITS, 0.2).spare(0) < 60
    assert isinstance(result["refused"], int) and result["refused"] > 5


def test_capacity_grows_with_replicas() -> None:
    one, ten = figures(1, rate_per_s=20), figures(10, rate_per_s=200)
    assert p95(ten) < 2 * p95(one)
