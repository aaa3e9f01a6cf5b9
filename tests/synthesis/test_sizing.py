"""Sizing is arithmetic: proportional, conservative, and it names what runs out first."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.synthesis.capacity import Capacity
from serve_app.synthesis.scheduler import Limits
from serve_app.synthesis.simulate import Workload, read_costs, simulate
from serve_app.synthesis.sizing import Costs, Machine, main, size_for

COSTS = Costs(prepare_s=0.02, ingress_s=0.01)


def test_a_hand_made_size() -> None:
    size = size_for(1000, 50, COSTS, Machine(cores=16, gpus=4, link_bits_per_s=1e9), 0.2, "pcm")
    assert (size.synthesis_replicas, size.gpus, size.synthesis_cores) == (25, 25, 50)
    assert size.preprocess_cores == pytest.approx(1000 / 5 * 0.02 / 0.8)
    assert size.ingress_cores == pytest.approx(1000 * 0.01 / 0.8)
    assert size.gbit_per_s == pytest.approx(0.48)
    assert size.nodes["GPU"] == 7 and size.saturates_first == "GPU"


@given(st.integers(1, 10**6), st.integers(1, 500))
def test_the_fleet_holds_its_listeners_with_the_share_spare(listeners: int, holds: int) -> None:
    size = size_for(listeners, holds, COSTS, Machine(), 0.25, "mp3")
    assert listeners <= size.synthesis_replicas * holds * 0.75 * 1.000001
    assert (size.synthesis_replicas - 1) * holds * 0.75 < listeners


def test_each_resource_can_be_the_first_to_saturate() -> None:
    heavy_text, heavy_ingress = Costs(5.0, 0.0001), Costs(0.0001, 1.0)
    assert size_for(1000, 500, heavy_text, Machine(), 0.25, "mp3").saturates_first == "CPU of preprocessing"
    assert size_for(1000, 500, heavy_ingress, Machine(), 0.25, "mp3").saturates_first == "CPU of proxy and ingress"
    thin = Machine(link_bits_per_s=1e6)
    assert size_for(1000, 500, COSTS, thin, 0.25, "pcm").saturates_first == "network"
    without_gpu = Costs(0.0001, 0.0001, engine_gpus=0)
    assert size_for(1000, 2, without_gpu, Machine(), 0.25, "mp3").saturates_first == "CPU of synthesis"


def test_the_simulation_serves_whom_the_fleet_was_sized_for() -> None:
    """A smaller fleet refuses some of them."""
    costs, limits = read_costs(None), Limits(render=16)
    holds = Capacity(costs, limits, 0.9).spare(0)
    size = size_for(4 * holds, holds, COSTS, Machine(), 0.25, "pcm")
    workload = Workload(rate_per_s=size.listeners / 5, mean_audio_s=5, num_requests=3000)
    assert simulate(costs, limits, size.synthesis_replicas, workload, 0.9)["refused"] == 0
    too_few = simulate(costs, limits, size.synthesis_replicas // 3, workload, 0.9)["refused"]
    assert isinstance(too_few, int) and too_few > 100


def test_an_engine_that_is_too_slow_is_said() -> None:
    with pytest.raises(ValueError, match="cannot keep a single listener"):
        size_for(10, 0, COSTS, Machine(), 0.25, "pcm")


def test_the_command_says_what_was_measured_and_what_was_assumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--prepare-ms", "20", "--ingress-ms", "10"])
    printed = capsys.readouterr().out
    assert "ASSUMED" in printed
    assert [size["listeners"] for size in json.loads(printed.splitlines()[-1])] == [10, 1000, 100_000]
    table = tmp_path / "costs.json"
    table.write_text(json.dumps({"prefill": {"1": 0.05}, "decode": {"1": 0.004}, "render": {"1": 0.1}}))
    measured = ["--prepare-ms", "20", "--ingress-ms", "10"]
    (size,) = main(["--costs", str(table), "--device", "cpu", "--listeners", "10", *measured])
    assert size.gpus == 0 and "measured" in capsys.readouterr().out
