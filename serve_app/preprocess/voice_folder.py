"""Where the voice store keeps its files: a folder on a disk, or one in a bucket, behind the same few verbs.

Paths are relative, with `/` between their parts. Every failure is an `OSError`, FileNotFoundError and FileExistsError
among them, as the standard library has them.
"""

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Iterator
from datetime import timezone
from pathlib import Path
from typing import Any, Protocol

from fsspec.core import url_to_fs

from serve_app.errors import CheckpointError

STAGING = "incoming"
"""Folder of files that are still being written; on a disk only."""


class Folder(Protocol):
    """What the voice store asks of its storage. After a crash a file has its old content or its new one, whole."""

    def entries(self, path: str) -> dict[str, str]:
        """Names in a folder, each with a text that changes when the file does. A missing folder is empty."""
        ...

    def read(self, path: str) -> bytes:
        """The whole file. Raises FileNotFoundError."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Makes or replaces a file."""
        ...

    def create(self, path: str, data: bytes) -> None:
        """Makes a file. Of all who try at once, in any process, one succeeds. Raises FileExistsError."""
        ...

    def remove(self, path: str) -> None:
        """Removes a file. Raises FileNotFoundError when somebody else has done it."""
        ...

    def remove_all(self, path: str) -> None:
        """Removes a file, or a folder with the files in it; nothing there is no error."""
        ...

    def age_s(self, path: str) -> float:
        """Seconds since a file, or the newest file of a folder, was written. Raises FileNotFoundError."""
        ...


def open_folder(url: str) -> Folder:
    """The folder of a path, a `file://` URL, or the URL of any file system that fsspec knows (s3://, gs://, ...).

    Nothing is made or read yet. Raises CheckpointError when the URL names no file system that is installed.
    """
    if "://" not in url or url.startswith("file://"):
        return DiskFolder(Path(url.removeprefix("file://")))
    try:
        filesystem, root = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise CheckpointError(f"The voice store cannot be opened: {error}") from error
    return BucketFolder(filesystem, root)


class DiskFolder:
    """A local or mounted folder. It needs hard links and honest fsync: Linux's local file systems, and NFS.

    A file is written whole under another name, fsynced, then put in its place by one rename (or, where it must be
    new, by one hard link, which fails if the name is taken), and the place's folder is fsynced.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def entries(self, path: str) -> dict[str, str]:
        found: dict[str, str] = {}
        try:
            with os.scandir(self._root / path) as listed:
                for entry in listed:
                    with contextlib.suppress(FileNotFoundError):  # removed since the listing began
                        status = entry.stat()
                        found[entry.name] = f"{status.st_mtime_ns} {status.st_size} {status.st_ino}"
        except FileNotFoundError:
            pass
        return found

    def read(self, path: str) -> bytes:
        return (self._root / path).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        target = self._root / path
        with self._staged(data) as staged:
            _make_folder(target.parent)
            staged.replace(target)
        _sync_folder(target.parent)

    def create(self, path: str, data: bytes) -> None:
        target = self._root / path
        with self._staged(data) as staged:
            _make_folder(target.parent)
            target.hardlink_to(staged)
        _sync_folder(target.parent)

    def remove(self, path: str) -> None:
        target = self._root / path
        target.unlink()
        _sync_folder(target.parent)

    def remove_all(self, path: str) -> None:
        target = self._root / path
        if not target.is_dir():
            target.unlink(missing_ok=True)
            return
        for file in target.iterdir():
            file.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            target.rmdir()

    def age_s(self, path: str) -> float:
        target = self._root / path
        inside = target.iterdir() if target.is_dir() else ()
        newest: float = max(file.stat().st_mtime for file in (target, *inside))
        return time.time() - newest

    @contextlib.contextmanager
    def _staged(self, data: bytes) -> Iterator[Path]:
        """A durable file of `data` that nobody looks for; afterwards that name of it is gone."""
        staged = self._root / STAGING / secrets.token_hex(16)
        _make_folder(staged.parent)
        try:
            with staged.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield staged
        finally:
            staged.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """Makes a folder and those above it, each made durable in the one above it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that has nothing to sync here
            raise
    finally:
        os.close(opened)


class BucketFolder:
    """A folder in an object store, where a whole object appears at once.

    `create` is exclusive where the store has conditional writes and its fsspec driver uses them for
    `pipe_file(mode="create")`: S3 (If-None-Match), Google Cloud Storage (generation 0), Azure. Any other driver looks
    first and writes then: two writers in the same instant may both believe that they won, and the last one counts.
    """

    def __init__(self, filesystem: Any, root: str) -> None:
        self._files = filesystem
        self._root = root.rstrip("/")

    def entries(self, path: str) -> dict[str, str]:
        with _as_os_error():
            self._files.invalidate_cache()  # drivers remember listings; other nodes write too
            try:
                listed = self._files.ls(self._at(path), detail=True)
            except FileNotFoundError:
                return {}
        # The folder itself may be listed as an empty object.
        rows = [(str(row["name"]).rstrip("/").rpartition("/")[2], row) for row in listed]
        own = path.rpartition("/")[2]
        return {name: repr(sorted(row.items(), key=lambda item: str(item[0]))) for name, row in rows if name != own}

    def read(self, path: str) -> bytes:
        with _as_os_error():
            return bytes(self._files.cat_file(self._at(path)))

    def write(self, path: str, data: bytes) -> None:
        with _as_os_error():
            self._files.pipe_file(self._at(path), data)

    def create(self, path: str, data: bytes) -> None:
        failure: OSError | None = None
        try:
            with _as_os_error():
                self._files.pipe_file(self._at(path), data, mode="create")
        except OSError as error:
            failure = error
        # The answer is not the last word: a driver may report a taken name as another error, or repeat a write that
        # had succeeded, and so lose against itself.
        try:
            there = self.read(path)
        except FileNotFoundError:
            raise failure or OSError(errno.EIO, "a new object is not there") from None
        if there != data:
            raise FileExistsError(errno.EEXIST, "the object exists") from failure

    def remove(self, path: str) -> None:
        with _as_os_error():
            if not self._files.exists(self._at(path)):
                raise FileNotFoundError(errno.ENOENT, "no such object")
            self._files.rm_file(self._at(path))

    def remove_all(self, path: str) -> None:
        with _as_os_error(), contextlib.suppress(FileNotFoundError):
            self._files.rm(self._at(path), recursive=True)

    def age_s(self, path: str) -> float:
        with _as_os_error():
            ages: list[float] = []
            for file in self._files.find(self._at(path)):
                modified = self._files.modified(file)
                at = modified if modified.tzinfo else modified.replace(tzinfo=timezone.utc)
                ages.append(time.time() - at.timestamp())
        if not ages:
            raise FileNotFoundError(errno.ENOENT, "no such object")
        return min(ages)

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # every cloud's client has an error tree of its own
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from error
