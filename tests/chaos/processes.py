"""The processes of a running service: which there are, how to kill one, and what they hold."""

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]

ROLES = {
    "ingress": re.compile(r"ray::ServeReplica:\w+:Ingress"),
    "preprocess": re.compile(r"ray::ServeReplica:\w+:Preprocess"),
    "synthesis": re.compile(r"ray::ServeReplica:\w+:Synthesis"),
    "proxy": re.compile(r"ray::ProxyActor"),
    "raylet": re.compile(r"/raylet/raylet\b"),
}
SERVING = ("proxy", "ingress", "preprocess", "synthesis")
"""The roles that a request passes through."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """What processes hold together. rss_mib counts pages that several share more than once."""

    rss_mib: float
    num_files: int
    num_threads: int
    num_sockets: int

    def growth(self, before: "Holdings") -> dict[str, float]:
        """Of each figure, as a share of what it was before."""
        names = ("rss_mib", "num_files", "num_threads", "num_sockets")
        return {name: getattr(self, name) / max(1, getattr(before, name)) - 1 for name in names}


def processes_of(root_pid: int, role: str) -> list[psutil.Process]:
    """The service's processes of one role, oldest first."""
    found = [process for process, line in _command_lines(root_pid) if ROLES[role].search(line)]
    return sorted(found, key=lambda process: process.create_time())


def kill(process: psutil.Process) -> None:
    """kill -9, at once."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)


def kill_tree(process: psutil.Process) -> int:
    """kill -9 of a process and of all that it started, so fast that none of them can react. Returns how many."""
    doomed = [process, *process.children(recursive=True)]
    for one in doomed:
        kill(one)
    return len(doomed)


def holdings(root_pid: int) -> dict[str, Holdings]:
    """What each of the serving roles holds."""
    return {role: _held_by(processes_of(root_pid, role)) for role in SERVING}


def cpu_s(root_pid: int) -> dict[int, float]:
    """CPU seconds so far of each serving process, by its id."""
    used_s = {}
    for role in SERVING:
        for process in processes_of(root_pid, role):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                used_s[process.pid] = times.user + times.system
    return used_s


def total(held: dict[str, Holdings]) -> Holdings:
    """The sum of several."""
    values = list(held.values())
    return Holdings(
        sum(one.rss_mib for one in values),
        sum(one.num_files for one in values),
        sum(one.num_threads for one in values),
        sum(one.num_sockets for one in values),
    )


def _held_by(processes: list[psutil.Process]) -> Holdings:
    rss, files, threads, sockets = 0, 0, 0, 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            rss += process.memory_info().rss
            files += process.num_fds()
            threads += process.num_threads()
            sockets += len(process.net_connections(kind="inet"))
    return Holdings(rss / 2**20, files, threads, sockets)


def _command_lines(root_pid: int) -> Iterator[tuple[psutil.Process, str]]:
    try:
        children = psutil.Process(root_pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return
    for process in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            yield process, " ".join(process.cmdline())
