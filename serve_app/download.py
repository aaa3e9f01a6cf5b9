"""Brings the checkpoint from a hub into a folder, and says whether it is whole without asking the network again."""

import errno
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from serve_app.checkpoint_files import WANTED, missing_from
from serve_app.hubs import DownloadFault, HashKind, Hub, HubFile
from serve_app.transfer import PAUSES_S, fetch, is_whole, part_of, size_of

RECORD = ".cosyserve-download.json"
"""Written last: a folder that has it was whole once."""


class Reporter(Protocol):
    """Is told how it goes."""

    def checking(self, path: str) -> None:
        """A file that is there is read and compared."""

    def begin(self, path: str, num_bytes: int, have: int) -> None:
        """A file is fetched from byte `have` on."""

    def advance(self, num_bytes: int) -> None:
        """So many more of its bytes are on the disk."""


class RecordedFile(BaseModel):
    """What was verified of a file."""

    model_config = ConfigDict(frozen=True)

    path: str
    num_bytes: int
    hash_kind: HashKind
    digest: str


class Record(BaseModel):
    """Where a folder's files came from."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    hub: str
    repository: str
    revision: str
    files: tuple[RecordedFile, ...]


@dataclass(frozen=True, slots=True)
class Downloaded:
    """num_fetched: files that had to be asked for; 0 when everything was there already."""

    num_files: int
    num_fetched: int


def verified(folder: Path, reporter: Reporter, hub: str | None = None, revision: str | None = None) -> int | None:
    """How many files an earlier download left, if all of them are as it left them; None otherwise. No network.

    hub, revision: None stands for any.
    """
    try:
        record = Record.model_validate_json((folder / RECORD).read_bytes())
    except (OSError, ValidationError):
        return None
    if hub not in (None, record.hub) or revision not in (None, record.revision):
        return None
    for file in record.files:
        reporter.checking(file.path)
        # a record may be anybody's: only names that a download can have written are looked at
        if file.path not in WANTED or not is_whole(folder / file.path, file.num_bytes, file.hash_kind, file.digest):
            return None
    present = frozenset(file.path for file in record.files)
    return None if missing_from(present) else len(record.files)


def download(hub: Hub, folder: Path, reporter: Reporter, pauses_s: tuple[float, ...] = PAUSES_S) -> Downloaded:
    """Fetches what is missing or different.

    Raises DownloadFault: no network, no such revision, a full disk, a wrong hash.
    """
    timeout = httpx.Timeout(60.0, connect=15.0)
    try:
        with httpx.Client(timeout=timeout, follow_redirects=True) as http:
            files = [file for file in hub.list_files(http) if file.path in WANTED]
            missing = missing_from(frozenset(file.path for file in files))
            if missing:
                raise DownloadFault(f"{hub.repository} at {hub.revision} lacks " + ", ".join(missing))
            lacking = [file for file in files if not _is_there(file, folder, reporter)]
            _require_room(lacking, folder)
            for file in lacking:
                reporter.begin(file.path, file.num_bytes, size_of(part_of(file, folder)))
                fetch(http, file, folder, reporter.advance, pauses_s)
        _write_record(hub, files, folder)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise DownloadFault(f"{hub.endpoint} is no address of a hub") from None
    except httpx.HTTPError as error:
        raise DownloadFault(f"cannot reach {hub.endpoint}: {error or type(error).__name__}") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DownloadFault(f"no space is left at {folder}: make room and run again to go on") from error
        raise DownloadFault(f"cannot write {error.filename or folder}: {error.strerror}") from error
    return Downloaded(len(files), len(lacking))


def _is_there(file: HubFile, folder: Path, reporter: Reporter) -> bool:
    reporter.checking(file.path)
    return is_whole(folder / file.path, file.num_bytes, file.hash_kind, file.digest)


def _require_room(files: list[HubFile], folder: Path) -> None:
    """Raises DownloadFault when the disk cannot hold what is still to come."""
    needed = sum(file.num_bytes - size_of(part_of(file, folder)) for file in files)
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DownloadFault(f"{needed / 1e9:.1f} GB are to come, but the disk of {folder} has {free / 1e9:.1f} GB left")


def _write_record(hub: Hub, files: list[HubFile], folder: Path) -> None:
    entries = tuple(
        RecordedFile(path=file.path, num_bytes=file.num_bytes, hash_kind=file.hash_kind, digest=file.digest)
        for file in files
    )
    record = Record(hub=hub.name, repository=hub.repository, revision=hub.revision, files=entries)
    scratch = folder / f"{RECORD}.{os.getpid()}"
    scratch.write_text(json.dumps(record.model_dump(), indent=1), encoding="utf-8")
    scratch.replace(folder / RECORD)
