"""The engine alone, measured: time to first audio, real-time factor, cost per chunk, underruns.

    python -m serve_app.synthesis.bench --size toy
    python -m serve_app.synthesis.bench --checkpoint pretrained_models/cosyvoice2-demo --streams 1 4 8
    python -m serve_app.synthesis.bench --size real --compare reference

Utterances have a fixed number of speech tokens, so random weights cost what trained ones do. The last line is JSON.
Random weights need torch, numpy and safetensors only; `--checkpoint` also PyYAML, `--compare` the extra `reference`.
"""

import argparse
import io
import json
import platform
import resource
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch

from serve_app.messages import VoicePrompt
from serve_app.model.checkpoint import load_checkpoint
from serve_app.model.toy_checkpoint import random_checkpoint, write_networks
from serve_app.synthesis.device_figures import describe, deviations, step_figures
from serve_app.synthesis.engine import StreamingEngine
from serve_app.synthesis.listening import Listener, chunk_cost_growth, chunk_costs_s, most_streams, serve_all, summary
from serve_app.synthesis.made_up import BenchSettings, made_up_voice
from serve_app.synthesis.networks import resolve_device, resolve_precision
from serve_app.synthesis.seam import Engine
from serve_app.synthesis.warm_up import warm_up

_NUM_VOICES = 8
_KNOWN_S = 1.0
"""Of speech: enough for an engine to know a voice."""
_DEFAULTS = BenchSettings()
_SAID = ("language_precision", "flow_steps", "first_hop_tokens", "flow_cache_mib")
"""Settings that are no default of every run, and are printed with its figures."""


def compare(
    ours: Engine, reference: Engine, voices: Sequence[VoicePrompt], seconds: float, streams: int
) -> dict[str, object]:
    """Ratios reference / ours, measured in turn in this process."""
    runs: dict[str, tuple[Listener, float]] = {}
    for name, engine in (("ours", ours), ("reference", reference)):
        # Both as they are after a first request: whatever they keep of a voice, or of memory, is there.
        serve_all(engine, voices[:1], seconds, [0.0])
        others = voices[1:streams]
        serve_all(engine, others, _KNOWN_S, [0.0] * len(others))
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
    parser.add_argument("--most-streams", type=int, metavar="N", help="also: how many at once run never dry, up to N")
    parser.add_argument("--poisson", type=float, metavar="RATE", help="also: open loop, requests per second, for 60 s")
    parser.add_argument(
        "--costs", type=Path, metavar="FILE", help="write the cost table that was measured, for simulate"
    )
    parser.add_argument("--networks", action="store_true", help="also: steps of the networks alone, bf16, ceilings")
    parser.add_argument("--left-context", type=int, metavar="N", help="with --networks: what seeing N chunks deviates")
    parser.add_argument("--steps", type=int, default=200, help="with --networks: of bf16 against fp32 (aim: over 2000)")
    parser.add_argument(
        "--language-precision", choices=("fp32", "int8"), default="fp32", help="of our language model's linear layers"
    )
    parser.add_argument("--flow-steps", type=int, help="Euler steps of our flow (default: the checkpoint's)")
    parser.add_argument(
        "--first-hop-tokens",
        type=int,
        default=_DEFAULTS.first_hop_tokens,
        help="speech tokens of our first chunk, 0: few",
    )
    parser.add_argument(
        "--flow-cache-mib",
        type=int,
        default=_DEFAULTS.flow_cache_mib,
        help="what our flow keeps of voices it knows",
    )
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
        if directory is None and options.compare:
            directory = Path(scratch)
            write_networks(directory, options.size, seed=0)
        checkpoint = random_checkpoint(options.size, seed=0) if directory is None else load_checkpoint(directory)
        device = resolve_device(options.device)
        render_batch = options.render_batch or (16 if device.type == "cuda" else 1)
        max_streams = max(*options.streams, options.most_streams or 0, _NUM_VOICES)
        config = BenchSettings(
            device=options.device,
            max_streams=max_streams,
            render_batch=render_batch,
            language_precision=options.language_precision,
            flow_steps=options.flow_steps,
            first_hop_tokens=options.first_hop_tokens or None,
            flow_cache_mib=options.flow_cache_mib,
        )
        engine = StreamingEngine(checkpoint, config)
        voices = [made_up_voice(seed, options.prompt_tokens) for seed in range(_NUM_VOICES)]
        if options.compare:
            # Upstream's package is optional.
            from serve_app.synthesis.reference import load_reference_engine  # noqa: PLC0415

            reference = load_reference_engine(directory, config)
            figures = compare(engine, reference, voices, options.seconds, max(options.streams))
        else:
            warm_up(engine)
            figures = measure(engine, voices, options)
            if options.costs:
                options.costs.write_text(json.dumps({work.value: sizes for work, sizes in engine.costs.table.items()}))
        if options.networks:
            print_row("networks alone", networks := step_figures(checkpoint, config, voices[0]))
            deviating = deviations(checkpoint, voices[0], options.left_context, options.device, options.steps)
            print_row("deviations", deviating)
            figures |= {"networks": networks, "deviations": deviating}
        figures |= describe(device) | {"precision": str(resolve_precision(config.precision, device)).split(".")[-1]}
        figures |= {name: getattr(config, name) for name in _SAID}
        figures["prefix_bytes"] = engine.prefixes.num_bytes
        if device.type == "cuda":
            figures["peak_gpu_bytes"] = torch.cuda.max_memory_allocated(device)
    figures["peak_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(figures))
    return figures


def measure(engine: Engine, voices: Sequence[VoicePrompt], options: argparse.Namespace) -> dict[str, object]:
    """Single stream repeated, then the sweep, then the open loop; returns the single stream's figures and the rest."""
    serve_all(engine, voices, _KNOWN_S, [0.0] * len(voices))  # every voice is known from here on
    alone = [serve_all(engine, voices[:1], options.seconds, [0.0])[0][0] for _ in range(options.repeat)]
    figures = summary(alone, sum(listener.finished_s for listener in alone))
    print_row("1 stream", figures)
    sweep = []
    for streams in options.streams:
        listeners, wall_s = serve_all(engine, voices, options.seconds, [0.0] * streams)
        sweep.append(summary(listeners, wall_s))
        print_row(f"{streams} streams at once", sweep[-1])
    figures |= {"streams": options.streams, "sweep": sweep, "chunk_cost_growth": chunk_cost_growth(alone[-1])}
    if options.most_streams:

        def tell(streams: int, underruns: int | None) -> None:
            print_row(f"{streams} streams at once", {"underruns": "refused" if underruns is None else underruns})

        figures["most_streams"] = most_streams(engine, voices, options.seconds, options.most_streams, tell)
    if options.poisson:
        gaps = np.random.default_rng(0).exponential(1 / options.poisson, int(60 * options.poisson))
        listeners, wall_s = serve_all(engine, voices, options.seconds, list(np.cumsum(gaps)))
        figures["poisson"] = summary(listeners, wall_s)
        print_row(f"{options.poisson} requests/s", summary(listeners, wall_s))
    return figures


if __name__ == "__main__":
    main()
