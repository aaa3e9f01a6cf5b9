"""The parity command at toy size: every bound holds, and a fault in any network is found."""

import json
from pathlib import Path

import pytest
import torch

from serve_app.model import flow, stored_network
from serve_app.model.transformer import Rotary
from serve_app.synthesis.parity import Row, main, measure

pytest.importorskip("cosyvoice")


def test_every_bound_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--size", "toy"]) == 0
    lines = capsys.readouterr().out.splitlines()
    figures = json.loads(lines[-1])
    assert figures["holds"]
    assert {quantity: figures[quantity] < 1e-4 for quantity in ("logits", "mel", "samples")} == {
        "logits": True,
        "mel": True,
        "samples": True,
    }
    assert sum(line.startswith("mel") for line in lines) > 25


@pytest.mark.parametrize("value", [2e-4, float("nan")])
def test_a_difference_does_not_hold(value: float) -> None:
    ours, theirs = torch.zeros(3), torch.tensor([0.0, value, 0.0])
    assert not Row.of("mel", "case", ours, theirs).holds
    assert Row.of("mel", "case", ours, ours).holds
