"""A short draw from every hostile family: nothing crashes, hangs, leaks, escapes, or is a 5xx."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.hostile import Family, counted, decoders, names, texts, yaml_files
from tests.chaos.hostile_http import abused_api

NUMBER = 36


@pytest.mark.parametrize("family", [decoders, texts, names])
def test_parsers_take_or_refuse(family: Callable[[int], Family]) -> None:
    found = family(NUMBER)
    assert found.tried >= NUMBER
    assert found.num_bad == 0, found.culprits


def test_a_hostile_checkpoint_yaml_executes_nothing_and_is_a_named_fault(tmp_path: Path) -> None:
    found = yaml_files(tmp_path, NUMBER)
    assert found.num_bad == 0, found.culprits
    assert list(tmp_path.iterdir()) == [tmp_path / "cosyvoice2.yaml"]


def test_the_http_edge_survives_abuse() -> None:
    for name, outcomes in asyncio.run(abused_api(NUMBER, seed=1)).items():
        found = counted(name, outcomes)
        assert found.num_bad == 0, (name, found.culprits)
        assert found.tried >= 10, name


def test_a_crash_is_counted_as_one() -> None:
    family = Family("broken")
    family.judge("x", lambda: 1 / 0, ValueError)
    family.judge("y", lambda: None, ValueError)
    assert (family.tried, family.num_bad) == (2, 1)
    assert "ZeroDivisionError" in family.culprits[0]
