"""The table in `RESULTS.md`: one section for each family, the newest run of it, the others untouched."""

from pathlib import Path

import pytest
import typer

from tests.chaos.__main__ import kept
from tests.chaos.results import Table, keep


def section(title: str, cell: str) -> Table:
    table = Table(title, f"python -m tests.chaos {title}", ("what", "how"), remarks=["A remark."])
    table.add("a|b", cell)
    return table


def test_a_new_run_replaces_its_own_section_alone(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    for table in (section("One", "first"), section("Two", "second"), section("One", "third")):
        keep(table, path)
    text = path.read_text()
    assert text.index("## One") < text.index("## Two")
    assert text.count("## One") == text.count("## Two") == 1
    assert "first" not in text and "second" in text and "third" in text
    assert "| a\\|b | third |" in text and "- A remark." in text
    assert "`python -m tests.chaos One`" in text and "cores" in text


def test_a_bound_that_does_not_hold_is_told_and_fails_the_command(tmp_path: Path) -> None:
    table = section("One", "first")
    table.require(True, "this one holds")
    assert "BROKEN" not in table.markdown()
    table.require(False, "pages back to the start")
    assert "- BROKEN: pages back to the start" in table.markdown() and "this one holds" not in table.markdown()
    with pytest.raises(typer.Exit) as ended, kept(table, tmp_path / "RESULTS.md"):
        pass
    assert ended.value.exit_code == 1 and "BROKEN" in (tmp_path / "RESULTS.md").read_text()


def test_a_run_that_ends_early_keeps_its_rows(tmp_path: Path) -> None:
    table = section("One", "first")
    with pytest.raises(KeyboardInterrupt), kept(table, tmp_path / "RESULTS.md"):
        raise KeyboardInterrupt
    assert "ended early: KeyboardInterrupt" in (tmp_path / "RESULTS.md").read_text()
