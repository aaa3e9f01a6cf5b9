"""Runs for people: tables for the terminal, and a CSV with a line for each request."""

import csv
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from serve_app.loadtest.goals import Goal
from serve_app.loadtest.measures import PREBUFFERS_S
from serve_app.loadtest.search import SearchResult
from serve_app.loadtest.session import Run
from serve_app.loadtest.speech_client import RequestRecord
from serve_app.loadtest.summary import Spread

LATE_CLIENT_MS = 20.0
"""When the tester's own p99 lag is above this, its figures say as much about itself as about the server."""


def run_table(run: Run) -> Table:
    """All figures of one run."""
    summary = run.summary
    table = Table(title=Text(f"{run.load.name}   {run.target.public_endpoint()}"), title_justify="left")
    for heading in ("", "mean", "p50", "p95", "p99"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, values, digits in (
        ("first byte, ms", summary.ttfb_ms, 1),
        ("TTFP, ms", summary.ttfp_ms, 1),
        ("audible TTFA, ms", summary.audible_ttfa_ms, 1),
        ("E2E, ms", summary.e2e_ms, 1),
        ("RTF", summary.rtf_spread, 3),
        ("tester's lag, ms", summary.client_lag_ms, 2),
    ):
        table.add_row(name, *spread_cells(values, digits))
    table.add_section()
    for player in summary.players:
        continuity = "-" if player.continuity is None else f"{player.continuity:.1%} gapless"
        chosen = " *" if player.prebuffer_ms == summary.prebuffer_ms else ""
        table.add_row(
            f"prebuffer {player.prebuffer_ms:.0f} ms{chosen}",
            f"{player.underruns} underruns",
            f"{player.stall_s:.2f} s silent",
            continuity,
        )
    table.add_section()
    errors = ", ".join(f"{count} {kind}" for kind, count in summary.errors_by_kind.items())
    table.add_row("requests", str(summary.requests), f"{summary.requests_per_s:.2f} /s")
    table.add_row("errors", str(summary.errors), errors)
    table.add_row("sound", f"{summary.audio_s:.1f} s", f"{summary.audio_s_per_s:.2f} s/s", f"in {summary.wall_s:.1f} s")
    table.add_row("CPU peak of machine", percent(summary.cpu_peak), "tester", percent(summary.client_cpu_peak))
    return table


def remarks(run: Run) -> list[str]:
    """What a reader of the table must know besides."""
    summary = run.summary
    lines: list[str] = []
    if run.interrupted:
        lines.append(f"interrupted: {summary.cancelled} requests were still open and are not counted")
    lines += [f"{kind}: {detail}" for kind, detail in summary.error_examples.items() if detail]
    if summary.silent:
        lines.append(f"{summary.silent} answers held no audible sound; they have no audible TTFA")
    lag = summary.client_lag_ms
    if lag is not None and lag.p99 > LATE_CLIENT_MS:
        lines.append(f"the tester itself was late (p99 {lag.p99:.0f} ms): use a faster machine, or less load")
    return lines


def goals_table(goals: Sequence[Goal], run: Run) -> Table:
    """Each goal, and whether the run holds it."""
    table = Table("goal", "measured", "held")
    for goal in goals:
        figure = goal.figure(run.summary)
        measured = "-" if figure is None else f"{figure:.1%}" if goal.is_share else f"{figure:.4g}"
        table.add_row(Text(goal.text), measured, "yes" if goal.is_held_by(run.summary) else "[red]no[/]")
    return table


def search_table(result: SearchResult, unit: str) -> Table:
    """The trials of a search, and what it found."""
    found = "none" if result.highest is None else f"{result.highest:.4g} {unit}"
    broke = "" if result.broke is None else f"; {result.broke:.4g} broke it"
    table = Table(unit, "goal held", title=Text(f"highest that holds the goal: {found}{broke}"), title_justify="left")
    for probe in result.probes:
        table.add_row(f"{probe.level:.4g}", "yes" if probe.held else "[red]no[/]")
    return table


def write_csv(path: Path, records: Sequence[RequestRecord]) -> None:
    """A line for each request, in order of arrival. `--replay` reads it again. Errors: `OSError`."""
    header = ["index", "arrival_s", "sent_late_ms", "status", "error", "error_detail", "ended_ms"]
    header += ["ttfb_ms", "ttfp_ms", "audible_ttfa_ms", "audio_s", "rtf"]
    for prebuffer_s in PREBUFFERS_S:
        header += [f"underruns_{prebuffer_s * 1000:.0f}ms", f"stall_ms_{prebuffer_s * 1000:.0f}ms"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*header, "text"])
        for record in sorted(records, key=lambda record: record.index):
            writer.writerow([*request_cells(record, len(header)), record.text])


def request_cells(record: RequestRecord, num_cells: int) -> list[str]:
    """One line of the CSV, less its text; figures that do not exist are empty."""
    cells = [str(record.index), f"{record.due_s:.6f}", f"{(record.sent_s - record.due_s) * 1000:.3f}"]
    cells += ["" if record.status is None else str(record.status), record.error, record.error_detail]
    cells += [f"{record.ended_s * 1000:.3f}"]
    figures = record.figures
    if figures is not None:
        audible = "" if figures.audible_ttfa_s is None else f"{figures.audible_ttfa_s * 1000:.3f}"
        cells += [f"{figures.ttfb_s * 1000:.3f}", f"{figures.ttfp_s * 1000:.3f}", audible]
        cells += [f"{figures.audio_s:.4f}", f"{figures.rtf:.4f}"]
        for playback in figures.players:
            cells += [str(playback.num_underruns), f"{playback.stall_s * 1000:.3f}"]
    return cells + [""] * (num_cells - len(cells))


def spread_cells(values: Spread | None, digits: int) -> list[str]:
    if values is None:
        return ["-"] * 4
    return [f"{value:.{digits}f}" for value in (values.mean, values.p50, values.p95, values.p99)]


def percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f} %"
