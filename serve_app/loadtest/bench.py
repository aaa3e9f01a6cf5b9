"""What the load tester itself costs: `python -m serve_app.loadtest.bench --streams 64` ends in one JSON line.

A server in a process of its own sends every stream its first sound 100 ms after the request, and then 100 ms of sound
every 100 ms. Requests arrive by Poisson, so many that `--streams` are open on average. What the tester measures beyond
those 100 ms is the overhead of both together: an upper bound of its own.
"""

import argparse
import asyncio
import json
import multiprocessing
import resource
import socket
import time
from io import StringIO
from multiprocessing.connection import Connection

from rich.console import Console

from serve_app.loadtest.driver import OpenLoop
from serve_app.loadtest.schedule import poisson
from serve_app.loadtest.session import Session
from serve_app.loadtest.target import Target

FIRST_S = 0.100
CHUNK_S = 0.100
RATE_HZ = 24_000
CHUNK = b"\x00\x40" * round(CHUNK_S * RATE_HZ)
NUM_CHUNKS = 30
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: audio/pcm;rate=24000\r\ntransfer-encoding: chunked\r\n\r\n"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Every request of one connection, by the clock."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            start_s = time.monotonic() + FIRST_S
            lengths = [
                line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
            ]
            await reader.readexactly(int(lengths[0]))
            for index in range(NUM_CHUNKS):
                await asyncio.sleep(start_s + index * CHUNK_S - time.monotonic())
                writer.write((b"" if index else HEAD) + b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK))
            writer.write(b"0\r\n\r\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def serve(ready: Connection) -> None:
    """Serve on a free port of 127.0.0.1, which is sent to `ready`, until the process is ended."""

    async def listen() -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            server = await asyncio.start_server(answer, sock=listener, backlog=2048)
            ready.send(listener.getsockname()[1])
            await server.serve_forever()

    asyncio.run(listen())


def bench(num_streams: int, seconds: float) -> dict[str, float | int | None]:
    """Figures of `seconds` of load with `num_streams` open streams on average, once the first are through."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    server = context.Process(target=serve, args=(there,), daemon=True)
    server.start()
    try:
        endpoint = f"http://127.0.0.1:{here.recv()}/v1/audio/speech"
        session = Session(Target(endpoint), ("text",), 100.0, Console(file=StringIO()))
        before_s = cpu_s()
        rate_hz = num_streams / (FIRST_S + (NUM_CHUNKS - 1) * CHUNK_S)
        load = OpenLoop(poisson(rate_hz, seconds, 100_000, seed=0), f"Poisson, {rate_hz:.1f} requests/s")
        run = asyncio.run(session.run(load))
        used_s = cpu_s() - before_s
    finally:
        server.terminate()
        server.join()
    summary = run.summary
    if summary.ttfp_ms is None or summary.client_lag_ms is None:
        raise SystemExit(f"no stream came through: {summary.error_examples}")
    return {
        "streams": num_streams,
        "requests": summary.requests,
        "errors": summary.errors,
        "overhead_p50_ms": round(summary.ttfp_ms.p50 - FIRST_S * 1000, 2),
        "overhead_p95_ms": round(summary.ttfp_ms.p95 - FIRST_S * 1000, 2),
        "overhead_p99_ms": round(summary.ttfp_ms.p99 - FIRST_S * 1000, 2),
        "client_lag_p50_ms": round(summary.client_lag_ms.p50, 2),
        "client_lag_p99_ms": round(summary.client_lag_ms.p99, 2),
        "client_core_share": round(used_s / summary.wall_s, 3),
        "streams_for_a_core": round(summary.audio_s / used_s),
        "machine_cpu_peak": summary.cpu_peak,
    }


def cpu_s() -> float:
    """CPU seconds that this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    print(json.dumps(bench(options.streams, options.seconds)))


if __name__ == "__main__":
    main()
