"""A voice store that is killed, filled and raced for at every step: it holds the old state or the new one."""

import errno
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest

from serve_app.errors import StorageFull, VoiceExists
from serve_app.preprocess.voice_folder import BucketFolder, DiskFolder, Folder
from serve_app.preprocess.voice_store import VoiceStore
from tests.conftest import ROOT
from tests.preprocess.stored_voices import same, voice, watching_file_calls, whole_voices

BEFORE = {"Anna", "Bob"}
AFTER = {"add": {"Anna", "Bob", "Carla"}, "remove": {"Anna"}}


class Killed(BaseException):
    """The process has ended: nothing catches this."""


class MortalFiles:
    """A file system whose process is killed before its change number `num_changes`; after that nothing answers."""

    def __init__(self, filesystem: Any, num_changes: int) -> None:
        self._filesystem = filesystem
        self._left = num_changes

    def __getattr__(self, name: str) -> Any:
        if name in ("pipe_file", "rm", "rm_file"):
            self._left -= 1
        if self._left < 0:
            raise Killed
        return getattr(self._filesystem, name)


def processes(*arguments: str) -> str:
    command = [sys.executable, "-W", "ignore", "-m", "tests.preprocess.store_processes", *arguments]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True).stdout


def change(store: VoiceStore, operation: str) -> None:
    if operation == "add":
        store.add(*voice("Carla", 3))
    else:
        store.remove("Bob")


def check_after_a_crash(store: VoiceStore, operation: str) -> set[str]:
    """The names that are there now. The store works as if nothing had happened."""
    names = whole_voices(store)
    assert names in (BEFORE, AFTER[operation])
    for name, seed in (("Bob", 2), ("Carla", 3)):
        if name in names:
            with pytest.raises(VoiceExists):
                store.add(*voice(name, seed))
        else:
            store.add(*voice(name, seed))
    assert whole_voices(store) == {"Anna", "Bob", "Carla"}
    return names


@pytest.mark.parametrize("operation", ["add", "remove"])
def test_a_process_killed_at_any_step_leaves_the_old_state_or_the_new(tmp_path: Path, operation: str) -> None:
    num_kills = int(processes("crash", operation, str(tmp_path)))
    seen = []
    for number in range(num_kills + 1):
        seen.append(check_after_a_crash(VoiceStore(DiskFolder(tmp_path / str(number))), operation))
    assert seen[0] == BEFORE
    assert seen[-1] == AFTER[operation]
    changed_at = seen.index(AFTER[operation])
    assert 0 < changed_at < num_kills, "steps before and after the one that counts were tried"
    assert all(names == AFTER[operation] for names in seen[changed_at:])


@pytest.mark.parametrize("operation", ["add", "remove"])
def test_in_a_bucket_too(operation: str) -> None:
    files = fsspec.filesystem("memory")
    seen = []
    for num_changes in range(20):
        root = f"/crash/{uuid.uuid4()}"
        whole = VoiceStore(BucketFolder(files, root))
        whole.add(*voice("Anna", 1))
        whole.add(*voice("Bob", 2))
        try:
            change(VoiceStore(BucketFolder(MortalFiles(files, num_changes), root)), operation)
        except Killed:
            seen.append(check_after_a_crash(VoiceStore(BucketFolder(files, root)), operation))
        else:
            break
    assert len(seen) == (3 if operation == "add" else 2)
    assert seen[0] == BEFORE
    assert whole_voices(whole) == AFTER[operation]


def test_a_full_disk_says_so_and_leaves_nothing_behind(tmp_path: Path) -> None:
    store = VoiceStore(DiskFolder(tmp_path))
    store.add(*voice("Anna", 1))
    before = sorted(path for path in tmp_path.rglob("*"))
    for num_calls in range(1000):
        left = num_calls

        def count(name: str) -> None:
            nonlocal left
            left -= name not in ("open", "unlink")  # what a full disk still allows
            if left < 0:
                raise OSError(errno.ENOSPC, "no space left on device")  # once: the profiler ends with it

        try:
            with watching_file_calls(count):
                store.add(*voice("Bob", 2))
        except StorageFull:
            assert sorted(path for path in tmp_path.rglob("*")) == before
            assert whole_voices(store) == {"Anna"}
        else:
            break
    assert num_calls > 12
    assert whole_voices(store) == {"Anna", "Bob"}


def test_every_file_is_on_the_disk_before_its_name_and_its_name_before_the_next_file(tmp_path: Path) -> None:
    store = VoiceStore(DiskFolder(tmp_path))
    calls: list[str] = []
    with watching_file_calls(calls.append):
        store.add(*voice("Anna"))
    placed = [index for index, name in enumerate(calls) if name in ("rename", "replace", "link")]
    assert len(placed) == 3
    for index, end in zip(placed, [*placed[1:], len(calls)], strict=True):
        written = max(i for i, name in enumerate(calls[:index]) if name == "write")
        assert "fsync" in calls[written:index]
        following = calls[index:end]
        until = following.index("write") if "write" in following else len(following)
        assert "fsync" in following[:until]


def test_of_processes_that_want_the_same_name_exactly_one_gets_it(tmp_path: Path) -> None:
    won = [line.split() for line in processes("race", str(tmp_path)).splitlines()]
    assert sorted(int(number) for number, _ in won) == list(range(10))
    store = VoiceStore(DiskFolder(tmp_path))
    assert {card.id for card in store.cards()} == {voice_id for _, voice_id in won}
    assert len(whole_voices(store)) == 10
    assert len(list((tmp_path / "data").iterdir())) == 10, "the losers took their files away"
    assert list((tmp_path / "incoming").iterdir()) == []


class Overtaken:
    """A folder in which somebody else creates every file a moment earlier."""

    def __init__(self, folder: Folder, other: VoiceStore) -> None:
        self._folder = folder
        self._other = other

    def __getattr__(self, name: str) -> Any:
        return getattr(self._folder, name)

    def create(self, path: str, data: bytes) -> None:
        self._other.add(*voice("ANNA", 7))
        self._folder.create(path, data)


@pytest.mark.parametrize("kind", ["disk", "bucket"])
def test_a_name_taken_at_the_last_moment_is_refused(tmp_path: Path, kind: str) -> None:
    folder: Folder = DiskFolder(tmp_path)
    if kind == "bucket":
        folder = BucketFolder(fsspec.filesystem("memory"), f"/race/{uuid.uuid4()}")
    winner = VoiceStore(folder)
    loser = VoiceStore(Overtaken(folder, winner))
    with pytest.raises(VoiceExists):
        loser.add(*voice("Anna", 8))
    (card,) = winner.cards()
    assert card.name == "ANNA"
    assert same(winner.prompt(card, card.prompt_key), voice("ANNA", 7)[1])
    assert list(folder.entries("data")) == [card.id]
