"""What the load cost the machine that made it: its CPU, and how late the tester itself was."""

import asyncio
import importlib
import time
from types import ModuleType, TracebackType

TICK_S = 0.010
CPU_INTERVAL_S = 0.5


class MachineWatch:
    """Measures from entering `async with` to leaving it.

    lags_s: every `TICK_S`, how late this event loop ran a timer. Any time stamp of the run can be late by as much.
    machine_cpu_percent: whole machine, 0..100, one value each `CPU_INTERVAL_S`; client_cpu_percent: this process, where
    100 is one core. Both empty if psutil is not installed or cannot tell.
    """

    def __init__(self) -> None:
        self.lags_s: list[float] = []
        self.machine_cpu_percent: list[float] = []
        self.client_cpu_percent: list[float] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "MachineWatch":
        self._tasks = [asyncio.create_task(self._watch_lag())]
        psutil = load_psutil()
        if psutil is not None:
            self._tasks.append(asyncio.create_task(self._watch_cpu(psutil)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch_lag(self) -> None:
        while True:
            due_s = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            self.lags_s.append(max(0.0, time.monotonic() - due_s))

    async def _watch_cpu(self, psutil: ModuleType) -> None:
        process = psutil.Process()
        try:
            # the first call of each only marks where the interval begins
            psutil.cpu_percent()
            process.cpu_percent()
            while True:
                await asyncio.sleep(CPU_INTERVAL_S)
                self.machine_cpu_percent.append(float(psutil.cpu_percent()))
                self.client_cpu_percent.append(float(process.cpu_percent()))
        except (psutil.Error, OSError):
            return  # a machine that does not tell: unknown stays unknown


def load_psutil() -> ModuleType | None:
    """psutil, or None where it is not installed: its figures are then unknown, and nothing else changes."""
    try:
        return importlib.import_module("psutil")
    except ImportError:
        return None
