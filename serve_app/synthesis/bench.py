"""The engine alone, measured: time to first audio, real-time factor, cost per chunk, underruns.

    python -m serve_app.synthesis.bench --size toy
    python -m serve_app.synthesis.bench --checkpoint pretrained_models/cosyvoice2-demo --streams 1 4 8
    python -m serve_app.synthesis.bench --size real --compare reference

Utterances have a fixed number of speech tokens, so random weights cost what trained ones do. The last line is JSON.
"""

import argparse
import io
import itertools
import json
import platform
import resource
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch

from serve_app.config import SynthesisConfig
from serve_app.messages import SAMPLE_RATE_HZ, Float32Array, PreparedSpeech, PreparedUtterance, VoicePrompt
from serve_app.model.checkpoint import load_checkpoint
from serve_app.model.toy_checkpoint import write_networks
from serve_app.synthesis.device_figures import describe, deviations, step_figures
from serve_app.synthesis.engine import Engine, StreamingEngine
from serve_app.synthesis.networks import resolve_device, resolve_precision
from serve_app.synthesis.reference import load_reference_engine
from serve_app.synthesis.scheduler import Playback
from serve_app.synthesis.warm_up import warm_up

TOKENS_PER_TEXT_TOKEN = 5
AUDIBLE_DBFS = -45.0
AUDIBLE_WINDOW_S = 0.02


@dataclass(slots=True)
class Listener:
    """One request as its player sees it.

    arrivals: (seconds since the request was opened, samples) of each chunk.
    """

    opened_s: float
    arrivals: list[tuple[float, Float32Array]] = field(default_factory=list)
    finished_s: float = 0.0

    @property
    def audio_s(self) -> float:
        return sum(len(samples) for _, samples in self.arrivals) / SAMPLE_RATE_HZ

    @property
    def ttfa_s(self) -> float:
        return self.arrivals[0][0]

    @property
    def audible_ttfa_s(self) -> float:
        """When the first window above the threshold would play: its arrival, plus the quiet audio before it."""
        quiet_s = 0.0
        window = int(AUDIBLE_WINDOW_S * SAMPLE_RATE_HZ)
        for _, samples in self.arrivals:
            for start in range(0, len(samples), window):
                level = float(np.sqrt(np.mean(samples[start : start + window] ** 2)))
                if level > 10 ** (AUDIBLE_DBFS / 20):
                    return self.ttfa_s + quiet_s
                quiet_s += window / SAMPLE_RATE_HZ
        return float("nan")

    def underruns(self) -> int:
        """Times that a player which starts at the first chunk runs dry."""
        count, dry_s = 0, self.ttfa_s
        for arrived_s, samples in self.arrivals:
            if arrived_s > dry_s:
                count, dry_s = count + 1, arrived_s
            dry_s += len(samples) / SAMPLE_RATE_HZ
        return count


def made_up_voice(seed: int, num_tokens: int) -> VoicePrompt:
    """A voice of random tokens: what a voice costs does not depend on how it sounds."""
    random = np.random.default_rng(seed)
    return VoicePrompt(
        key=f"bench-{seed}",
        transcript_ids=np.arange(20, dtype=np.int32),
        speech_ids=random.integers(0, 6561, num_tokens).astype(np.int32),
        mel=random.normal(-5, 1, (2 * num_tokens, 80)).astype(np.float32),
        speaker=random.normal(size=192).astype(np.float32),
    )


def made_up_utterance(voice: VoicePrompt, seed: int, seconds: float) -> PreparedUtterance:
    """An utterance that lasts exactly so many seconds under `bench_config`."""
    num_text_tokens = max(1, round(seconds * 25 / TOKENS_PER_TEXT_TOKEN))
    text = np.random.default_rng(seed).integers(0, 256, num_text_tokens).astype(np.int32)
    return PreparedUtterance(text, voice.transcript_ids, voice.speech_ids, 0, num_text_tokens)


def bench_config(threads: int, streams: int, device: str, render_batch: int = 1) -> SynthesisConfig:
    """Exactly TOKENS_PER_TEXT_TOKEN speech tokens for each text token."""
    ratio = TOKENS_PER_TEXT_TOKEN
    return SynthesisConfig.model_validate(
        {"threads": threads, "max_streams": streams, "device": device, "render_batch": render_batch}
        | {"min_token_text_ratio": ratio, "max_token_text_ratio": ratio}
    )


def serve_all(
    engine: Engine, voices: Sequence[VoicePrompt], seconds: float, arrivals_s: Sequence[float]
) -> tuple[list[Listener], float]:
    """Opens a request at each arrival time and steps until all have ended. Returns the listeners and the wall time."""
    listeners: dict[int, Listener] = {}
    waiting = list(enumerate(arrivals_s))
    started = time.monotonic()
    while waiting or engine.wait_s() is not None:
        now = time.monotonic() - started
        while waiting and waiting[0][1] <= now:
            index, arrival_s = waiting.pop(0)
            voice = voices[index % len(voices)]
            listeners[index] = Listener(arrival_s)
            speech = PreparedSpeech("bench", voice, (made_up_utterance(voice, index, seconds),), index)
            engine.open(index, speech, 0, Playback(time.monotonic()))
        idle_s = engine.wait_s()
        if idle_s is None:
            idle_s = max(0.0, waiting[0][1] - now)
        time.sleep(idle_s)
        for event in engine.step():
            if event.error is not None:
                raise event.error
            listener = listeners[event.stream_id]
            at_s = time.monotonic() - started - listener.opened_s
            if len(event.samples):
                listener.arrivals.append((at_s, event.samples))
            if event.finished:
                listener.finished_s = at_s
    return [listeners[index] for index in sorted(listeners)], time.monotonic() - started


def percentile_ms(values_s: Sequence[float], q: float) -> float:
    return round(1000 * float(np.nanpercentile(values_s, q)), 1)


def summary(listeners: Sequence[Listener], wall_s: float) -> dict[str, object]:
    """Figures of one run. ttfa in ms; rtf is of one listener, throughput in seconds of audio per second."""
    ttfa = [listener.ttfa_s for listener in listeners]
    audible = [listener.audible_ttfa_s for listener in listeners]
    audio_s = sum(listener.audio_s for listener in listeners)
    return {
        "streams": len(listeners),
        "ttfa_ms": {"p50": percentile_ms(ttfa, 50), "p95": percentile_ms(ttfa, 95)},
        "audible_ttfa_ms": {"p50": percentile_ms(audible, 50), "p95": percentile_ms(audible, 95)},
        "rtf": round(float(np.median([listener.finished_s / listener.audio_s for listener in listeners])), 3),
        "audio_s_per_s": round(audio_s / wall_s, 3),
        "tokens_per_s": round(audio_s * 25 / wall_s, 1),
        "underruns": sum(listener.underruns() for listener in listeners),
    }


def chunk_costs_s(listener: Listener) -> list[float]:
    """Seconds between consecutive chunks of one listener that was served alone."""
    times = [0.0, *(arrived_s for arrived_s, _ in listener.arrivals)]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def chunk_cost_growth(listener: Listener, early: int = 2, late: int = 10) -> float | None:
    """Cost of the late chunk over that of the early one, per second of audio each brought; None if there is no such."""
    costs = chunk_costs_s(listener)
    if len(costs) <= late:
        return None
    per_second = [cost / len(samples) for cost, (_, samples) in zip(costs, listener.arrivals, strict=True)]
    return round(per_second[late] / per_second[early], 2)


def compare(
    ours: Engine, reference: Engine, voices: Sequence[VoicePrompt], seconds: float, streams: int
) -> dict[str, object]:
    """Ratios reference / ours, measured in turn in this process."""
    runs: dict[str, tuple[Listener, float]] = {}
    for name, engine in (("ours", ours), ("reference", reference)):
        serve_all(engine, voices[:1], 1.0, [0.0])  # the voice is known: both may have cached what they cache
        (listener,), alone_s = serve_all(engine, voices[:1], seconds, [0.0])
        many_s = serve_all(engine, voices, seconds, [0.0] * streams)[1] if streams > 1 else alone_s
        runs[name] = (listener, many_s)
        print_row(f"{name}, 1 stream", summary([listener], listener.finished_s))
        print(f"    seconds per chunk: {' '.join(f'{cost:.2f}' for cost in chunk_costs_s(listener))}")
    (our, our_many_s), (their, their_many_s) = runs["ours"], runs["reference"]
    return {
        "ttfa_ratio": round(their.ttfa_s / our.ttfa_s, 2),
        "total_ratio": round(their.finished_s / our.finished_s, 2),
        "chunk_cost_growth": chunk_cost_growth(our),
        "reference_chunk_cost_growth": chunk_cost_growth(their),
        "eight_streams_ratio" if streams == 8 else f"{streams}_streams_ratio": round(their_many_s / our_many_s, 2),
    }


def print_row(name: str, figures: Mapping[str, object]) -> None:
    print(f"{name:24} " + "  ".join(f"{key} {value}" for key, value in figures.items()), flush=True)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--checkpoint", type=Path, help="a checkpoint directory")
    source.add_argument("--size", choices=("toy", "real"), default="toy", help="random weights of this size")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 8], help="concurrency sweep")
    parser.add_argument("--repeat", type=int, default=5, help="runs of the single stream")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each utterance")
    parser.add_argument("--prompt-tokens", type=int, default=87)
    parser.add_argument("--poisson", type=float, metavar="RATE", help="also: open loop, requests per second, for 60 s")
    parser.add_argument(
        "--costs", type=Path, metavar="FILE", help="write the cost table that was measured, for simulate"
    )
    parser.add_argument("--networks", action="store_true", help="also: steps of the networks alone, bf16, ceilings")
    parser.add_argument("--left-context", type=int, metavar="N", help="with --networks: what seeing N chunks deviates")
    parser.add_argument("--render-batch", type=int, help="chunks rendered together (default 1, on a GPU 16)")
    parser.add_argument("--json", action="store_true", help="print the last line only")
    parser.add_argument("--compare", choices=("reference",), help="run upstream's way too and print ratios")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> dict[str, object]:
    options = parse_arguments(arguments)
    if not options.json:
        return run(options)
    with redirect_stdout(io.StringIO()):
        figures = run(options)
    print(json.dumps(figures))
    return figures


def run(options: argparse.Namespace) -> dict[str, object]:
    torch.set_num_threads(options.threads)
    date = datetime.now(timezone.utc).date().isoformat()
    print(f"{date}  {platform.processor() or platform.machine()}  torch {torch.__version__}  {options.threads} threads")
    with tempfile.TemporaryDirectory() as scratch:
        directory = options.checkpoint
        if directory is None:
            directory = Path(scratch)
            write_networks(directory, options.size, seed=0)
        device = resolve_device(options.device)
        render_batch = options.render_batch or (16 if device.type == "cuda" else 1)
        config = bench_config(options.threads, max(*options.streams, 8), options.device, render_batch)
        checkpoint = load_checkpoint(directory)
        engine = StreamingEngine(checkpoint, config)
        voices = [made_up_voice(seed, options.prompt_tokens) for seed in range(8)]
        if options.compare:
            reference = load_reference_engine(directory, config)
            figures = compare(engine, reference, voices, options.seconds, max(options.streams))
        else:
            warm_up(engine)
            figures = measure(engine, voices, options)
            if options.costs:
                options.costs.write_text(json.dumps({work.value: sizes for work, sizes in engine.costs.table.items()}))
        if options.networks:
            print_row("networks alone", networks := step_figures(checkpoint, config, voices[0]))
            print_row(
                "deviations", deviating := deviations(checkpoint, voices[0], options.left_context, options.device)
            )
            figures |= {"networks": networks, "deviations": deviating}
        figures |= describe(device) | {"precision": str(resolve_precision(config.precision, device)).split(".")[-1]}
        figures["prefix_bytes"] = engine.prefixes.num_bytes
        if device.type == "cuda":
            figures["peak_gpu_bytes"] = torch.cuda.max_memory_allocated(device)
    figures["peak_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(figures))
    return figures


def measure(engine: Engine, voices: Sequence[VoicePrompt], options: argparse.Namespace) -> dict[str, object]:
    """Single stream repeated, then the sweep, then the open loop; returns the single stream's figures and the rest."""
    serve_all(engine, voices, 1.0, [0.0] * len(voices))  # every voice is known from here on
    alone = [serve_all(engine, voices[:1], options.seconds, [0.0])[0][0] for _ in range(options.repeat)]
    figures = summary(alone, sum(listener.finished_s for listener in alone))
    print_row("1 stream", figures)
    sweep = []
    for streams in options.streams:
        listeners, wall_s = serve_all(engine, voices, options.seconds, [0.0] * streams)
        sweep.append(summary(listeners, wall_s))
        print_row(f"{streams} streams at once", sweep[-1])
    figures |= {"streams": options.streams, "sweep": sweep, "chunk_cost_growth": chunk_cost_growth(alone[-1])}
    if options.poisson:
        gaps = np.random.default_rng(0).exponential(1 / options.poisson, int(60 * options.poisson))
        listeners, wall_s = serve_all(engine, voices, options.seconds, list(np.cumsum(gaps)))
        figures["poisson"] = summary(listeners, wall_s)
        print_row(f"{options.poisson} requests/s", summary(listeners, wall_s))
    return figures


if __name__ == "__main__":
    main()
