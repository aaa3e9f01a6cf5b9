"""Does an engine get slower or larger? Many requests in a row: time to first audio early and late, and memory.

    python -m serve_app.synthesis.drift --checkpoint pretrained_models/cosyvoice2-demo --requests 1000 --threads 2

The median of requests 10 to 110 against that of the last 100, and resident memory after request 110 and at the end.
The last line is JSON.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from serve_app.messages import PreparedSpeech
from serve_app.synthesis.engine import load_engine
from serve_app.synthesis.made_up import BenchSettings, made_up_utterance, made_up_voice
from serve_app.synthesis.scheduler import Playback
from serve_app.synthesis.seam import Engine

WARM, WINDOW = 10, 100
NUM_VOICES = 4


def resident_mib() -> float:
    """Memory of this process, from Linux's /proc."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20


def first_audio_s(engine: Engine, number: int, seconds: float) -> float:
    """Speaks one request of so many seconds to its end; seconds until its first samples."""
    voice = made_up_voice(number % NUM_VOICES, 87)
    speech = PreparedSpeech("drift", voice, (made_up_utterance(voice, number, seconds),), number)
    started_s = time.perf_counter()
    engine.open(number, speech, 0, Playback(time.monotonic()))
    first_s = float("nan")
    while engine.wait_s() is not None:
        for event in engine.step():
            if event.error is not None:
                raise event.error
            if len(event.samples) and first_s != first_s:
                first_s = time.perf_counter() - started_s
    return first_s


def measure(engine: Engine, num_requests: int, seconds: float) -> dict[str, float]:
    """Raises ValueError for too few requests to compare."""
    if num_requests < WARM + 2 * WINDOW:
        raise ValueError(f"at least {WARM + 2 * WINDOW} requests are needed")
    times: list[float] = []
    early_mib = 0.0
    for number in range(num_requests):
        times.append(first_audio_s(engine, number, seconds))
        if number + 1 == WARM + WINDOW:
            early_mib = resident_mib()
    engine.check()
    early_s, late_s = float(np.median(times[WARM : WARM + WINDOW])), float(np.median(times[-WINDOW:]))
    return {
        "requests": num_requests,
        "early_p50_ms": round(1000 * early_s, 2),
        "late_p50_ms": round(1000 * late_s, 2),
        "drift": round(late_s / early_s - 1, 4),
        "early_rss_mib": round(early_mib, 1),
        "late_rss_mib": round(resident_mib(), 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=1.0, help="of speech in each request")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    engine = load_engine(options.checkpoint, BenchSettings(device="cpu", max_streams=1))
    print(json.dumps(measure(engine, options.requests, options.seconds)))


if __name__ == "__main__":
    main()
