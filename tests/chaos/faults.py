"""Processes killed and engines broken while clients listen: what was lost, what they saw, how long it lasted."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.fault_seeds import BUG, HANG, OUT_OF_MEMORY
from tests.chaos.listeners import SENTENCE, Heard, client_for, listen, speech_body, until_served
from tests.chaos.processes import kill, processes_of
from tests.chaos.results import Table
from tests.chaos.target import running
from tests.conftest import Service

MOMENTS = ("at rest", "before the first sound", "mid-stream")
VICTIMS = ("synthesis", "preprocess", "ingress", "proxy")
LOSES = {
    "synthesis": ("mid-stream",),
    "preprocess": (),
    "ingress": ("before the first sound", "mid-stream"),
    "proxy": ("before the first sound", "mid-stream"),
}
"""When a client may hear of the death of each: a connection ends with the process that holds it."""
MAX_SILENCE_S = 10.0
"""The watchdog's bound for a step that hangs; all others are noticed at once."""
MAX_OUTAGE_S = 30.0
LONG = " ".join([SENTENCE] * 6)
COLUMNS = ("fault", "when", "what was lost", "what the client saw", "it knew after", "served again after")


async def strike(url: str, blow: Callable[[], None], moment: str) -> tuple[Heard | None, float]:
    """One client listens, the blow falls at that moment; what the client saw, and the time of the blow."""
    if moment == "at rest":
        blow()
        return None, time.monotonic()
    sent, begun = asyncio.Event(), asyncio.Event()
    async with client_for(url) as client:
        listening = asyncio.create_task(listen(client, speech_body(LONG), sent=sent, begun=begun))
        await (sent if moment == "before the first sound" else begun).wait()
        # The request is on its way into the engine, or sound is on its way out.
        await asyncio.sleep(0.03 if moment == "before the first sound" else 0.2)
        blow()
        struck_at_s = time.monotonic()
        return await listening, struck_at_s


async def kills(service: Service, victims: tuple[str, ...], table: Table) -> float:
    """kill -9 of each victim at each moment. Seconds in which a synthesis replica came back; 0 if none was killed."""
    root = service.process.pid
    reload_s = 0.0
    for victim in victims:
        for moment in MOMENTS:
            before = [process.pid for process in processes_of(root, victim)]

            def blow(victim: str = victim) -> None:
                for process in processes_of(root, victim):
                    kill(process)

            heard, struck_at_s = await strike(service.url, blow, moment)
            recovery_s, refusals = await until_served(service.url, struck_at_s)
            await until_replaced(root, victim, before)
            name = f"kill -9 {victim}"
            table.add(name, moment, *told(heard, struck_at_s), f"{recovery_s:.1f} s" + seen(refusals))
            table.require(recovery_s <= MAX_OUTAGE_S, f"{name}, {moment}: served again within {MAX_OUTAGE_S:g} s")
            if heard is not None and not heard.is_success:
                knew_s = heard.ended_at_s - struck_at_s
                table.require(knew_s <= MAX_SILENCE_S, f"{name}, {moment}: the client knows within {MAX_SILENCE_S:g} s")
            table.require(
                not heard or heard.is_success or moment in LOSES[victim], f"{name}, {moment}: nothing is lost"
            )
            if (victim, moment) == ("synthesis", "at rest"):
                reload_s = recovery_s
            assert service.num_open_streams() == 0
    return reload_s


def told(heard: Heard | None, struck_at_s: float) -> tuple[str, str, str]:
    """What was lost, what the client saw, and how long after the blow it knew."""
    if heard is None:
        return "nothing", "-", "-"
    lost = "nothing" if heard.is_success else "the stream" if heard.status == 200 else "the request"
    return lost, str(heard), "-" if heard.is_success else f"{max(0.0, heard.ended_at_s - struck_at_s):.2f} s"


def seen(refusals: list[str]) -> str:
    """What those who asked meanwhile were told, each answer once."""
    kinds = list(dict.fromkeys(refusals))
    return f" (meanwhile: {len(refusals)} x {', '.join(kinds)})" if kinds else ""


async def until_replaced(root_pid: int, role: str, old: list[int], timeout_s: float = 60) -> None:
    """Until there are as many processes of a role as there were, all of them new."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        now = [process.pid for process in processes_of(root_pid, role)]
        if len(now) >= len(old) and not set(now) & set(old):
            return
        await asyncio.sleep(0.2)
    raise AssertionError(f"no new {role} in {timeout_s} s")


async def engine_faults(service: Service, table: Table) -> float:
    """Out of memory, a bug in one stream and in a whole batch, and a step that never ends, beside a bystander.

    Seconds until the service spoke again after the last of them.
    """
    recovery_s = 0.0
    for name, seed, num_victims in (
        ("device out of memory", OUT_OF_MEMORY, 1),
        ("exception in one stream", BUG, 1),
        ("exception in a batch", BUG, 3),
        ("a step that hangs", HANG, 1),
    ):
        async with client_for(service.url) as client:
            begun = asyncio.Event()
            bystander = asyncio.create_task(listen(client, speech_body(LONG), begun=begun))
            await begun.wait()
            bodies = [speech_body(LONG, seed=seed)] * num_victims
            started_s = time.monotonic()
            victims = await asyncio.gather(*(listen(client, body) for body in bodies))
            struck_at_s = min(victim.arrivals[-1].at_s + started_s for victim in victims if victim.arrivals)
            recovery_s, refusals = await until_served(service.url, struck_at_s)
            beside = await bystander
        lost = f"{num_victims} stream{'s' if num_victims > 1 else ''}"
        lost += "" if beside.is_success else " and the bystander's"
        saw = "; ".join(sorted({str(victim) for victim in victims}))
        knew_s = max(victim.ended_s + started_s for victim in victims) - struck_at_s
        table.add(name, "mid-stream", lost, saw, f"{knew_s:.2f} s", f"{recovery_s:.1f} s" + seen(refusals))
        told_so = all(not victim.is_success and victim.status in (200, 429, 500, 503) for victim in victims)
        table.require(told_so, f"{name}: the streams it hit break visibly, or were refused before their first sound")
        table.require(knew_s <= MAX_SILENCE_S, f"{name}: its client knows within {MAX_SILENCE_S:g} s")
        table.require(beside.is_success or seed == HANG, f"{name}: the bystander hears all of it")
        assert service.num_open_streams() == 0
    return recovery_s


def faults_table() -> Table:
    """The empty table."""
    return Table("Faults", "python -m tests.chaos faults", COLUMNS)


def run_faults(checkpoint: Path, victims: tuple[str, ...], table: Table) -> None:
    """Everything above, against one service: the real one, but that its engine breaks when a seed asks for it."""
    table.remarks.append(
        "Each process is the only one of its kind here, so its loss is an outage; a second replica would serve on."
    )
    table.remarks.append(f"Checkpoint: {checkpoint.name}.")
    table.remarks.append(
        "Where the client's own stream went on, it was asked for a new one only when that had ended: \"served again "
        'after" includes it.'
    )
    table.remarks.append("A whole node killed under load: `python -m tests.scale.two_nodes`.")
    with running(checkpoint=checkpoint, faulty=True) as service:
        hang_s = asyncio.run(engine_faults(service, table))
        reload_s = asyncio.run(kills(service, victims, table))
    if reload_s:
        bound = f"a step that hangs: replaced within {MAX_SILENCE_S:g} s and the time of a start, {reload_s:.1f} s"
        table.require(hang_s <= MAX_SILENCE_S + reload_s, bound)
