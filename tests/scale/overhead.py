"""What the service adds to the bare engine, in both of Ray's modes: `python -m tests.scale.overhead`.

The same sentence is spoken by an engine in this process, prepared beforehand, and over HTTP by the service, in turn,
so that both meet the same machine. First sound, from the call or the request on; the overhead is the difference of
medians. It holds everything between client and engine: HTTP, proxy, ingress, preparing the text on another replica, and
the way back. For one client it is taken apart by the answers' `server-timing`: the service's own engine, preparing, the
ways between replicas, and those between client and ingress. Beside it the CPU time of each stage, less what it takes
when idle: `serve_app.synthesis.sizing` needs that of a request in preprocessing, and of a second of sound in proxy and
ingress.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from serve_app.config import AppConfig, SynthesisConfig
from serve_app.loadtest.machine import load_psutil
from serve_app.loadtest.speech_client import SpeechClient
from serve_app.loadtest.target import Target, endpoint_of
from serve_app.messages import AudioChunk, PreparedSpeech, SpeechRequest
from serve_app.preprocess.preprocessor import Preprocessor
from serve_app.synthesis.engine import load_engine
from serve_app.synthesis.engine_thread import EngineThread
from serve_app.synthesis.warm_up import warm_up
from tests.conftest import ROOT
from tests.scale.cluster import STOCK, THROUGHPUT, served_cluster, settings_of

MODES = {"stock": STOCK, "throughput": THROUGHPUT}
DEMO = ROOT / "pretrained_models/cosyvoice2-demo"
STAGES = {"ServeReplica:speech:Ingress": "ingress", "ServeReplica:speech:Preprocess": "preprocess"} | {
    "ServeReplica:speech:Synthesis": "synthesis",
    "ProxyActor": "proxy",
    "HAProxyManager": "proxy",
    "haproxy": "proxy",
}
IDLE_S = 5.0
TEXT = "The train leaves at half past seven."
VOICE = "clara"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=tuple(MODES), help="one of them, in this process")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--requests", type=int, default=24, help="for each number of clients")
    options = parser.parse_args()
    if options.mode:
        with tempfile.TemporaryDirectory() as scratch:
            figures = measure(options.mode, options.clients, options.requests, Path(scratch))
        print(json.dumps(figures))
        return
    found = []
    for mode in MODES:  # Ray reads its environment once in a process
        command = [sys.executable, "-m", "tests.scale.overhead", "--mode", mode, "--requests", str(options.requests)]
        ended = subprocess.run(
            [*command, "--clients", *map(str, options.clients)], check=True, stdout=subprocess.PIPE, text=True
        )
        found += json.loads(ended.stdout.splitlines()[-1])
        print(ended.stdout.splitlines()[-1], file=sys.stderr)  # so that who interrupts the next mode keeps this one's
    Console().print(table(found))
    for each in found[:: len(options.clients)]:
        print(f"{each['mode']}: first sound of one client, ms, p50 {each['parts_ms']}")
    for each in found[:: len(options.clients)]:
        print(f"{each['mode']}: CPU ms for a request {each['cpu_ms_per_request']}")
        print(f"{each['mode']}: CPU ms for a second of sound {each['cpu_ms_per_s_of_sound']}")
    print(json.dumps(found))


def measure(mode: str, clients: Sequence[int], num_requests: int, scratch: Path) -> list[dict[str, Any]]:
    settings = settings_of("local.yaml", DEMO, scratch / "voices")
    settings["applications"][0]["args"]["synthesis"]["max_load"] = None  # nobody is refused
    config = AppConfig.model_validate(settings["applications"][0]["args"])
    with served_cluster({"num_cpus": 8}, mode=MODES[mode]) as cluster:
        cluster.deploy(settings)
        cluster.wait_until_ready()
        thread = bare_engine(config.checkpoint, config.synthesis)
        prepared, prepare_ms = prepare(config)
        try:
            return asyncio.run(
                compare(thread, prepared, Target(endpoint_of(cluster.url), voice=VOICE), mode, clients, num_requests)
            )
        finally:
            thread.stop()
            print(f"{mode}: preparing the text takes {prepare_ms:.1f} ms of it", file=sys.stderr)


def bare_engine(checkpoint: Path, settings: SynthesisConfig) -> EngineThread:
    """As `Synthesis` makes it."""
    import torch  # in the process that needs it

    torch.set_num_threads(settings.threads)
    engine = load_engine(checkpoint, settings)
    warm_up(engine)
    return EngineThread(engine, settings.max_streams)


def prepare(config: AppConfig) -> tuple[PreparedSpeech, float]:
    """The sentence as preprocessing hands it over, and the milliseconds that took once the voice was known."""
    preprocessor = Preprocessor(config.checkpoint, config.preprocess)
    request = SpeechRequest(request_id="bench", text=TEXT, voice=VOICE, seed=7)
    times_ms = []
    for _ in range(5):
        started_s = time.monotonic()
        prepared = preprocessor.prepare(request)
        times_ms.append(1000 * (time.monotonic() - started_s))
    return prepared, statistics.median(times_ms)


async def compare(
    thread: EngineThread, prepared: PreparedSpeech, target: Target, mode: str, clients: Sequence[int], num_requests: int
) -> list[dict[str, Any]]:
    async with SpeechClient(target) as client:
        spoken_s: list[float] = []

        async def over_http() -> float:
            record = await client.speak(0, TEXT, time.monotonic(), 0.0)
            assert record.figures is not None, record.error_detail
            spoken_s.append(record.figures.audio_s)
            return record.figures.ttfp_s

        async def by_the_engine() -> float:
            started_s, first_s = time.monotonic(), 0.0
            async with aclosing(thread.speak(prepared)) as items:
                async for item in items:
                    if isinstance(item, AudioChunk) and len(item.samples) and not first_s:
                        first_s = time.monotonic() - started_s
            return first_s

        await rounds([over_http, by_the_engine], 1, 2)  # both know the voice from here on
        idle = stage_cpu_s()
        await asyncio.sleep(IDLE_S)
        before, began_s = stage_cpu_s(), time.monotonic()
        idle_rate = {stage: (before[stage] - idle[stage]) / IDLE_S for stage in before}
        spoken_s.clear()
        found: list[dict[str, Any]] = []
        for number in clients:
            service, engine = await rounds([over_http, by_the_engine], number, max(2, num_requests // number))
            of_service, of_engine = spread(service), spread(engine)
            overhead_ms = round(of_service["p50"] - of_engine["p50"], 1)
            figures = {"service_ms": of_service, "engine_ms": of_engine, "overhead_p50_ms": overhead_ms}
            found.append({"mode": mode, "clients": number, **figures})
        lasted_s = time.monotonic() - began_s
        used_s = {stage: cpu_s - before[stage] - lasted_s * idle_rate[stage] for stage, cpu_s in stage_cpu_s().items()}
        parts_ms = await asyncio.to_thread(parts, target, num_requests)
        for each in found:
            each["parts_ms"] = parts_ms
            each["cpu_ms_per_request"] = {s: round(1000 * used_s[s] / len(spoken_s), 1) for s in sorted(used_s)}
            each["cpu_ms_per_s_of_sound"] = {s: round(1000 * used_s[s] / sum(spoken_s), 1) for s in sorted(used_s)}
    return found


async def rounds(ways: Sequence[Callable[[], Awaitable[float]]], at_once: int, number: int) -> list[list[float]]:
    """Seconds to the first sound of each way; the ways take turns, `at_once` requests each."""
    times_s: list[list[float]] = [[] for _ in ways]
    for _ in range(number):
        for way, times in zip(ways, times_s, strict=True):
            times.extend(await asyncio.gather(*(way() for _ in range(at_once))))
    return times_s


def parts(target: Target, number: int) -> dict[str, float]:
    """Medians in milliseconds of what a request alone waits for until its first sound, one after the other."""
    request = urllib.request.Request(target.endpoint, target.body(TEXT), target.headers())
    found: dict[str, list[float]] = {}
    for _ in range(number):
        started_s = time.monotonic()
        with urllib.request.urlopen(request, timeout=60) as reply:
            reply.read(1)
            total_ms = 1000 * (time.monotonic() - started_s)
            stages = dict(part.split(";dur=") for part in reply.headers["server-timing"].split(", "))
            reply.read()
        in_service_ms = {name: float(duration_ms) for name, duration_ms in stages.items()}
        outside_ms = total_ms - sum(in_service_ms.values())
        for name, value in {**in_service_ms, "client_to_ingress_and_back": outside_ms, "whole": total_ms}.items():
            found.setdefault(name, []).append(value)
    return {name: round(statistics.median(values), 1) for name, values in found.items()}


def stage_cpu_s() -> dict[str, float]:
    """CPU seconds so far of each stage's processes, of those that this one has started."""
    psutil = load_psutil()
    assert psutil is not None
    used_s = dict.fromkeys(STAGES.values(), 0.0)
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            title = " ".join(process.cmdline()) or process.name()
            stage = next((stage for word, stage in STAGES.items() if word in title), None)
            if stage is not None:
                times = process.cpu_times()
                used_s[stage] += times.user + times.system
    return used_s


def spread(values_s: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values_s)
    return {
        "p50": round(1000 * statistics.median(ordered), 1),
        "p95": round(1000 * ordered[int(0.95 * len(ordered))], 1),
    }


def table(found: Sequence[dict[str, Any]]) -> Table:
    rows = Table("mode", "clients", title="first sound, ms: p50 / p95", title_justify="left")
    for name in ("bare engine", "service", "overhead, p50"):
        rows.add_column(name, justify="right")
    for each in found:
        engine, service = each["engine_ms"], each["service_ms"]
        rows.add_row(
            each["mode"],
            str(each["clients"]),
            f"{engine['p50']} / {engine['p95']}",
            f"{service['p50']} / {service['p95']}",
            f"{each['overhead_p50_ms']}",
        )
    return rows


if __name__ == "__main__":
    main()
