"""`python -m tests.chaos`: breaks the service on purpose, on loopback only, and writes down what happened."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli import interrupt
from tests.chaos.access import access_table, run_access
from tests.chaos.damage import damage_table, run_damage
from tests.chaos.faults import VICTIMS, faults_table, run_faults
from tests.chaos.floods import floods_table, run_floods
from tests.chaos.fuzz import fuzz_table, run_fuzz
from tests.chaos.hostile import hostile_table, run_hostile
from tests.chaos.leaving import leaving_table, run_leaving
from tests.chaos.results import RESULTS, Table, keep
from tests.chaos.soak import BREATH_S, run_soak, soak_table
from tests.chaos.target import DEMO

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
Checkpoint = Annotated[Path, typer.Option(help="CosyVoice2 directory to serve.", show_default="the demo")]


@app.callback()
def main() -> None:
    """Breaks the service on purpose, on loopback only, and writes down what happened in `tests/chaos/RESULTS.md`.

    Interrupted or out of time, it ends what it has started and keeps the rows that it has.
    """
    signal.signal(signal.SIGTERM, interrupt)


@contextmanager
def kept(table: Table, path: Path = RESULTS) -> Iterator[Table]:
    """The table is kept however the block ends, if it has a row. Exit status 1 where a bound is broken."""
    try:
        yield table
    except BaseException as error:
        table.remarks.append(f"The run ended early: {type(error).__name__} {error}".strip())
        raise
    finally:
        if table.rows:
            keep(table, path)
    if table.broken:
        raise typer.Exit(1)


@app.command()
def faults(
    checkpoint: Checkpoint = DEMO,
    victim: Annotated[list[str] | None, typer.Option(help="Kill only these: " + ", ".join(VICTIMS) + ".")] = None,
) -> None:
    """kill -9 of each process, at rest, before the first sound and mid-stream; engines that break. About 5 minutes."""
    with kept(faults_table()) as table:
        run_faults(checkpoint, tuple(victim or VICTIMS), table)


@app.command()
def damage() -> None:
    """Disks, clocks and files that are spoiled, by the tests that inject it. About 2 minutes."""
    with kept(damage_table()) as table:
        run_damage(table)


@app.command()
def access(checkpoint: Checkpoint = DEMO) -> None:
    """Keys and the voices that belong to them, over every way in; no key in any log. About a minute."""
    with kept(access_table()) as table:
        run_access(checkpoint, table)


@app.command()
def leaving(
    checkpoint: Checkpoint = DEMO,
    number: Annotated[int, typer.Option(help="Clients that leave, a third over each way in.", min=3)] = 1000,
) -> None:
    """Connections reset at random moments over HTTP and both WebSockets; what they held. About 8 minutes."""
    with kept(leaving_table(number)) as table:
        run_leaving(checkpoint, number, table)


@app.command()
def floods(
    checkpoint: Checkpoint = DEMO,
    seconds: Annotated[float, typer.Option(help="Length of each flood.", min=1)] = 60,
    factor: Annotated[float, typer.Option(help="Times the measured capacity.", min=1)] = 10,
    max_load: Annotated[float, typer.Option(help="The admission that is compared with none.", min=0.1)] = 0.6,
    compare: Annotated[bool, typer.Option(help="Also without that admission.")] = True,
    idle: Annotated[int, typer.Option(help="Idle WebSockets.", min=0)] = 500,
    slow: Annotated[int, typer.Option(help="Clients that never read.", min=0)] = 200,
) -> None:
    """Open-loop floods with and without measured admission; idle sockets and slow readers. About 6 minutes."""
    with kept(floods_table(seconds, factor, compares=compare)) as table:
        run_floods(checkpoint, seconds, factor, max_load, table, compares=compare, idle=idle, slow=slow)


@app.command()
def soak(
    checkpoint: Checkpoint = DEMO,
    minutes: Annotated[float, typer.Option(help="How long.", min=0.1)] = 60,
    breath: Annotated[float, typer.Option(help="Longest pause of a client between requests, in seconds.")] = BREATH_S,
) -> None:
    """Mixed traffic: memory, files, threads and latency at six points in time. Exit status 1 for growth over 2 %."""
    with kept(soak_table(minutes, breath)) as table:
        run_soak(checkpoint, minutes, breath, table)


@app.command()
def hostile(
    number: Annotated[int, typer.Option(help="Inputs for each family.", min=1)] = 400,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
) -> None:
    """Hostile input by families: parsers and decoders, our HTTP edge, Ray's proxy. 400: about 5 minutes."""
    with kept(hostile_table(number, seed)) as table:
        run_hostile(number, seed, table)


@app.command()
def fuzz(seconds: Annotated[int, typer.Option(help="For each parser.", min=5)] = 60) -> None:
    """Coverage-guided fuzzing of the parsers and decoders, by atheris (pip install '.[fuzz]'). About 5 minutes."""
    with kept(fuzz_table(seconds)) as table:
        run_fuzz(seconds, table)


if __name__ == "__main__":
    app()
