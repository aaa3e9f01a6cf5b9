"""How many replicas, GPUs, cores and links so many listeners need: `python -m serve_app.synthesis.sizing`.

    python -m serve_app.synthesis.bench --checkpoint pretrained_models/cosyvoice2-demo --costs costs.json
    python -m serve_app.synthesis.sizing --costs costs.json --device cpu --prepare-ms 20 --ingress-ms 8

Arithmetic on measured figures. A replica holds as many listeners as `capacity.py` says for its cost table, less the
share that autoscaling keeps spare. Without a cost table the made-up accelerator of `simulate.py` is assumed, and the
output says so. The last line is JSON.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from serve_app.synthesis.capacity import Capacity
from serve_app.synthesis.scheduler import Limits
from serve_app.synthesis.simulate import read_costs

BYTES_PER_S = {"pcm": 48_000, "mp3": 8_000}
"""Of one listener's stream; mp3 at 64 kbit/s."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What one node has, for all of its replicas together. link_bits_per_s: of its network."""

    cores: float = 16
    gpus: float = 1
    link_bits_per_s: float = 10e9


NODE = Machine()


@dataclass(frozen=True, slots=True)
class Costs:
    """What one listener costs, all but the engine's own steps.

    prepare_s: CPU seconds of preparing a request. ingress_s: CPU seconds of proxy and ingress for a second of sound.
    request_s: seconds of sound in a request. engine_cores: cores of a synthesis replica. engine_gpus: its share of one.
    """

    prepare_s: float
    ingress_s: float
    request_s: float = 5.0
    engine_cores: float = 2
    engine_gpus: float = 1


@dataclass(frozen=True, slots=True)
class Size:
    """What so many listeners at once need. nodes: by each resource. saturates_first: the one that asks for most."""

    listeners: int
    synthesis_replicas: int
    gpus: float
    synthesis_cores: float
    preprocess_cores: float
    ingress_cores: float
    gbit_per_s: float
    nodes: dict[str, int]
    saturates_first: str


def size_for(
    listeners: int, replica_holds: int, costs: Costs, machine: Machine, spare_share: float, audio_format: str
) -> Size:
    """Sizes everything for so many listeners at once.

    replica_holds: listeners of one synthesis replica at its limit. spare_share: of everything that stays unused, so
    that a burst finds room. Raises ValueError where a replica can hold nobody.
    """
    if replica_holds < 1:
        raise ValueError("this engine cannot keep a single listener in sound")
    used = 1 - spare_share
    replicas = math.ceil(listeners / (replica_holds * used))
    preprocess = listeners / costs.request_s * costs.prepare_s / used
    ingress = listeners * costs.ingress_s / used
    bits_per_s = 8 * BYTES_PER_S[audio_format] * listeners / used
    demands = {
        "GPU": replicas * costs.engine_gpus / machine.gpus if costs.engine_gpus else 0.0,
        "CPU of synthesis": replicas * costs.engine_cores / machine.cores,
        "CPU of preprocessing": preprocess / machine.cores,
        "CPU of proxy and ingress": ingress / machine.cores,
        "network": bits_per_s / machine.link_bits_per_s,
    }
    return Size(
        listeners,
        replicas,
        replicas * costs.engine_gpus,
        replicas * costs.engine_cores,
        round(preprocess, 2),
        round(ingress, 2),
        round(bits_per_s / 1e9, 3),
        {resource: math.ceil(demand) for resource, demand in demands.items()},
        max(demands, key=lambda resource: demands[resource]),
    )


def markdown(sizes: Sequence[Size]) -> str:
    """A table for a page."""
    head = "| listeners | synthesis replicas | GPUs | cores: synthesis / preprocessing / proxy and ingress | network |"
    rows = [head + " first to saturate |", "|---|---|---|---|---|---|"]
    rows += [
        f"| {size.listeners:,} | {size.synthesis_replicas:,} | {size.gpus:,g} "
        f"| {size.synthesis_cores:,g} / {size.preprocess_cores:,g} / {size.ingress_cores:,g} "
        f"| {size.gbit_per_s:g} Gbit/s | {size.saturates_first} |"
        for size in sizes
    ]
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> list[Size]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listeners", type=int, nargs="+", default=[10, 1000, 100_000])
    parser.add_argument("--costs", type=Path, help="a measured cost table (`bench --costs FILE` writes one)")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="gpu", help="what the cost table is of")
    parser.add_argument("--prepare-ms", type=float, required=True, help="CPU time of preparing a request, measured")
    parser.add_argument("--ingress-ms", type=float, required=True, help="CPU time for a second of sound, measured")
    parser.add_argument("--request-s", type=float, default=5.0, help="seconds of sound in a request")
    parser.add_argument("--engine-cores", type=float, default=2)
    parser.add_argument("--gpus-each", type=float, default=1, help="`num_gpus` of a synthesis replica")
    parser.add_argument("--max-load", type=float, default=0.9)
    parser.add_argument("--spare-share", type=float, default=0.25)
    parser.add_argument("--format", choices=tuple(BYTES_PER_S), default="pcm")
    parser.add_argument("--cores", type=float, default=NODE.cores, help="of a node")
    parser.add_argument("--gpus", type=float, default=NODE.gpus, help="of a node")
    options = parser.parse_args(arguments)

    limits = Limits(render=1 if options.device == "cpu" else 16)
    holds = Capacity(read_costs(options.costs), limits, options.max_load).spare(0)
    source = f"measured: {options.costs}" if options.costs else "ASSUMED: the made-up accelerator of simulate.py"
    print(f"engine {source}; one replica holds {holds} listeners; a {options.spare_share:.0%} share stays spare\n")
    costs = Costs(
        options.prepare_ms / 1000,
        options.ingress_ms / 1000,
        options.request_s,
        options.engine_cores,
        0 if options.device == "cpu" else options.gpus_each,
    )
    machine = Machine(options.cores, options.gpus)
    sizes = [size_for(n, holds, costs, machine, options.spare_share, options.format) for n in options.listeners]
    print(markdown(sizes))
    print(json.dumps([asdict(size) for size in sizes]))
    return sizes


if __name__ == "__main__":
    main()
