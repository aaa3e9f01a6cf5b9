"""The verdict of a soak: growth fails it and is named, a machine that is busy with other things does not."""

import threading
from collections import Counter

import psutil  # type: ignore[import-untyped]

from tests.chaos.processes import Holdings
from tests.chaos.results import Table
from tests.chaos.soak import Part, judge, soak_table
from tests.chaos.threads import thread_names


def part(
    *, num_threads: int = 100, rss_mib: float = 1000, first_ms: float = 300, work_ms: float = 30, cpu_s: float = 0.2
) -> Part:
    pool = Counter({"asyncio": num_threads - 40, "grpc": 40})
    held = Holdings(rss_mib, 200, num_threads, 40)
    return Part(100, [first_ms], [work_ms], cpu_s, held, {"preprocess": pool})


def judged(last: Part) -> Table:
    table = soak_table(60, 2)
    judge(part(), last, table)
    return table


def test_what_has_grown_fails_the_run_and_is_named() -> None:
    [broken] = judged(part(num_threads=103)).broken
    assert "+3.0%" in broken and "preprocess asyncio 60 -> 63" in broken and "grpc" not in broken
    [broken] = judged(part(rss_mib=1021)).broken
    assert "rss_mib" in broken
    assert not judged(part(num_threads=101, rss_mib=1019)).broken


def test_slower_on_a_busier_machine_is_no_slower() -> None:
    assert not judged(part(first_ms=900, work_ms=90)).broken
    [broken] = judged(part(first_ms=900, work_ms=40)).broken
    assert "first sound" in broken
    [broken] = judged(part(cpu_s=0.3)).broken
    assert "cheap" in broken


def test_threads_of_a_process_are_named_without_their_numbers() -> None:
    wait = threading.Event()
    pool = [threading.Thread(target=wait.wait, name=f"pool-{number}_7") for number in range(3)]
    for thread in pool:
        thread.start()
    try:
        names = thread_names(psutil.Process())
    finally:
        wait.set()
        for thread in pool:
            thread.join()
    assert len(names) >= 4 and not any(character.isdigit() for name in names for character in name)
