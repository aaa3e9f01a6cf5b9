"""Tables of what happened: printed, and kept in `RESULTS.md`, one section for each family."""

import datetime
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from rich.console import Console
from rich.table import Table as PrintedTable

RESULTS = Path(__file__).parent / "RESULTS.md"
_HEAD = """# What breaks, and what then happens

Written by `python -m tests.chaos`, one section for each command; every figure is of the run that its section names.
"""


@dataclass
class Table:
    """One family's table. command: what made it. remarks: sentences below it."""

    title: str
    command: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """One row, a cell for each column."""
        assert len(cells) == len(self.columns)
        self.rows.append(tuple(str(cell) for cell in cells))

    def markdown(self) -> str:
        """The section, from its heading on."""
        when = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        lines = [
            f"## {self.title}",
            "",
            f"`{self.command}`, {when}, {machine()}.",
            "",
            _line(self.columns),
            _line(["---"] * len(self.columns)),
            *[_line(row) for row in self.rows],
        ]
        if self.remarks:
            lines += ["", *[f"- {remark}" for remark in self.remarks]]
        return "\n".join([*lines, ""])


def machine() -> str:
    """The hardware in a few words, and how busy it is with other work."""
    memory_gib = psutil.virtual_memory().total / 2**30
    load = psutil.getloadavg()[0]
    return f"{psutil.cpu_count()} cores {platform.machine()}, {memory_gib:.0f} GiB, load average {load:.1f}"


def keep(table: Table, path: Path = RESULTS) -> None:
    """Prints a table, and puts it in the place of the section of that title."""
    printed = PrintedTable(*table.columns, title=table.title)
    for row in table.rows:
        printed.add_row(*row)
    console = Console(width=160)
    console.print(printed)
    for remark in table.remarks:
        console.print(f"- {remark}", markup=False)
    text = path.read_text(encoding="utf-8") if path.is_file() else _HEAD
    head, *sections = re.split(r"(?m)^(?=## )", text)
    sections = [section for section in sections if section.splitlines()[0] != f"## {table.title}"]
    sections.append(table.markdown())
    path.write_text(head.rstrip() + "\n\n" + "\n".join(section.rstrip() + "\n" for section in sections), "utf-8")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
