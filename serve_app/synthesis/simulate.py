"""Thousands of listeners on hundreds of virtual replicas, with the real scheduler and admission rule.

    python -m serve_app.synthesis.simulate --replicas 1 10 100 --load 0.7
    python -m serve_app.synthesis.simulate --costs costs.json --rate 8

Virtual time: each step takes what a measured cost table says. A cost table is JSON, seconds by kind of work and batch
size: {"prefill": {"1": 0.02}, "decode": {"1": 0.0015, "64": 0.003}, "render": {"1": 0.015, "16": 0.04}}. Without one, a
made-up accelerator is simulated, which says how the policy behaves but nothing of any machine. The last line is JSON.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from serve_app.synthesis.capacity import Capacity, StepCosts
from serve_app.synthesis.forecast import Forecast
from serve_app.synthesis.scheduler import Limits, Playback, Progress, Scheduler, Work

MADE_UP_COSTS = {
    Work.PREFILL: {1: 0.006},
    Work.DECODE: {1: 0.0015, 64: 0.003, 256: 0.006},
    Work.RENDER: {1: 0.015, 16: 0.040},
}
CHUNK_TOKENS = 25
LOOKAHEAD_TOKENS = 3
SECONDS_PER_TOKEN = 0.04
PROMPT_POSITIONS = 130
"""A clip of 3.5 s, its transcript and a sentence."""
HELD_BACK_S = 0.32
"""Audio that the vocoder holds back until its right context is there: 16 frames."""


@dataclass(slots=True)
class VirtualStream:
    """One request in virtual time.

    num_tokens: speech tokens it will have. pad: tokens of its first hop. held_s: seconds of a first sound held back.
    dry_s: time at which its listener runs dry; underruns counts how often that came before the next sound.
    """

    progress: Progress
    num_tokens: int
    pad: int
    tokens: int = 0
    rendered: int = 0
    held_s: float = 0.0
    ttfa_s: float = 0.0
    dry_s: float = 0.0
    underruns: int = 0

    def count(self) -> None:
        """Tokens missing before the next chunk, as the render stage counts them."""
        hop = self.pad if self.rendered == 0 else CHUNK_TOKENS
        self.progress.tokens_needed = self.rendered + hop + LOOKAHEAD_TOKENS - self.tokens

    def take_token(self) -> None:
        self.tokens += 1
        self.progress.generated = self.tokens >= self.num_tokens
        self.count()

    def render(self) -> tuple[float, bool]:
        """Seconds of sound of the next chunk, and whether it was the last."""
        hop = self.pad if self.rendered == 0 else CHUNK_TOKENS
        held_back_s = -HELD_BACK_S if self.rendered == 0 else 0.0
        fresh = min(hop, self.tokens - self.rendered)
        self.rendered += fresh
        last = self.progress.generated and self.rendered >= self.tokens
        self.count()
        return fresh * SECONDS_PER_TOKEN + held_back_s + (HELD_BACK_S if last else 0.0), last

    def hear(self, audio_s: float, now_s: float) -> None:
        """This, and before it what was held back."""
        audio_s, self.held_s = audio_s + self.held_s, 0.0
        playback = self.progress.playback
        if playback.started_at_s is None:
            self.ttfa_s = now_s - playback.opened_at_s
            self.dry_s = now_s
        elif now_s > self.dry_s:
            self.underruns += 1
            self.dry_s = now_s
        self.dry_s += audio_s
        playback.deliver(audio_s, now_s)


@dataclass(slots=True)
class Replica:
    """One engine in virtual time."""

    capacity: Capacity
    streams: dict[int, VirtualStream] = field(default_factory=dict)
    now_s: float = 0.0
    busy_s: float = 0.0
    forecast: Forecast = field(init=False)
    scheduler: Scheduler = field(init=False)

    def __post_init__(self) -> None:
        self.forecast = Forecast(self.capacity)
        self.scheduler = Scheduler(self.capacity.limits, self.capacity.round_s, self.forecast.can_wait)

    def advance(self, until_s: float) -> list[VirtualStream]:
        """Runs whole steps until the clock has passed `until_s` or nothing is left. Returns the streams that ended."""
        ended = []
        while self.streams and self.now_s < until_s:
            for stream in self.streams.values():
                if stream.held_s and self.lasts(stream, stream.held_s):
                    stream.hear(0.0, self.now_s)
            batch = self.scheduler.next_batch(self.progress(), self.now_s)
            assert batch is not None
            cost_s = self.capacity.costs.of(batch.work, len(batch.stream_ids))
            if batch.work is Work.PREFILL:  # the table has whole prompts
                cost_s *= min(batch.positions, self.streams[batch.stream_ids[0]].progress.unread) / PROMPT_POSITIONS
            self.now_s += cost_s
            self.busy_s += cost_s
            for stream_id in batch.stream_ids:
                stream = self.streams[stream_id]
                if batch.work is Work.RENDER:
                    audio_s, last = stream.render()
                    is_first = stream.progress.playback.started_at_s is None and not stream.held_s
                    if is_first and not last and not self.lasts(stream, audio_s):
                        stream.held_s = audio_s
                        continue
                    stream.hear(audio_s, self.now_s)
                    if last:
                        ended.append(self.streams.pop(stream_id))
                    continue
                if batch.work is Work.PREFILL:
                    stream.progress.unread = max(0, stream.progress.unread - batch.positions)
                if not stream.progress.unread:
                    stream.take_token()
        self.now_s = max(self.now_s, until_s)
        return ended

    def progress(self) -> Iterable[Progress]:
        return (stream.progress for stream in self.streams.values())

    def lasts(self, stream: VirtualStream, audio_s: float) -> bool:
        """Whether a first sound lasts until more is there."""
        next_chunk_s = self.forecast.next_chunk_s(stream.progress, audio_s, self.progress(), self.now_s)
        return next_chunk_s is None or self.forecast.lasts(audio_s, next_chunk_s)


@dataclass(frozen=True, slots=True)
class Workload:
    """Poisson arrivals; lengths are log-normal around a mean, as sentences are.

    rate_per_s: requests per second over all replicas. mean_audio_s: seconds of audio of a request.
    """

    rate_per_s: float
    mean_audio_s: float
    num_requests: int
    seed: int = 0

    def requests(self) -> Iterable[tuple[float, int, int]]:
        """(arrival time, speech tokens, pad of the first hop) of each request."""
        random = np.random.default_rng(self.seed)
        arrivals = np.cumsum(random.exponential(1 / self.rate_per_s, self.num_requests))
        spread = 0.5
        lengths = random.lognormal(np.log(self.mean_audio_s) - spread**2 / 2, spread, self.num_requests)
        pads = random.integers(9, CHUNK_TOKENS + 1, self.num_requests)
        for arrival_s, length_s, pad in zip(arrivals, lengths, pads, strict=True):
            yield float(arrival_s), max(int(pad) + 1, round(length_s / SECONDS_PER_TOKEN)), int(pad)


def simulate(costs: StepCosts, limits: Limits, replicas: int, workload: Workload, max_load: float) -> dict[str, object]:
    """Figures of one run: each request goes to the less loaded of two replicas drawn at random."""
    capacity = Capacity(costs, limits, max_load)
    fleet = [Replica(capacity) for _ in range(replicas)]
    random = np.random.default_rng(workload.seed + 1)
    ended: list[VirtualStream] = []
    refused, last_arrival_s = 0, 0.0
    for stream_id, (arrival_s, num_tokens, pad) in enumerate(workload.requests()):
        last_arrival_s = arrival_s
        choices = [fleet[int(index)] for index in random.choice(replicas, min(2, replicas), replace=False)]
        for replica in choices:
            ended += replica.advance(arrival_s)
        replica = min(choices, key=lambda choice: len(choice.streams))
        if not replica.capacity.admits(len(replica.streams)):
            refused += 1
            continue
        progress = Progress(stream_id, Playback(arrival_s), 0, unread=PROMPT_POSITIONS)
        replica.streams[stream_id] = VirtualStream(progress, num_tokens, pad)
    busy_s = sum(replica.busy_s for replica in fleet)
    for replica in fleet:
        ended += replica.advance(float("inf") if replica.streams else last_arrival_s)
    ttfa = [stream.ttfa_s for stream in ended] or [float("nan")]
    return {
        "replicas": replicas,
        "rate_per_s": round(workload.rate_per_s, 2),
        "requests": workload.num_requests,
        "refused": refused,
        "ttfa_ms": {q: round(1000 * float(np.percentile(ttfa, p)), 1) for q, p in (("p50", 50), ("p95", 95))},
        "continuity": round(sum(stream.underruns == 0 for stream in ended) / max(1, len(ended)), 4),
        "busy": round(busy_s / (replicas * last_arrival_s), 3),
    }


def read_costs(path: Path | None) -> StepCosts:
    """A measured cost table, or the made-up one. Raises ValueError for an unknown kind of work."""
    if path is None:
        return StepCosts(table={work: dict(sizes) for work, sizes in MADE_UP_COSTS.items()})
    stored = json.loads(path.read_text(encoding="utf-8"))
    return StepCosts(table={Work(kind): {int(size): cost for size, cost in c.items()} for kind, c in stored.items()})


def main(arguments: Sequence[str] | None = None) -> list[dict[str, object]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--costs", type=Path, help="a measured cost table (`bench --costs FILE` writes one)")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--rate", type=float, help="requests per second and replica; default: from --load")
    parser.add_argument("--load", type=float, default=0.7, help="share of the capacity that arrivals would use")
    parser.add_argument("--max-load", type=float, default=0.9, help="admission: the largest load of one replica")
    parser.add_argument("--mean-audio-s", type=float, default=4.6)
    parser.add_argument("--requests", type=int, default=200, help="requests per replica")
    parser.add_argument("--render-batch", type=int, default=16)
    options = parser.parse_args(arguments)

    costs, limits = read_costs(options.costs), Limits(render=options.render_batch)
    capacity = Capacity(costs, limits, options.max_load)
    rate = options.rate or options.load * (capacity.spare(0) or 1) / options.mean_audio_s
    print(f"capacity of one replica: {capacity.spare(0)} listeners; {rate:.2f} requests/s for each replica")
    results = []
    for replicas in options.replicas:
        workload = Workload(rate * replicas, options.mean_audio_s, options.requests * replicas)
        results.append(simulate(costs, limits, replicas, workload, options.max_load))
        print("  ".join(f"{key} {value}" for key, value in results[-1].items()), flush=True)
    print(json.dumps(results))
    return results


if __name__ == "__main__":
    main()
