"""Far more requests than there is room for: those taken play without a gap, the rest are refused at once."""

import asyncio
import contextlib
import json
import socket
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from websockets.asyncio.client import connect

from tests.chaos.listeners import Heard, client_for, listen, speech_body, until_served
from tests.chaos.processes import holdings, total
from tests.chaos.results import Table
from tests.chaos.target import running
from tests.conftest import Service

CALIBRATION_S = 10.0
COLUMNS = (
    "flood",
    "taken",
    "gapless",
    "refused",
    "refused within p50 / p95 / max",
    "memory",
    "first request afterwards",
)


async def capacity(url: str, num_clients: int, seconds: float) -> float:
    """Requests per second that this service completes when so many clients ask one after another."""
    done = 0
    until_s = time.monotonic() + seconds

    async def ask_again(client_number: int) -> None:
        nonlocal done
        async with client_for(url) as client:
            while time.monotonic() < until_s:
                done += (await listen(client, speech_body(seed=client_number))).is_success

    started_s = time.monotonic()
    await asyncio.gather(*(ask_again(number) for number in range(num_clients)))
    return done / (time.monotonic() - started_s)


async def flood(url: str, per_second: float, seconds: float) -> list[Heard]:
    """An open loop: requests go out by the clock, however the service fares."""
    tasks: list[asyncio.Task[Heard]] = []
    async with client_for(url) as client:
        started_s = time.monotonic()
        for number in range(round(per_second * seconds)):
            await asyncio.sleep(max(0.0, started_s + number / per_second - time.monotonic()))
            tasks.append(asyncio.create_task(listen(client, speech_body(seed=number % 16))))
        return list(await asyncio.gather(*tasks))


def run_flood(service: Service, name: str, factor: float, seconds: float, table: Table) -> None:
    """One row: `factor` times the measured capacity."""
    root = service.process.pid
    completed = asyncio.run(capacity(service.url, 4, CALIBRATION_S))
    time.sleep(3)
    before = total(holdings(root))
    heard = asyncio.run(flood(service.url, factor * max(0.2, completed), seconds))
    ended_s = time.monotonic()
    first_s, _ = asyncio.run(until_served(service.url, ended_s))
    assert service.num_open_streams() == 0
    time.sleep(5)
    after = total(holdings(root))
    taken = [one for one in heard if one.status == 200]
    refused = [one for one in heard if one.status != 200]
    waits_ms = np.array([one.answered_s * 1000 for one in refused] or [0.0])
    codes = ", ".join(f"{count} x {code}" for code, count in Counter(f"{o.status} {o.code}" for o in refused).items())
    polite = all(one.retry_after for one in refused)
    gapless = sum(one.is_gapless for one in taken) / max(1, len(taken))
    table.add(
        f"{name}: {factor:g} x {completed:.2f} requests/s for {seconds:g} s",
        len(taken),
        f"{gapless:.1%}, whole {sum(o.whole for o in taken) / max(1, len(taken)):.1%}",
        (codes or "none") + ("" if polite else ", some without Retry-After"),
        f"{np.percentile(waits_ms, 50):.0f} / {np.percentile(waits_ms, 95):.0f} / {waits_ms.max():.0f} ms",
        f"{before.rss_mib:.0f} -> {after.rss_mib:.0f} MiB",
        f"{first_s * 1000:.0f} ms",
    )


@dataclass
class Lurkers:
    """Connections that cost something and do nothing useful."""

    sockets: list[socket.socket]

    def close(self) -> None:
        for one in self.sockets:
            one.close()


def slow_readers(url: str, number: int) -> Lurkers:
    """Clients that ask for much sound and never read it; the kernel's buffers for them are as small as they can be."""
    address = urlsplit(url)
    body = json.dumps(speech_body(sample_rate=48_000)).encode()
    head = f"POST /v1/audio/speech HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    sockets = []
    for _ in range(number):
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        reader.connect((address.hostname, address.port))
        reader.sendall(head.encode() + b"\r\n\r\n" + body)
        sockets.append(reader)
        time.sleep(0.05)
    return Lurkers(sockets)


async def with_idle_sockets(url: str, number: int) -> Heard:
    """What an ordinary client sees while so many WebSockets are open and silent."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(number):
            address = url.replace("http", "ws") + "/v1/audio/speech/stream"
            await stack.enter_async_context(connect(address, proxy=None, open_timeout=60, compression=None))
        async with client_for(url) as client:
            return await listen(client, speech_body())


async def ask_once(url: str) -> Heard:
    async with client_for(url) as client:
        return await listen(client, speech_body())


async def ask_until_taken(url: str) -> tuple[Heard, float]:
    """An ordinary request that is repeated while it is refused; what it heard, and the seconds lost to refusals."""
    started_s = time.monotonic()
    while True:
        asked_s = time.monotonic()
        heard = await ask_once(url)
        if heard.status != 429 or asked_s - started_s > 120:
            return heard, asked_s - started_s
        await asyncio.sleep(0.2)


def run_lurkers(service: Service, num_idle: int, num_slow: int, table: Table) -> None:
    """Two rows: what an ordinary request costs beside idle sockets, and beside readers who do not read."""
    root = service.process.pid
    alone = asyncio.run(ask_once(service.url))
    for name, number in (("idle WebSockets", num_idle), ("slow readers", num_slow)):
        before = total(holdings(root))
        lost_s = 0.0
        if name == "idle WebSockets":
            heard = asyncio.run(with_idle_sockets(service.url, number))
            during = total(holdings(root))
        else:
            lurkers = slow_readers(service.url, number)
            heard, lost_s = asyncio.run(ask_until_taken(service.url))
            during = total(holdings(root))
            lurkers.close()
        asyncio.run(until_served(service.url, time.monotonic()))
        assert service.num_open_streams() == 0
        first_ms = heard.arrivals[0].at_s * 1000 if heard.arrivals else float("nan")
        usual_ms = alone.arrivals[0].at_s * 1000
        table.add(
            f"{number} {name}",
            1,
            f"first sound {first_ms:.0f} ms, alone {usual_ms:.0f} ms",
            f"for {lost_s:.1f} s" if lost_s else "none",
            "-",
            f"{before.rss_mib:.0f} -> {during.rss_mib:.0f} MiB",
            str(heard),
        )


def floods_table(seconds: float, factor: float) -> Table:
    """The empty table."""
    return Table("Floods", f"python -m tests.chaos floods --seconds {seconds:g} --factor {factor:g}", COLUMNS)


def run_floods(
    checkpoint: Path, seconds: float, factor: float, max_load: float, idle: int, slow: int, table: Table
) -> None:
    """Without the measured admission and with it, then the lurkers."""
    for load in dict.fromkeys((None, max_load)):
        with running(checkpoint=checkpoint, synthesis={"max_load": load}) as service:
            run_flood(service, f"max_load {load}", factor, seconds, table)
            if load == max_load:
                run_lurkers(service, idle, slow, table)
    table.remarks.append("Gapless: a player that starts with 200 ms in hand never runs dry. Memory: of all replicas.")
