"""Clients that vanish at random moments, over HTTP and both WebSockets: what they held must be free at once."""

import asyncio
import json
import random
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tests.chaos.listeners import SENTENCE, client_for, listen, speech_body, until_served
from tests.chaos.processes import Holdings, holdings
from tests.chaos.results import Table
from tests.chaos.target import running
from tests.conftest import Service

WAYS = ("http", "live socket", "dashscope socket")
AT_ONCE = 6
FREED_S = 0.2
LONG = " ".join([SENTENCE] * 20)
COLUMNS = ("way in", "left", "with sound", "streams left open", "slots and tasks", "growth of files, sockets, threads")


async def leave_http(url: str, moment_s: float) -> bool:
    """A raw connection, reset (not closed) after that time. Whether sound had come."""
    address = urlsplit(url)
    body = json.dumps(speech_body(LONG)).encode()
    head = f"POST /v1/audio/speech HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    heard = b""
    try:
        writer.write(head.encode() + b"\r\n\r\n" + body)
        deadline_s = time.monotonic() + moment_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            heard += await asyncio.wait_for(reader.read(65536), left_s)
            if reader.at_eof():
                break
    except asyncio.TimeoutError:
        pass
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()
    return len(heard) > 1000


async def leave_socket(url: str, path: str, frames: list[dict[str, object]], moment_s: float) -> bool:
    """A WebSocket whose connection is reset after that time, without a close frame. Whether sound had come."""
    heard = False
    try:
        async with connect(url.replace("http", "ws") + path, proxy=None, open_timeout=30) as connection:
            for frame in frames:
                await connection.send(json.dumps(frame))
            deadline_s = time.monotonic() + moment_s
            while (left_s := deadline_s - time.monotonic()) > 0:
                heard |= isinstance(await asyncio.wait_for(connection.recv(), left_s), bytes)
    except asyncio.TimeoutError:
        abort(connection)
    except (WebSocketException, OSError):
        return heard
    return heard


def abort(connection: ClientConnection) -> None:
    """Reset, so that the server learns of it from the network alone."""
    connection.transport.abort()


async def leave(url: str, way: str, moment_s: float) -> bool:
    """One client comes, and is gone after `moment_s`. Whether it had heard something."""
    if way == "http":
        return await leave_http(url, moment_s)
    if way == "live socket":
        frames: list[dict[str, object]] = [{"type": "input.text", "text": LONG}, {"type": "input.flush"}]
        return await leave_socket(url, "/v1/audio/speech/stream", frames, moment_s)
    header = {"task_id": "t"}
    frames = [
        {"header": {**header, "action": "run-task"}, "payload": {"parameters": {"format": "pcm"}}},
        {"header": {**header, "action": "continue-task"}, "payload": {"input": {"text": LONG}}},
    ]
    return await leave_socket(url, "/api-ws/v1/inference", frames, moment_s)


async def leave_often(url: str, way: str, number: int, seed: int) -> int:
    """So many leave, a few at a time. How many had heard something."""
    draw = random.Random(seed)
    moments_s = [draw.expovariate(1 / 0.4) for _ in range(number)]
    places = asyncio.Semaphore(AT_ONCE)

    async def one(moment_s: float) -> bool:
        async with places:
            return await leave(url, way, moment_s)

    return sum(await asyncio.gather(*(one(min(moment_s, 3.0)) for moment_s in moments_s)))


async def time_until_freed(service: Service) -> float:
    """Seconds from a client's reset until a newcomer is taken by an engine that has one place only for both."""
    async with client_for(service.url) as client:
        before = await listen(client, speech_body(LONG), parts=2)
        left_at_s = before.ended_at_s
        while True:
            asked_s = time.monotonic()
            taken = await listen(client, speech_body("Good morning."), parts=1)
            if taken.status == 200:
                return max(0.0, asked_s - left_at_s)
            await asyncio.sleep(0.005)


def grown(before: dict[str, Holdings], after: dict[str, Holdings]) -> str:
    """What each process holds more than before, in numbers; empty if nothing."""
    parts = []
    for role, held in after.items():
        for name in ("num_files", "num_sockets", "num_threads"):
            more = getattr(held, name) - getattr(before[role], name)
            if more > 0:
                parts.append(f"{role} {name.removeprefix('num_')} +{more}")
    return ", ".join(parts) or "none"


def leaving_table(number: int) -> Table:
    """The empty table."""
    return Table("Leaving", f"python -m tests.chaos leaving --number {number}", COLUMNS)


def run_leaving(checkpoint: Path, number: int, table: Table) -> None:
    """`number` clients in all, a third over each way in."""
    with running(checkpoint=checkpoint) as service:
        root = service.process.pid
        for seed, way in enumerate(WAYS):  # every process has then opened what it keeps open
            asyncio.run(leave_often(service.url, way, 3 * AT_ONCE, seed))
        asyncio.run(until_served(service.url, time.monotonic()))
        service.num_open_streams()
        time.sleep(5)
        for seed, way in enumerate(WAYS):
            before = holdings(root)
            heard = asyncio.run(leave_often(service.url, way, number // len(WAYS), 100 + seed))
            left_open = service.num_open_streams()  # raises if a slot is lost
            time.sleep(5)
            after = holdings(root)
            table.add(way, number // len(WAYS), heard, left_open, "all back (check_engine)", grown(before, after))
    with running(checkpoint=checkpoint, synthesis={"max_streams": 1}) as service:
        asyncio.run(until_served(service.url, time.monotonic()))
        freed_s = sorted(asyncio.run(time_until_freed(service)) for _ in range(20))
    table.remarks.append(
        "From a client's reset until the engine's only place was given to another: "
        f"median {freed_s[10] * 1000:.0f} ms, "
        f"worst of 20 {freed_s[-1] * 1000:.0f} ms (bound {FREED_S * 1000:.0f} ms)."
    )
