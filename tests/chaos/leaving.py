"""Clients that vanish at random moments, over HTTP and both WebSockets: what they held must be free at once."""

import asyncio
import contextlib
import json
import random
import socket
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import numpy as np
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.chaos.crowd import overhear, request_bytes
from tests.chaos.listeners import SENTENCE, client_for, listen, speech_body, until_served
from tests.chaos.processes import Holdings, holdings
from tests.chaos.results import Table
from tests.chaos.target import running

WAYS = ("http", "live socket", "dashscope socket")
AT_ONCE = 6
FREED_S = 0.2
POOLED_THREADS = 4
LONGEST_WAIT_S = 10.0
ANSWER_BYTES = 1000
"""More than the head of an answer, or a refusal, has."""
LONG = " ".join([SENTENCE] * 20)
COLUMNS = ("way in", "left", "with sound", "streams left open", "slots and tasks", "growth of files, sockets, threads")


@dataclass(slots=True)
class Patience:
    """How long a client stays: `moment_s` from its request on, or from its first sound on if it waits for that.

    heard: whether sound has come. One who waits in vain leaves after `LONGEST_WAIT_S`.
    """

    moment_s: float
    waits_for_sound: bool = False
    heard: bool = False
    until_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.until_s = time.monotonic() + (LONGEST_WAIT_S if self.waits_for_sound else self.moment_s)

    def left_s(self) -> float:
        return self.until_s - time.monotonic()

    def hear(self) -> None:
        """Sound has come."""
        if self.waits_for_sound and not self.heard:
            self.until_s = time.monotonic() + self.moment_s
        self.heard = True


async def leave_http(url: str, patience: Patience) -> None:
    """A raw connection that is reset, not closed."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    num_bytes = 0
    try:
        writer.write(request_bytes(speech_body(LONG)))
        while (left_s := patience.left_s()) > 0:
            num_bytes += len(await asyncio.wait_for(reader.read(65536), left_s))
            if reader.at_eof():
                break
            if num_bytes > ANSWER_BYTES:
                patience.hear()
    except (asyncio.TimeoutError, ConnectionError):
        pass
    reset(writer.transport)


async def leave_socket(url: str, path: str, frames: list[dict[str, object]], patience: Patience) -> None:
    """A WebSocket whose connection is reset, without a close frame."""
    try:
        connection = await connect(url.replace("http", "ws") + path, proxy=None, open_timeout=30)
    except (WebSocketException, OSError):
        return
    try:
        for frame in frames:
            await connection.send(json.dumps(frame))
        while (left_s := patience.left_s()) > 0:
            if isinstance(await asyncio.wait_for(connection.recv(), left_s), bytes):
                patience.hear()
    except (asyncio.TimeoutError, WebSocketException, OSError):
        pass
    reset(connection.transport)
    await connection.wait_closed()


def reset(transport: asyncio.BaseTransport) -> None:
    """Without a goodbye, as a vanished machine's kernel does it: the server learns of it from the network alone."""
    with contextlib.suppress(OSError):  # the server has closed it before
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    cast(asyncio.Transport, transport).abort()


async def leave(url: str, way: str, moment_s: float, *, waits_for_sound: bool = False) -> bool:
    """One client comes, and is gone after its patience. Whether it had heard something."""
    patience = Patience(moment_s, waits_for_sound)
    if way == "http":
        await leave_http(url, patience)
    elif way == "live socket":
        frames: list[dict[str, object]] = [{"type": "input.text", "text": LONG}, {"type": "input.flush"}]
        await leave_socket(url, "/v1/audio/speech/stream", frames, patience)
    else:
        header = {"task_id": "t", "streaming": "duplex"}
        parameters = {"voice": "default", "format": "pcm", "sample_rate": 24_000}
        begun = {"task_group": "audio", "task": "tts", "function": "SpeechSynthesizer", "parameters": parameters}
        frames = [
            {"header": {**header, "action": "run-task"}, "payload": {**begun, "input": {}}},
            {"header": {**header, "action": "continue-task"}, "payload": {"input": {"text": LONG}}},
        ]
        await leave_socket(url, "/api-ws/v1/inference", frames, patience)
    return patience.heard


async def leave_often(url: str, way: str, number: int, seed: int) -> int:
    """So many leave, a few at a time. How many had heard something."""
    draw = random.Random(seed)
    moments_s = [min(draw.expovariate(1 / 0.4), 2.0) for _ in range(number)]
    places = asyncio.Semaphore(AT_ONCE)

    async def one(moment_s: float, waits_for_sound: bool) -> bool:
        async with places:
            return await leave(url, way, moment_s, waits_for_sound=waits_for_sound)

    # Every other one leaves while it is listening, the rest at any moment before and after.
    stays = (one(moment_s, number % 2 == 0) for number, moment_s in enumerate(moments_s))
    return sum(await asyncio.gather(*stays))


async def refusal_s(url: str) -> float:
    """How long a newcomer's way to an engine takes that has no place: the median of a few refusals."""
    begun = asyncio.Event()
    async with client_for(url) as client:
        holder = asyncio.create_task(listen(client, speech_body(LONG), begun=begun))
        await begun.wait()
        refusals = [await overhear(url, speech_body("Good morning.")) for _ in range(5)]
        holder.cancel()
        await asyncio.wait({holder})
    assert all(one.status == 429 for one in refusals), refusals
    return float(np.median([one.answered_s for one in refusals]))


async def time_until_freed(url: str, way: str) -> float:
    """Seconds from a client's reset in the middle of its sound until a newcomer asked for whom there was a place, in an
    engine that has one only for both. The newcomer's way to the engine comes on top.
    """
    heard = await leave(url, way, 0.05, waits_for_sound=True)
    left_at_s = time.monotonic()
    assert heard, f"{way}: no sound came"
    while True:
        asked_s = time.monotonic()
        taken = await overhear(url, speech_body("Good morning."))
        if taken.status == 200:
            return max(0.0, asked_s - left_at_s)
        assert taken.status == 429 and asked_s - left_at_s < 30, taken


def grown(before: dict[str, Holdings], after: dict[str, Holdings]) -> str:
    """What each process holds more than before; empty if nothing. Pools start a thread when all others are busy."""
    parts = []
    for role, held in after.items():
        for name, spare in (("num_files", 0), ("num_sockets", 0), ("num_threads", POOLED_THREADS)):
            more = getattr(held, name) - getattr(before[role], name)
            if more > spare:
                parts.append(f"{role} {name.removeprefix('num_')} +{more}")
    return ", ".join(parts)


async def until_back(root_pid: int, before: dict[str, Holdings], timeout_s: float = 30) -> str:
    """Waits until the processes hold no more than before; what they still hold after that time."""
    deadline_s = time.monotonic() + timeout_s
    while more := grown(before, holdings(root_pid)):
        if time.monotonic() > deadline_s:
            break
        await asyncio.sleep(1)
    return more


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
            leaving = number // len(WAYS) + (seed < number % len(WAYS))
            heard = asyncio.run(leave_often(service.url, way, leaving, 100 + seed))
            left_open = service.num_open_streams()  # raises if a slot is lost
            table.require(left_open == 0, f"{way}: no stream is left open")
            more = asyncio.run(until_back(root, before))
            table.require(not more, f"{way}: nothing is left: {more}")
            table.add(way, leaving, heard, left_open, "all back (check_engine)", more or "none")
    table.remarks.append(f"Threads: up to {POOLED_THREADS} more in a process are those of its pools.")
    with running(checkpoint=checkpoint, synthesis={"max_streams": 1}) as service:
        asyncio.run(until_served(service.url, time.monotonic()))
        way_s = asyncio.run(refusal_s(service.url))
        asyncio.run(until_served(service.url, time.monotonic()))
        for way in WAYS:
            freed_s = sorted(way_s + asyncio.run(time_until_freed(service.url, way)) for _ in range(20))
            table.remarks.append(
                f"{way}: from a client's reset until the engine's only place was free for another: median at most "
                f"{freed_s[10] * 1000:.0f} ms, worst of 20 {freed_s[-1] * 1000:.0f} (bound {FREED_S * 1000:.0f}), "
                f"of which {way_s * 1000:.0f} ms are the way of the one who asks."
            )
            table.require(freed_s[-1] <= FREED_S, f"{way}: compute is freed within {FREED_S * 1000:.0f} ms")
