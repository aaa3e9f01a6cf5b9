"""Listeners that cost next to nothing, so that a flood of them does not take the time of the service beside them."""

import asyncio
import json
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from serve_app.loadtest.playback import SoundArrival
from tests.chaos.listeners import BYTES_PER_S, Heard

ANSWER_WITHIN_S = 120.0


async def overhear(url: str, body: dict[str, object]) -> Heard:
    """One request for speech over a connection of its own, as `listeners.listen` makes it, but for the HTTP library:
    headers and chunks are all that is read. The connection's own time counts.
    """
    heard = Heard()
    started_s = time.monotonic()
    try:
        await asyncio.wait_for(_exchange(url, body, heard, started_s), ANSWER_WITHIN_S)
        heard.whole = True
    except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
        heard.problem = type(error).__name__
    heard.ended_at_s = time.monotonic()
    heard.ended_s = heard.ended_at_s - started_s
    return heard


async def _exchange(url: str, body: dict[str, object], heard: Heard, started_s: float) -> None:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(request_bytes(body))
        head = await _read_head(reader)
        heard.answered_s = time.monotonic() - started_s
        heard.status, heard.retry_after = head.status, head.fields.get("retry-after")
        if head.status != 200:
            content = await reader.readexactly(int(head.fields["content-length"]))
            heard.code = json.loads(content)["error"]["code"]
            return
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
            heard.arrivals.append(SoundArrival(time.monotonic() - started_s, size / BYTES_PER_S))
    finally:
        writer.close()


def request_bytes(body: dict[str, object]) -> bytes:
    """A whole request for speech."""
    content = json.dumps(body).encode()
    head = f"POST /v1/audio/speech HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: {len(content)}\r\n"
    return head.encode() + b"content-type: application/json\r\n\r\n" + content


@dataclass(frozen=True, slots=True)
class Head:
    """An answer's status, and its header fields by lower-case name."""

    status: int
    fields: dict[str, str]


async def _read_head(reader: asyncio.StreamReader) -> Head:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines if line)
    return Head(int(first.split()[1]), {name.lower(): value.strip() for name, _, value in fields})
