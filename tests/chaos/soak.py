"""Mixed traffic for as long as one wants to wait: nothing grows, nothing gets slower."""

import asyncio
import random
import time
from pathlib import Path

import httpx
import numpy as np

from tests.chaos.access import CLIP
from tests.chaos.leaving import WAYS, leave
from tests.chaos.listeners import client_for, listen, speech_body
from tests.chaos.processes import holdings, total
from tests.chaos.results import Table
from tests.chaos.target import running

NUM_CLIENTS = 3
COLUMNS = ("after", "requests", "first sound p50", "memory", "files", "threads", "sockets")
FORMATS = ("pcm", "mp3", "opus", "wav", "flac", "aac")
VOICES = ("clara", "helen", "martin", "nora", "victor")
MAX_BREATH_S = 2.0
MAX_GROWTH = 0.02


async def traffic(url: str, until_s: float, first_ms: list[float]) -> int:
    """Several clients at once, with a breath between requests: whole ones in all formats and voices, voices that are
    registered, used and deleted, errors, people who leave. How many requests there were.
    """
    count = 0

    async def one_client(number: int) -> None:
        nonlocal count
        draw = random.Random(number)
        async with client_for(url) as client:
            while time.monotonic() < until_s:
                count += 1
                choice = draw.random()
                if choice < 0.5:
                    body = speech_body("Good morning, everybody.", voice=draw.choice(VOICES), seed=draw.randrange(100))
                    heard = await listen(client, body)
                    if heard.arrivals:
                        first_ms.append(heard.arrivals[0].at_s * 1000)
                elif choice < 0.7:
                    await listen(client, speech_body("Good evening.") | {"response_format": draw.choice(FORMATS)})
                elif choice < 0.85:
                    await leave(url, draw.choice(WAYS), draw.random())
                elif choice < 0.9:
                    await own_voice(client, f"soak-{number}")
                else:
                    await bad_request(client, draw)
                await asyncio.sleep(draw.uniform(0, MAX_BREATH_S))

    await asyncio.gather(*(one_client(number) for number in range(NUM_CLIENTS)))
    return count


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


def soak_table(minutes: float) -> Table:
    """The empty table."""
    return Table("Soak", f"python -m tests.chaos soak --minutes {minutes:g}", COLUMNS)


def run_soak(checkpoint: Path, minutes: float, table: Table) -> bool:
    """A row for each sixth of the time; the first sixth, in which caches fill, is what the last is compared with.

    Returns whether memory, files and threads grew by no more than 2 %.
    """
    with running(checkpoint=checkpoint) as service:
        root = service.process.pid
        rows = []
        for part in range(1, 7):
            first_ms: list[float] = []
            count = asyncio.run(traffic(service.url, time.monotonic() + minutes * 10, first_ms))
            assert service.num_open_streams() == 0
            held = total(holdings(root))
            rows.append((held, float(np.median(first_ms or [0]))))
            table.add(
                f"{part * minutes / 6:.1f} min",
                count,
                f"{rows[-1][1]:.0f} ms",
                f"{held.rss_mib:.0f} MiB",
                held.num_files,
                held.num_threads,
                held.num_sockets,
            )
    growth = rows[-1][0].growth(rows[0][0])
    told = ", ".join(f"{name.removeprefix('num_')} {share:+.1%}" for name, share in growth.items())
    table.remarks.append(f"From the first row to the last: {told}; latency x {rows[-1][1] / max(1, rows[0][1]):.2f}.")
    return max(growth[name] for name in ("rss_mib", "num_files", "num_threads")) <= MAX_GROWTH
