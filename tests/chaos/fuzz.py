"""Coverage-guided fuzzing of everything that parses what strangers send, each parser in a process of its own."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.chaos.results import Table
from tests.conftest import ROOT, environment

PARSERS = {
    "text": "text: markup, SSML, figures",
    "yaml": "a checkpoint's YAML",
    "body": "JSON of a request",
    "audio": "sound files",
}
COLUMNS = ("parser", "inputs", "branches found", "inputs kept as new", "crash, hang, memory", "seconds")


def fuzz_table(seconds: int) -> Table:
    """The empty table."""
    return Table("Fuzzing", f"python -m tests.chaos fuzz --seconds {seconds}", COLUMNS)


def run_fuzz(seconds: int, table: Table) -> None:
    """A row for each parser. What crashes, takes 20 s or 3 GB is a broken bound, with the input that did it."""
    for name, told in PARSERS.items():
        with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
            folder = Path(scratch)
            command = [sys.executable, "-W", "ignore", "-m", "tests.chaos.fuzz_target", name, str(seconds), scratch]
            ended = subprocess.run(command, check=False, cwd=ROOT, env=environment(), capture_output=True, text=True)
            culprits = [path.read_bytes()[:200] for path in folder.glob("*-*") if path.is_file()]
        num_inputs = re.search(r"number_of_executed_units:\s+(\d+)", ended.stderr)
        branches = re.findall(r"cov: (\d+)", ended.stderr)
        added = re.search(r"new_units_added:\s+(\d+)", ended.stderr)
        assert num_inputs is not None and branches and added is not None, ended.stderr[-2000:]
        table.add(told, num_inputs[1], branches[-1], added[1], len(culprits), seconds)
        failure = ended.stderr[-300:] if ended.returncode else ""
        table.require(ended.returncode == 0, f"{told}: {culprits} {failure}")
        table.require(int(branches[-1]) > int(branches[0]) or int(added[1]) > 0, f"{told}: coverage guides the search")
    table.remarks.append(
        "By atheris (libFuzzer), seeded with the hostile inputs of the other families; it watches the branches of "
        "`serve_app`, not those of the C decoders below it."
    )
