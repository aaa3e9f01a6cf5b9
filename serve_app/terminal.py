"""What all commands share: the console on stderr, and the one line that ends a command that failed."""

from typing import NoReturn

import typer
from rich.console import Console

EXIT_CODES = "Exit status: 0 done, 1 failed (one line on stderr says why), 2 wrong usage, 130 interrupted."

err = Console(stderr=True, highlight=False)


def fail(message: str) -> NoReturn:
    """One line on stderr and exit status 1."""
    err.print(f"cosyserve: {message}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(1)
