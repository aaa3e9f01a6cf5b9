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
    """One family's table. command: what made it. remarks: sentences below it. broken: bounds that did not hold."""

    title: str
    command: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """One row, a cell for each column."""
        assert len(cells) == len(self.columns)
        self.rows.append(tuple(str(cell) for cell in cells))

    def require(self, holds: bool, bound: str) -> None:
        """Notes a bound that does not hold: the run goes on, and ends with exit status 1."""
        if not holds:
            self.broken.append(bound)

    def notes(self) -> list[str]:
        """What stands below the rows."""
        return [*self.remarks, *[f"BROKEN: {bound}" for bound in self.broken]]

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
        if notes := self.notes():
            lines += ["", *[f"- {note}" for note in notes]]
        return "\n".join([*lines, ""])


def machine() -> str:
    """The hardware in a few words, and how busy it is with other work."""
    memory_gib = psutil.virtual_memory().total / 2**30
    load = psutil.getloadavg()[0]
    return f"{psutil.cpu_count()} cores {platform.machine()}, {memory_gib:.0f} GiB, load average {load:.1f}"


def keep(table: Table, path: Path = RESULTS) -> None:
    """Prints a table, and puts it in the place of the section of that title, or at the end."""
    printed = PrintedTable(*table.columns, title=table.title)
    for row in table.rows:
        printed.add_row(*row)
    console = Console(width=160)
    console.print(printed)
    for note in table.notes():
        console.print(f"- {note}", markup=False)
    text = path.read_text(encoding="utf-8") if path.is_file() else _HEAD
    head, *sections = re.split(r"(?m)^(?=## )", text)
    titles = [section.splitlines()[0] for section in sections]
    place = titles.index(f"## {table.title}") if f"## {table.title}" in titles else len(sections)
    sections[place : place + 1] = [table.markdown()]
    written = path.with_suffix(".new")
    written.write_text(head.rstrip() + "\n\n" + "\n".join(section.rstrip() + "\n" for section in sections), "utf-8")
    written.replace(path)  # another run may read it at this moment


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
