"""Clock jumps: deadlines, playback, pacing and watchdogs use the monotonic clock; the wall clock only dates things."""

import ast
from pathlib import Path

import serve_app

ROOT = Path(serve_app.__file__).parent
DATES_ONLY = {
    "synthesis/bench.py",  # the day of a benchmark
    "preprocess/voice_store.py",  # when a voice was registered, as listings show it
    "preprocess/voice_folder.py",  # the age of files, whose times are the wall clock's; a day decides
}
SERVING = ("api", "preprocess", "synthesis", "model")
WALL = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today")}


def wall_clock_reads(path: Path) -> list[int]:
    """Lines that ask the wall clock."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if (owner, node.attr) in WALL:
                found.append(node.lineno)
    return found


def test_what_serves_reads_the_wall_clock_only_to_date_things() -> None:
    readers = set()
    for folder in SERVING:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if wall_clock_reads(path):
                readers.add(path.relative_to(ROOT).as_posix())
    assert readers <= DATES_ONLY


def test_the_search_finds_what_it_looks_for() -> None:
    assert wall_clock_reads(ROOT / "preprocess/voice_store.py")
