"""What a disk, a clock or a hand can spoil: the tests that inject it, by name, with what they hold the product to."""

import re
import subprocess
import sys
import time
from dataclasses import dataclass

from tests.chaos.results import Table
from tests.conftest import ROOT

COLUMNS = ("what is spoiled", "what is lost", "what the client or operator sees", "tests passed", "seconds")
CRASHES = "tests/preprocess/test_voice_crashes.py"
DAMAGE = "tests/preprocess/test_voice_damage.py"
CHECKPOINT = "tests/model/test_checkpoint.py"


@dataclass(frozen=True, slots=True)
class Damage:
    """One kind of damage. tests: as pytest takes them."""

    what: str
    lost: str
    seen: str
    tests: tuple[str, ...]


ALL = (
    Damage(
        "kill -9 at every single step of adding and of removing a voice (disk, bucket)",
        "at most the voice being added",
        "the old state or the new, the rest swept a day later",
        (
            f"{CRASHES}::test_a_process_killed_at_any_step_leaves_the_old_state_or_the_new",
            f"{CRASHES}::test_in_a_bucket_too",
        ),
    ),
    Damage(
        "disk full at every single step of adding a voice",
        "the voice being added",
        "507 storage_full, the store as before",
        (f"{CRASHES}::test_a_full_disk_says_so_and_leaves_nothing_behind", "tests/api/test_voices.py"),
    ),
    Damage(
        "processes register the same name at once",
        "nothing",
        "exactly one wins, the others get 409",
        (
            f"{CRASHES}::test_of_processes_that_want_the_same_name_exactly_one_gets_it",
            f"{CRASHES}::test_a_name_taken_at_the_last_moment_is_refused",
        ),
    ),
    Damage(
        "power lost after any write of a voice",
        "nothing that was acknowledged",
        "every file is fsynced before its name, its name before the next file",
        (f"{CRASHES}::test_every_file_is_on_the_disk_before_its_name_and_its_name_before_the_next_file",),
    ),
    Damage(
        "corrupt record, clip or prompt of a voice",
        "that voice, or nothing where its clip still gives its prompt",
        "set aside and named in the log; the name is free; the prompt is made anew",
        (DAMAGE, "tests/preprocess/test_voice_registration.py"),
    ),
    Damage(
        "corrupt, truncated or missing file of the checkpoint",
        "the start",
        "every fault named at once; nothing starts",
        (
            f"{CHECKPOINT}::test_truncated_file_is_named",
            f"{CHECKPOINT}::test_missing_file_is_named",
            f"{CHECKPOINT}::test_every_fault_is_named_at_once",
        ),
    ),
    Damage(
        "corrupt safetensors cache, down to one bit; no room for one",
        "nothing",
        "the cache is made again",
        (
            f"{CHECKPOINT}::test_damaged_cache_is_rebuilt",
            f"{CHECKPOINT}::test_one_flipped_bit_in_the_data_of_a_cache_is_noticed",
            f"{CHECKPOINT}::test_full_disk_leaves_no_half_cache",
        ),
    ),
    Damage(
        "hostile checkpoint: pickle payload, constructing YAML tag, weights outside the folder",
        "the start",
        "refused, nothing executed, nothing outside read",
        (
            f"{CHECKPOINT}::test_pickle_payload_does_not_run",
            f"{CHECKPOINT}::test_yaml_payload_does_not_run",
            f"{CHECKPOINT}::test_hyperpyyaml_tags_are_only_data",
            f"{CHECKPOINT}::test_references_compute_nothing_else",
            "tests/chaos/test_hostile_checkpoint.py",
        ),
    ),
    Damage(
        "the wall clock jumps; the machine stands still (a saved virtual machine, a laptop asleep)",
        "nothing",
        "deadlines, pacing and watchdogs use the monotonic clock; a jump of that is no step that hangs",
        ("tests/chaos/test_clocks.py", "tests/synthesis/test_watchdog.py"),
    ),
    Damage(
        "the engine: exception in a stream, in a batch, no memory, a step that hangs",
        "the stream at fault, or its batch where flow or vocoder failed; all of a replica that must be replaced",
        "the table of faults has the same through HTTP",
        ("tests/synthesis/test_engine_faults.py", "tests/synthesis/test_engine_thread.py"),
    ),
    Damage(
        "an open port, keys in logs, foreign pages, another's voices",
        "nothing",
        "loopback by default; security headers and CSP; 401, 403 or 404",
        (
            "tests/test_exposure.py",
            "tests/api/test_access.py",
            "tests/api/test_tenants.py",
            "tests/web/test_files.py",
        ),
    ),
)


def damage_table() -> Table:
    """The empty table."""
    return Table("Damage", "python -m tests.chaos damage", COLUMNS)


def run_damage(table: Table) -> None:
    """A row for each; a test that fails is a broken bound."""
    for damage in ALL:
        started_s = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *damage.tests]
        ended = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
        passed = re.search(r"(\d+) passed", ended.stdout)
        table.add(
            damage.what, damage.lost, damage.seen, passed[1] if passed else 0, f"{time.monotonic() - started_s:.0f}"
        )
        table.require(ended.returncode == 0 and passed is not None, f"{damage.what}: {ended.stdout[-400:]}")
    table.remarks.append("Each row is what `make test` runs too: these tests by name.")
