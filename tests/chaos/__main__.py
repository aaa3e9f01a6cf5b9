"""`python -m tests.chaos`: breaks the service on purpose, on loopback only, and writes down what happened."""

from pathlib import Path
from typing import Annotated

import typer

from tests.chaos.faults import VICTIMS, run_faults
from tests.chaos.results import keep
from tests.chaos.target import DEMO

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
Checkpoint = Annotated[Path, typer.Option(help="CosyVoice2 directory to serve.", show_default="the demo")]


@app.callback()
def main() -> None:
    """Breaks the service on purpose, on loopback only, and writes down what happened in `tests/chaos/RESULTS.md`."""


@app.command()
def faults(
    checkpoint: Checkpoint = DEMO,
    victim: Annotated[list[str] | None, typer.Option(help="Kill only these: " + ", ".join(VICTIMS) + ".")] = None,
) -> None:
    """kill -9 of each process, at rest, before the first sound and mid-stream; engines that break. About 5 minutes."""
    keep(run_faults(checkpoint, tuple(victim or VICTIMS)))


if __name__ == "__main__":
    app()
