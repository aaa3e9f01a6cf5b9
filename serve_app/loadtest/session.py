"""A run from its first request to its summary: progress while it goes on, and Ctrl-C ends it early."""

import asyncio
import contextlib
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from serve_app.loadtest.driver import ClosedLoop, Driver, Load
from serve_app.loadtest.faults import LoadTestError
from serve_app.loadtest.machine import MachineWatch
from serve_app.loadtest.speech_client import RequestRecord, SpeechClient
from serve_app.loadtest.summary import Summary, spread, summarise, to_json
from serve_app.loadtest.target import Target

PROGRESS_INTERVAL_S = 0.5
PROGRESS_WINDOW = 200
"""Requests that the live figures look back on."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is over. interrupted: ended by Ctrl-C; the figures are of what was over by then."""

    target: Target
    load: Load
    started_at: str
    interrupted: bool
    summary: Summary
    records: tuple[RequestRecord, ...]

    def to_json(self, detail: dict[str, Any] | None = None) -> dict[str, Any]:
        """With `detail` added to what describes the run."""
        about = {
            "endpoint": self.target.public_endpoint(),
            "model": self.target.model,
            "voice": self.target.voice,
            "format": self.target.audio_format,
            "load": self.load.name,
            "started_at": self.started_at,
            "interrupted": self.interrupted,
        }
        return to_json(self.summary, about | (detail or {}))


class Session:
    """Runs against one target, one after the other."""

    def __init__(self, target: Target, texts: Sequence[str], prebuffer_ms: float, console: Console) -> None:
        self.target = target
        self.texts = texts
        self.prebuffer_ms = prebuffer_ms
        self.console = console

    async def warm_up(self, num_requests: int) -> None:
        """Requests one after the other, whose figures are thrown away. Errors: `LoadTestError` if interrupted."""
        if num_requests:
            run = await self.run(ClosedLoop(1, num_requests, self.target.timeout_s * num_requests), "warm-up")
            if run.interrupted:
                raise LoadTestError("interrupted while warming up")

    async def run(self, load: Load, label: str = "") -> Run:
        """One run. Ctrl-C ends it early; a second one ends the program."""
        started_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        interrupted = False
        async with SpeechClient(self.target) as client, MachineWatch() as machine:
            driver = Driver(client, self.texts)
            running = asyncio.create_task(driver.run(load))

            def interrupt() -> None:
                nonlocal interrupted
                interrupted = True
                running.cancel()
                loop.remove_signal_handler(signal.SIGINT)

            loop = asyncio.get_running_loop()
            # not on Windows, nor off the main thread; there Ctrl-C ends the program
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(signal.SIGINT, interrupt)
            watching = asyncio.create_task(self._show_progress(driver, label or load.name))
            try:
                await running
            except asyncio.CancelledError:
                if not interrupted:
                    raise
            finally:
                with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                    loop.remove_signal_handler(signal.SIGINT)
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
        summary = summarise(
            driver.records,
            prebuffer_ms=self.prebuffer_ms,
            cancelled=driver.in_flight,
            lags_s=machine.lags_s,
            machine_cpu_percent=machine.machine_cpu_percent,
            client_cpu_percent=machine.client_cpu_percent,
        )
        return Run(self.target, load, started_at, interrupted, summary, tuple(driver.records))

    async def _show_progress(self, driver: Driver, label: str) -> None:
        """One line on a terminal, drawn seldom: drawing takes time from the loop that takes the time stamps."""
        if not self.console.is_terminal:
            return
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(progress_line(driver, label), refresh=True)
                await asyncio.sleep(PROGRESS_INTERVAL_S)


def progress_line(driver: Driver, label: str) -> Text:
    """Where a run is, with the latency of its last requests."""
    num_errors = sum(bool(record.error) for record in driver.records)
    recent = [r.figures.ttfp_s for r in driver.records[-PROGRESS_WINDOW:] if r.figures is not None]
    latency = spread(recent)
    first_packet = f"   first packet p50 {latency.p50:.0f} ms, p95 {latency.p95:.0f} ms" if latency else ""
    counts = f"{len(driver.records)} done   {driver.in_flight} open   {num_errors} failed"
    return Text(f"{label}   {driver.elapsed_s():.0f} s   {counts}{first_packet}   Ctrl-C ends it")
