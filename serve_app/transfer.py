"""One file from a hub to its place: resumed, checked, and under its final name only when it is whole and right."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from time import sleep

import httpx

from serve_app.hubs import DownloadFault, HashKind, HubFile

PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Before each new attempt; after one that brought anything they begin again."""
_BLOCK_BYTES = 1024 * 1024
_RETRIED = (408, 429, 500, 502, 503, 504)

Advance = Callable[[int], None]
"""Called with the number of bytes that are new on the disk; negative when a part was worthless."""


class Interrupted(Exception):
    """The connection ended, or the hub is busy: worth another attempt."""


def part_of(file: HubFile, folder: Path) -> Path:
    """Where the beginning of a file waits. It names the content, so that another revision's is never resumed."""
    final = folder / file.path
    return final.with_name(f".{final.name}.{file.digest[:12]}.part")


def new_hash(kind: HashKind, num_bytes: int) -> "hashlib._Hash":
    """A hash that the file's content is to be fed to."""
    if kind == "sha256":
        return hashlib.sha256()
    return hashlib.sha1(f"blob {num_bytes}\0".encode(), usedforsecurity=False)


def is_whole(path: Path, num_bytes: int, kind: HashKind, digest: str) -> bool:
    """Whether there is a file of this size and content."""
    if not path.is_file() or path.stat().st_size != num_bytes:
        return False
    content = new_hash(kind, num_bytes)
    feed(content, path)
    return content.hexdigest() == digest


def feed(content: "hashlib._Hash", path: Path) -> None:
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            content.update(block)


def fetch(
    http: httpx.Client, file: HubFile, folder: Path, advance: Advance, pauses_s: tuple[float, ...] = PAUSES_S
) -> None:
    """Brings `file` into `folder`.

    Raises DownloadFault; OSError from the disk. What arrived until then stays, unless its hash is wrong.
    """
    part = part_of(file, folder)
    part.parent.mkdir(parents=True, exist_ok=True)
    attempts = iter(pauses_s)
    while True:
        before = size_of(part)
        try:
            digest = _continue(http, file, part, advance)
            break
        except (Interrupted, httpx.TransportError) as error:
            if size_of(part) > before:
                attempts = iter(pauses_s)
            pause_s = next(attempts, None)
            if pause_s is None:
                raise DownloadFault(f"{file.path}: {error or type(error).__name__}; run again to go on") from error
            sleep(pause_s)
    if digest != file.digest:
        part.unlink()
        raise DownloadFault(
            f"{file.path} is damaged: its hash is {digest[:12]}..., not {file.digest[:12]}... as the hub says; "
            "what arrived was thrown away"
        )
    part.replace(folder / file.path)
    # of other revisions
    for stale in part.parent.glob(f".{Path(file.path).name}.*.part"):
        stale.unlink()


def size_of(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _continue(http: httpx.Client, file: HubFile, part: Path, advance: Advance) -> str:
    """Fetches what `part` lacks; returns the digest of the whole.

    Raises Interrupted, httpx.TransportError, DownloadFault, OSError.
    """
    have = size_of(part)
    if have > file.num_bytes:
        part.unlink()
        have = 0
    content = new_hash(file.hash_kind, file.num_bytes)
    if have:
        feed(content, part)
    if have == file.num_bytes:
        part.touch()  # an empty file has nothing to fetch
        return content.hexdigest()
    headers = {"accept-encoding": "identity"}
    if have:
        headers["range"] = f"bytes={have}-"
    with http.stream("GET", file.url, headers=headers) as response:
        if response.status_code == 200:
            advance(-have)
            have, content = 0, new_hash(file.hash_kind, file.num_bytes)
        elif response.status_code != 206 or not response.headers.get("content-range", "").startswith(f"bytes {have}-"):
            if response.status_code in _RETRIED:
                raise Interrupted(f"the hub answers with HTTP {response.status_code}")
            raise DownloadFault(f"{file.path}: the hub answers with HTTP {response.status_code}")
        with part.open("ab" if have else "wb") as output:
            for chunk in response.iter_raw():
                have += len(chunk)
                if have > file.num_bytes:
                    raise DownloadFault(f"{file.path}: the hub sends more than the {file.num_bytes} bytes it lists")
                output.write(chunk)
                content.update(chunk)
                advance(len(chunk))
    if have < file.num_bytes:
        raise Interrupted("the hub ended the file early")
    return content.hexdigest()
