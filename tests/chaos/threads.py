"""The threads of a running service by process and name: when there are more than before, whose they are."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from tests.chaos.processes import SERVING, processes_of

_LOOK_S = 20.0


def threads(root_pid: int) -> dict[str, Counter[str]]:
    """How many threads of each name every serving role has. Replicas of one role are counted together."""
    return {
        role: Counter(name for process in processes_of(root_pid, role) for name in thread_names(process))
        for role in SERVING
    }


def thread_names(process: psutil.Process) -> list[str]:
    """One name for each thread: Python's where it has one, else the kernel's; without numbers, so that those of one
    pool are alike.
    """
    python = _python_names(process.pid)
    names = []
    for folder in Path(f"/proc/{process.pid}/task").glob("*"):
        with contextlib.suppress(OSError):  # it has just ended
            name = python.get(int(folder.name)) or (folder / "comm").read_text().strip()
            names.append(re.sub(r"[-_.:]?\d+", "", name))
    return names


def more_threads(before: dict[str, Counter[str]], after: dict[str, Counter[str]]) -> str:
    """Of what there is more than before: `preprocess asyncio 4 -> 6, ...`; empty where nothing has grown."""
    return ", ".join(
        f"{role} {name} {before[role][name]} -> {number}"
        for role, found in after.items()
        for name, number in sorted(found.items())
        if number > before[role][name]
    )


def _python_names(pid: int) -> dict[int, str]:
    """By the kernel's id, as py-spy reads them from outside; {} where it is not there or not allowed to look."""
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if spy is None:
        return {}
    command = [spy, "dump", "--json", "--nonblocking", "--pid", str(pid)]
    try:
        seen = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_LOOK_S)
        found: list[dict[str, Any]] = json.loads(seen.stdout)
    except (subprocess.SubprocessError, ValueError):
        return {}
    return {each["os_thread_id"]: each["thread_name"] for each in found if each["os_thread_id"] and each["thread_name"]}
