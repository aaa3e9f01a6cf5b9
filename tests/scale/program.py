"""How a program of this folder runs: its scratch folder, its figures as a table and as JSON, its exit status."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Figures = dict[str, Any]


def run_program(
    description: str | None, measure: Callable[[Path], Figures], bounds: Callable[[Figures], dict[str, bool]]
) -> None:
    """All of a program's `main`. Exit status 1 where a bound does not hold; the JSON is the last line, `broken` in it.

    measure: does the work, with a scratch folder, and says progress. bounds: which there are, and whether they hold.
    """
    argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(Path(scratch))
    broken = [bound for bound, holds in bounds(figures).items() if not holds]
    table = Table("figure", "value", show_header=False)
    for name, value in figures.items():
        table.add_row(name, json.dumps(value))
    for bound in broken:
        table.add_row("BROKEN", bound)
    Console().print(table)
    print(json.dumps({**figures, "broken": broken}))
    if broken:
        sys.exit(1)
