"""Every figure that is aimed at on one H200, in one table, beside what was reached on the device at hand.

    python -m serve_app.synthesis.aims --device cuda                   # all of it, at real size
    python -m serve_app.synthesis.aims --device cuda --part engine     # or in two calls
    python -m serve_app.synthesis.aims --device cuda --part networks
    python -m serve_app.synthesis.aims --size toy --device cpu --fixed-shapes --most-streams 4   # the same path

Random weights, registered voices with a clip of 87 tokens, utterances of the rivals' length. Streams are opened all at
the same moment, which is harder than one after another. Needs torch, numpy and safetensors only. The last line is JSON.
"""

import argparse
import gc
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch

from serve_app.messages import VoicePrompt
from serve_app.model.toy_checkpoint import random_checkpoint
from serve_app.synthesis.device_figures import describe, deviations, step_figures
from serve_app.synthesis.engine import StreamingEngine
from serve_app.synthesis.listening import most_streams, percentile_ms, serve_all
from serve_app.synthesis.made_up import BenchSettings, made_up_voice
from serve_app.synthesis.networks import resolve_device, resolve_precision
from serve_app.synthesis.warm_up import warm_up

TTFA_AIMS_MS = {1: 45.0, 4: 80.0, 8: 120.0, 16: 180.0, 64: 400.0}
MOST_STREAMS_AIM = 150
RIVALS_SECONDS = 4.6
NUM_VOICES, PROMPT_TOKENS = 8, 87
MAX_POSITIONS = 1024
"""Room for prompt and utterance; more would only take longer to capture."""
_REPEATS = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. aim: None where none was set. more: more is better."""

    name: str
    reached: float
    unit: str
    aim: float | None = None
    more: bool = False

    @property
    def is_met(self) -> bool | None:
        if self.aim is None:
            return None
        return self.reached >= self.aim if self.more else self.reached <= self.aim

    def __str__(self) -> str:
        aim = "" if self.aim is None else f"{self.aim:g}"
        verdict = {True: "met", False: "missed", None: ""}[self.is_met]
        return f"{self.name:44} {self.reached:12.4g} {self.unit:12} {aim:>8}  {verdict}"


def tell(row: Row) -> Row:
    """At once: a call that is cut off has shown what it measured."""
    print(row, flush=True)
    return row


def engine_rows(engine: StreamingEngine, voices: Sequence[VoicePrompt], options: argparse.Namespace) -> list[Row]:
    """voices: that the engine knows."""
    rows, seconds, most = [], options.seconds, options.most_streams
    for streams, aim_ms in TTFA_AIMS_MS.items():
        if streams <= most:
            runs = [serve_all(engine, voices, seconds, [0.0] * streams)[0] for _ in range(_REPEATS)]
            ttfa_ms = percentile_ms([listener.ttfa_s for run in runs for listener in run], 50)
            rows.append(tell(Row(f"first sound, {streams} at once, p50", ttfa_ms, "ms", aim_ms)))

    def note(streams: int, underruns: int | None) -> None:
        outcome = "refused, for want of memory" if underruns is None else f"{underruns} underruns"
        print(f"    {streams} at once: {outcome}", flush=True)

    held = most_streams(engine, voices, seconds, most, note)
    rows.append(tell(Row(f"streams without an underrun (of {most} tried)", held, "streams", MOST_STREAMS_AIM, True)))
    at_once = min(64, most)
    listeners, wall_s = serve_all(engine, voices, seconds, [0.0] * (3 * at_once), at_once)
    rows.append(
        tell(Row(f"requests of {seconds} s, {at_once} at a time", len(listeners) / wall_s, "requests/s", 25, True))
    )
    audio_s = sum(listener.audio_s for listener in listeners)
    rows.append(tell(Row("speed, the same run", audio_s / wall_s, "x real time", 120, True)))
    return rows


def step_rows(figures: Mapping[str, float]) -> list[Row]:
    """Of what `step_figures` measured."""
    rows = []
    for batch, aim_ms in ((1, 1.5), (64, 3.0)):
        rows.append(Row(f"step of the language model, batch {batch}", figures[f"decode_{batch}_ms"], "ms", aim_ms))
    for batch, aim_ms in ((1, 15.0), (16, 40.0)):
        flow_ms, vocoder_ms = figures[f"chunk_{batch}_ms"], figures[f"vocoder_{batch}_ms"]
        rows.append(Row(f"render of a chunk, batch {batch}", flow_ms + vocoder_ms, "ms", aim_ms))
        rows.append(Row("    of it the flow", flow_ms, "ms"))
    for name, unit in (("tflops", "TFLOP/s"), ("gb_per_s", "GB/s")):
        rows.append(Row("ceiling of the device", figures[f"ceiling_{name}"], unit))
    for name in ("decode_1_bandwidth", "decode_64_bandwidth", "chunk_1_compute", "chunk_16_compute"):
        rows.append(Row(f"    share of it: {name.replace('_', ' ')}", figures[f"{name}_share"], ""))
    return rows


def deviation_rows(figures: Mapping[str, float]) -> list[Row]:
    """Of what `deviations` measured."""
    steps = f"{figures['steps']:.0f} steps"
    return [
        Row("bf16 to fp32: mel, largest difference", figures["bf16_mel_max_absolute"], "", 0.05),
        Row("    as a share of the mel's peak", figures["bf16_mel_max"], ""),
        Row(f"bf16 to fp32: same token, {steps}", 100 * figures["bf16_top1"], "%", 99.0, more=True),
    ]


def main(arguments: Sequence[str] | None = None) -> dict[str, object]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("toy", "real"), default="real")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--part", choices=("all", "engine", "networks"), default="all")
    parser.add_argument("--most-streams", type=int, default=MOST_STREAMS_AIM, metavar="N", help="tried at once")
    parser.add_argument("--seconds", type=float, default=RIVALS_SECONDS, help="length of each utterance")
    parser.add_argument("--steps", type=int, default=2000, help="teacher-forced, of bf16 against fp32")
    parser.add_argument(
        "--fixed-shapes", action="store_true", help="on a CPU: the calls of fixed shape that a GPU gets"
    )
    parser.add_argument("--left-context", type=int, metavar="N", help="the flow sees N chunks: less memory, not exact")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="    %(message)s")  # graphs captured, or why there are none

    began_s = time.monotonic()
    device = resolve_device(options.device)
    config = BenchSettings(
        device=options.device,
        max_streams=max(options.most_streams, NUM_VOICES),
        render_batch=16 if device.type == "cuda" else 1,
        max_positions=MAX_POSITIONS,
        fixed_shapes=True if options.fixed_shapes else None,
        flow_left_context_chunks=options.left_context,
    )
    said = describe(device) | {"torch": torch.__version__, "size": options.size}
    said["precision"] = str(resolve_precision(config.precision, device)).rpartition(".")[2]
    if options.size != "real" or device.type != "cuda":
        print("what is met or missed here says nothing: the aims are those of an H200 and of real size")
    print("  ".join(f"{name}: {value}" for name, value in said.items()), flush=True)
    checkpoint = random_checkpoint(options.size, seed=0)
    voices = [made_up_voice(seed, PROMPT_TOKENS) for seed in range(NUM_VOICES)]
    rows: list[Row] = []
    if options.part != "networks":
        engine = StreamingEngine(checkpoint, config)
        warm_up(engine)
        serve_all(engine, voices, 1.0, [0.0] * len(voices))
        tell(Row("ready", time.monotonic() - began_s, "s"))
        rows += engine_rows(engine, voices, options)
        del engine
        gc.collect()  # and its memory
    if options.part != "engine":
        rows += map(tell, step_rows(step_figures(checkpoint, config, voices[0])))
        rows += map(tell, deviation_rows(deviations(checkpoint, voices[0], None, options.device, options.steps)))
    figures = said | {"wall_s": round(time.monotonic() - began_s, 1), "rows": [asdict(row) for row in rows]}
    if device.type == "cuda":
        figures["peak_gpu_bytes"] = torch.cuda.max_memory_allocated(device)
    print(json.dumps(figures))
    return figures


if __name__ == "__main__":
    main()
