"""Mixed traffic for as long as one wants to wait: nothing grows, nothing gets slower."""

import asyncio
import hashlib
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from tests.chaos.access import CLIP
from tests.chaos.leaving import WAYS, leave
from tests.chaos.listeners import client_for, listen, speech_body
from tests.chaos.processes import Holdings, cpu_s, holdings, total
from tests.chaos.results import Table
from tests.chaos.target import running
from tests.chaos.threads import more_threads, threads
from tests.conftest import Service

NUM_CLIENTS = 3
PARTS = 6
COLUMNS = (
    "after",
    "requests",
    "first sound p50",
    "fixed work p50",
    "CPU per request",
    "memory",
    "files",
    "threads",
    "sockets",
)
FORMATS = ("pcm", "mp3", "opus", "wav", "flac", "aac")
VOICES = ("clara", "helen", "martin", "nora", "victor")
BREATH_S = 2.0
MAX_GROWTH = 0.02
MAX_SLOWER = 1.5
MAX_DEARER = 1.2
AT_ONCE = 16
"""Of each kind in the warm-up: more than any pool of threads lets through at a time."""
ROUNDS = 3
WORK_EVERY_S = 3.0
WORK_ROUNDS = 60_000
"""Of a hash: some 30 ms alone on a core."""


@dataclass
class Part:
    """What was seen in one part of the time, and what the service held at its end, when nobody asked for anything.

    first_ms: of requests in the mix. work_ms: of a fixed piece of work that ran beside them now and then: what else
    this machine does slows it down as well. cpu_s_per_request: of the service's own processes.
    """

    num_requests: int = 0
    first_ms: list[float] = field(default_factory=list)
    work_ms: list[float] = field(default_factory=list)
    cpu_s_per_request: float = 0.0
    held: Holdings = field(default_factory=lambda: Holdings(0, 0, 0, 0))
    threads: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def slowness(self) -> float:
        """Of the first sound, as a multiple of the fixed work."""
        return float(np.median(self.first_ms or [0]) / np.median(self.work_ms or [1]))


async def traffic(url: str, until_s: float, breath_s: float, part: Part, seed: int) -> None:
    """Several clients at once, with a breath between requests: whole ones in all formats and voices, voices that are
    registered, used and deleted, errors, people who leave.
    """

    async def one_client(number: int) -> None:
        draw = random.Random(NUM_CLIENTS * seed + number)
        async with client_for(url) as client:
            while time.monotonic() < until_s:
                part.num_requests += 1
                choice = draw.random()
                if choice < 0.5:
                    body = speech_body("Good morning, everybody.", voice=draw.choice(VOICES), seed=draw.randrange(100))
                    heard = await listen(client, body)
                    if heard.arrivals:
                        part.first_ms.append(heard.arrivals[0].at_s * 1000)
                elif choice < 0.7:
                    await listen(client, speech_body("Good evening.") | {"response_format": draw.choice(FORMATS)})
                elif choice < 0.85:
                    await leave(url, draw.choice(WAYS), draw.random())
                elif choice < 0.9:
                    await own_voice(client, f"soak-{number}")
                else:
                    await bad_request(client, draw)
                await asyncio.sleep(draw.uniform(0, breath_s))

    await asyncio.gather(*(one_client(number) for number in range(NUM_CLIENTS)), fixed_work(until_s, part.work_ms))


async def own_voice(client: httpx.AsyncClient, name: str) -> None:
    """A voice that lives for one sentence."""
    files = {"audio_sample": ("clip.wav", CLIP.read_bytes(), "audio/wav")}
    registered = await client.post("/v1/audio/voices", data={"name": name}, files=files)
    assert registered.status_code == 200, registered.text
    voice = registered.json()["id"]
    await listen(client, speech_body("Good night.", voice=voice))
    deleted = await client.delete(f"/v1/audio/voices/{voice}")
    assert deleted.status_code == 200, deleted.text


async def bad_request(client: httpx.AsyncClient, draw: random.Random) -> None:
    """Something that is refused."""
    bodies: list[dict[str, object]] = [{"input": ""}, speech_body(voice="nobody"), speech_body(ref_audio="AAAA")]
    answer = await client.post("/v1/audio/speech", json=draw.choice(bodies))
    assert answer.status_code in (400, 429), answer.text


async def fixed_work(until_s: float, times_ms: list[float]) -> None:
    """The same computation again and again, and how long it took each time."""
    while time.monotonic() < until_s:
        started_s = time.monotonic()
        await asyncio.to_thread(hashlib.pbkdf2_hmac, "sha256", b"", b"", WORK_ROUNDS)
        times_ms.append(1000 * (time.monotonic() - started_s))
        await asyncio.sleep(WORK_EVERY_S)


async def crowd_of_each_kind(url: str) -> None:
    """The warm-up: many of every kind of request at the same time, so that each pool of threads is full afterwards."""
    draw = random.Random(0)
    async with client_for(url) as client:
        for _ in range(ROUNDS):
            bodies = [speech_body("Good evening.") | {"response_format": each} for each in FORMATS]
            await asyncio.gather(*(listen(client, bodies[number % len(bodies)]) for number in range(AT_ONCE)))
            await asyncio.gather(*(own_voice(client, f"warm-{number}") for number in range(AT_ONCE // 4)))
            await asyncio.gather(*(client.get("/v1/audio/voices") for _ in range(AT_ONCE)))
            await asyncio.gather(*(bad_request(client, draw) for _ in range(AT_ONCE)))
            for way in WAYS:
                await asyncio.gather(*(leave(url, way, draw.random()) for _ in range(AT_ONCE)))


def measured_part(service: Service, duration_s: float, breath_s: float, seed: int) -> Part:
    """One part of the time. Raises AssertionError where a stream is left open or a slot lost."""
    root = service.process.pid
    part = Part()
    before_s = cpu_s(root)
    asyncio.run(traffic(service.url, time.monotonic() + duration_s, breath_s, part, seed))
    used_s = sum(used - before_s[pid] for pid, used in cpu_s(root).items() if pid in before_s)
    part.cpu_s_per_request = used_s / max(1, part.num_requests)
    assert service.num_open_streams() == 0
    part.held, part.threads = total(holdings(root)), threads(root)
    return part


def soak_table(minutes: float, breath_s: float) -> Table:
    """The empty table."""
    command = f"python -m tests.chaos soak --minutes {minutes:g}"
    return Table("Soak", command + ("" if breath_s == BREATH_S else f" --breath {breath_s:g}"), COLUMNS)


def run_soak(checkpoint: Path, minutes: float, breath_s: float, table: Table) -> None:
    """A row for each sixth of the time. Warm-up are crowds of every kind of request, and the first sixth, in which
    caches fill; with its end the last row is compared.
    """
    with running(checkpoint=checkpoint) as service:
        asyncio.run(crowd_of_each_kind(service.url))
        parts = []
        for number in range(1, PARTS + 1):
            part = measured_part(service, minutes * 60 / PARTS, breath_s, number)
            parts.append(part)
            table.add(
                f"{number * minutes / PARTS:.1f} min",
                part.num_requests,
                f"{np.median(part.first_ms or [0]):.0f} ms",
                f"{np.median(part.work_ms):.0f} ms",
                f"{part.cpu_s_per_request * 1000:.0f} ms",
                f"{part.held.rss_mib:.0f} MiB",
                part.held.num_files,
                part.held.num_threads,
                part.held.num_sockets,
            )
        judge(parts[0], parts[-1], table)


def judge(first: Part, last: Part, table: Table) -> None:
    """What has changed from one part to another, and which bounds that breaks."""
    growth = last.held.growth(first.held)
    told = ", ".join(f"{name.removeprefix('num_')} {share:+.1%}" for name, share in growth.items())
    slower, dearer = last.slowness / first.slowness, last.cpu_s_per_request / first.cpu_s_per_request
    table.remarks.append(f"From the first row to the last: {told}.")
    table.remarks.append(
        f"The first sound, told by a fixed piece of work that ran beside it and is as slow as the machine is busy: "
        f"x {slower:.2f} (bound {MAX_SLOWER:g}); CPU per request x {dearer:.2f} (bound {MAX_DEARER:g})."
    )
    if grown := more_threads(first.threads, last.threads):
        table.remarks.append(f"Threads that are more than after the first row: {grown}.")
    for name in ("rss_mib", "num_files", "num_threads"):
        whose = f" ({grown})" if name == "num_threads" and grown else ""
        table.require(growth[name] <= MAX_GROWTH, f"{name} grows by no more than 2 %: {growth[name]:+.1%}{whose}")
    table.require(slower <= MAX_SLOWER, f"the first sound stays as fast: x {slower:.2f}")
    table.require(dearer <= MAX_DEARER, f"a request stays as cheap: x {dearer:.2f}")
