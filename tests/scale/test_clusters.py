"""The programs of this folder hold their bounds, each in a process of its own: Ray reads its environment once.

Those marked `scale` take minutes: `make scale` runs them all, `make test` only the others.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment
from tests.scale.program import Figures, run_program


def check(program: str) -> None:
    """Raises AssertionError, with what the program printed, where a bound of its own does not hold."""
    command = [sys.executable, "-m", f"tests.scale.{program}"]
    ended = subprocess.run(
        command, check=False, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    assert json.loads(ended.stdout.splitlines()[-1])["broken"] == []


@pytest.mark.service
@pytest.mark.scale
@pytest.mark.parametrize("program", ["two_nodes", "growth", "updates", "shipped"])
def test_a_cluster_keeps_its_bounds(program: str) -> None:
    check(program)


@pytest.mark.service
def test_fractions_of_a_gpu_add_up_and_one_too_many_waits_without_harm() -> None:
    check("logical_gpus")


@pytest.mark.parametrize("held", [3, 4])
def test_a_program_that_breaks_its_bound_says_so_and_fails(
    held: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["program"])

    def measure(scratch: Path) -> Figures:
        return {"held": held}

    def bounds(figures: Figures) -> dict[str, bool]:
        return {"holds four": figures["held"] == 4}

    status = None
    try:
        run_program("What it does.", measure, bounds)
    except SystemExit as ended:
        status = ended.code
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told == {"held": held, "broken": [] if held == 4 else ["holds four"]}
    assert status == (None if held == 4 else 1)
