"""Far more requests than there is room for: those taken play without a gap, the rest are refused at once."""

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from websockets.asyncio.client import connect

from tests.chaos.calibration import CALIBRATION_S, capacity
from tests.chaos.crowd import overhear, request_bytes
from tests.chaos.listeners import Heard, client_for, listen, speech_body, until_served
from tests.chaos.processes import Holdings, holdings, total
from tests.chaos.results import Table
from tests.chaos.target import running
from tests.conftest import Service

MIN_GAPLESS = 0.99
REFUSED_WITHIN_S = 0.1
MAX_MEMORY_GROWTH = 0.05
MAX_SLOWER = 2.0
"""The first request after a flood against the usual one: what it takes varies this much by itself."""
FILLING_S = 15.0
"""A flood before the one that is measured: buffers, pools of threads and the allocator's store fill with the first."""
COLUMNS = (
    "flood",
    "taken",
    "gapless",
    "refused",
    "refused within p50 / p95 / max",
    "memory",
    "first request afterwards",
)


async def flood(url: str, per_second: float, seconds: float) -> tuple[list[Heard], float]:
    """An open loop: requests go out by the clock, however the service fares. What became of them, and how many went
    out per second.
    """
    started_s = time.monotonic()
    tasks: list[asyncio.Task[Heard]] = []
    for number in range(round(per_second * seconds)):
        await asyncio.sleep(max(0.0, started_s + number / per_second - time.monotonic()))
        tasks.append(asyncio.create_task(overhear(url, speech_body(seed=number % 16))))
    sent_s = time.monotonic() - started_s
    return list(await asyncio.gather(*tasks)), len(tasks) / max(seconds, sent_s)


async def usual_first_s(url: str) -> float:
    """Median seconds until the first sound of a lone request."""
    firsts = []
    for _ in range(5):
        heard = await overhear(url, speech_body("Good morning."))
        assert heard.is_success, heard
        firsts.append(heard.arrivals[0].at_s)
    return float(np.median(firsts))


async def first_afterwards_s(url: str) -> float:
    """Seconds from now until a lone request is heard, refusals included; asked in the same way as the usual one."""
    started_s = time.monotonic()
    while True:
        asked_s = time.monotonic()
        heard = await overhear(url, speech_body("Good morning."))
        if heard.is_success:
            return asked_s - started_s + heard.arrivals[0].at_s
        assert heard.status in (429, 503) and asked_s - started_s < 120, heard
        await asyncio.sleep(0.1)


def run_flood(service: Service, name: str, factor: float, seconds: float, is_bound: bool, table: Table) -> None:
    """One row: `factor` times the measured capacity. is_bound: whether the goals of a flood apply to it."""
    root = service.process.pid
    most = asyncio.run(capacity(service.url))
    asyncio.run(flood(service.url, factor * most.requests_per_s, FILLING_S))
    time.sleep(5)
    usual_s = asyncio.run(usual_first_s(service.url))
    held_before = holdings(root)
    heard, sent_per_s = asyncio.run(flood(service.url, factor * most.requests_per_s, seconds))
    first_s = asyncio.run(first_afterwards_s(service.url))
    num_open = service.num_open_streams()
    time.sleep(5)
    held_after = holdings(root)
    before, after = total(held_before), total(held_after)
    taken = [one for one in heard if one.status == 200]
    refused = [one for one in heard if one.status != 200]
    waits_ms = np.array([one.answered_s * 1000 for one in refused] or [0.0])
    codes = ", ".join(f"{count} x {told}" for told, count in Counter(map(str, refused)).items())
    polite = all(one.retry_after for one in refused)
    gapless = sum(one.is_gapless for one in taken) / max(1, len(taken))
    in_time = float(np.mean(waits_ms <= REFUSED_WITHIN_S * 1000))
    table.add(
        f"{name}: {sent_per_s:.1f} requests/s for {seconds:g} s, {sent_per_s / most.requests_per_s:.1f} x {most}",
        len(taken),
        f"{gapless:.1%}, whole {sum(o.whole for o in taken) / max(1, len(taken)):.1%}",
        (codes or "none") + ("" if polite else ", some without Retry-After"),
        f"{np.percentile(waits_ms, 50):.0f} / {np.percentile(waits_ms, 95):.0f} / {waits_ms.max():.0f} ms, "
        f"{in_time:.1%} within {REFUSED_WITHIN_S * 1000:.0f}",
        told_memory(before, after),
        f"{first_s * 1000:.0f} ms, usually {usual_s * 1000:.0f}",
    )
    if is_bound:
        table.require(gapless >= MIN_GAPLESS, f"{name}: {MIN_GAPLESS:.0%} of those taken hear no gap: {gapless:.1%}")
        table.require(in_time >= MIN_GAPLESS, f"{name}: refused within {REFUSED_WITHIN_S} s: {in_time:.1%}")
        table.require(polite, f"{name}: every refusal says when to come again")
    table.remarks += [f"{name}: {told}" for told in told_gaps(taken)]
    roles = (f"{role} {told_memory(held_before[role], held_after[role])}" for role in held_before)
    table.remarks.append(f"{name}: memory of " + ", ".join(roles))
    table.require(num_open == 0, f"{name}: no stream is left open: {num_open}")
    table.require(all(one.status in (200, 429, 503) for one in heard), f"{name}: taken or refused, nothing else")
    grown = after.growth(before)["rss_mib"]
    table.require(grown <= MAX_MEMORY_GROWTH, f"{name}: memory returns: {grown:+.1%}")
    table.require(first_s <= MAX_SLOWER * usual_s, f"{name}: the first request afterwards is a usual one")


def told_gaps(taken: Sequence[Heard]) -> list[str]:
    """A sentence for each gap that one of them heard."""
    told = []
    for one in taken:
        for gap in one.gaps:
            at_s = one.began_at_s + gap.at_s
            num_open = sum(other.began_at_s <= at_s < other.ended_at_s for other in taken)
            told.append(
                f"a gap of {gap.length_s * 1000:.0f} ms after {gap.position_s:.2f} s of {one.audio_s:.1f} s of sound, "
                f"streams open then: {num_open}"
            )
    return told


def told_memory(before: Holdings, after: Holdings) -> str:
    return f"{before.rss_mib:.0f} -> {after.rss_mib:.0f} MiB"


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
    sockets = []
    for _ in range(number):
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        reader.connect((address.hostname, address.port))
        reader.sendall(request_bytes(speech_body(sample_rate=48_000)))
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
            f"first sound {first_ms:.0f} ms, alone {usual_ms:.0f} ms" + ("" if heard.is_gapless else ", with gaps"),
            f"for {lost_s:.1f} s" if lost_s else "none",
            "-",
            told_memory(before, during),
            str(heard),
        )
        table.require(heard.is_gapless, f"beside {number} {name} an ordinary client hears everything without a gap")


def floods_table(seconds: float, factor: float, *, compares: bool) -> Table:
    """The empty table."""
    command = f"python -m tests.chaos floods --seconds {seconds:g} --factor {factor:g}"
    return Table("Floods", command + ("" if compares else " --no-compare"), COLUMNS)


def run_floods(
    checkpoint: Path,
    seconds: float,
    factor: float,
    max_load: float,
    table: Table,
    *,
    compares: bool,
    idle: int,
    slow: int,
) -> None:
    """With the measured admission, and without it if that is to be compared; then the lurkers."""
    for load in dict.fromkeys((None, max_load) if compares else (max_load,)):
        with running(checkpoint=checkpoint, synthesis={"max_load": load}) as service:
            run_flood(service, f"max_load {load}", factor, seconds, load is not None, table)
            if load == max_load:
                run_lurkers(service, idle, slow, table)
    table.remarks.append(
        "Capacity: what a closed loop of as many clients as are admitted makes in "
        f"{CALIBRATION_S:g} s. Gapless: a player that starts with 200 ms in hand never runs dry. Memory: of proxy and "
        f"replicas, after a flood of {FILLING_S:g} s and after this one."
    )
