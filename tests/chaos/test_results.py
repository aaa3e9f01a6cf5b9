"""The table in `RESULTS.md`: one section for each family, the newest run of it, the others untouched."""

from pathlib import Path

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
    assert text.count("## One") == text.count("## Two") == 1
    assert "first" not in text and "second" in text and "third" in text
    assert "| a\\|b | third |" in text and "- A remark." in text
    assert "`python -m tests.chaos One`" in text and "cores" in text
