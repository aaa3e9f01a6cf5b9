"""What the programs of this folder must find, each in a process of its own: Ray reads its environment once.

Those marked `scale` take minutes: `make scale` runs them all, `make test` only the others.
"""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT, environment

pytestmark = pytest.mark.service


def figures_of(program: str) -> dict[str, Any]:
    """The JSON that a program ends in."""
    command = [sys.executable, "-m", f"tests.scale.{program}"]
    ended = subprocess.run(
        command, check=False, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    figures: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return figures


@pytest.mark.scale
def test_a_node_that_goes_away_breaks_its_streams_and_nothing_else() -> None:
    figures = figures_of("two_nodes")
    assert figures["on_both_nodes"]
    assert figures["others"] >= 10 and figures["others_failed"] == {}
    assert set(figures["in_flight_broken"]) <= {"broken_body"}, "visibly: never as if it were whole"
    assert figures["long_broken"] < figures["long_streams"] and figures["long_ended_too_soon"] == 0
    assert figures["voice_is_listed"] and figures["voice_speaks"]


@pytest.mark.scale
def test_three_synthesis_replicas_run_for_eight_listeners_and_one_after_they_left() -> None:
    figures = figures_of("growth")
    assert figures["statuses"] == [200] * len(figures["statuses"]) and figures["problems"] == []
    assert figures["most_replicas"] == 3
    assert "back_to_one_s" in figures


@pytest.mark.scale
def test_streams_in_flight_end_whole_whatever_changes() -> None:
    figures = figures_of("updates")
    whole = figures["whole_bytes"]
    assert whole > 100_000
    for change in ("hot", "redeploy", "fewer"):
        assert figures[f"{change}_bytes"] == [whole] * 3, change
    assert figures["hot_same_replicas"] and figures["hot_open_when_in_effect"] >= 1
    assert set(figures["redeploy_meanwhile"]) == {"200"}


def test_fractions_of_a_gpu_add_up_and_one_too_many_waits_without_harm() -> None:
    figures = figures_of("logical_gpus")
    assert figures["shipped_replicas"] * figures["shipped_num_gpus"] == 1
    assert figures["gpus_taken_by_four"] == 1
    assert figures["states_of_five"] == ["RUNNING"] * 4 + ["STARTING"]
    assert set(figures["answers_while_one_waits"]) == {"200"}


@pytest.mark.scale
def test_the_cluster_file_needs_no_edit_but_the_path_of_the_model() -> None:
    figures = figures_of("shipped")
    assert figures["nodes"]["Ingress"] == figures["nodes"]["Preprocess"] == 2, "on both nodes"
    assert figures["status"] == 200 and figures["bytes"] > 1000
