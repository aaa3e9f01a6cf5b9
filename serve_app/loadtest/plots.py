"""PNG plots of a run. matplotlib is optional: the extra `plots`."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from serve_app.loadtest.faults import LoadTestError
from serve_app.loadtest.speech_client import RequestRecord


def require_matplotlib() -> None:
    """Errors: `LoadTestError`, so that it is said before a run and not after."""
    if importlib.util.find_spec("matplotlib") is None:
        raise LoadTestError("plots need matplotlib: pip install 'cosyvoice-serve[plots]'")


def write_plots(directory: Path, records: Sequence[RequestRecord]) -> list[Path]:
    """Write `latency.png`, `distribution.png` and `in_flight.png`; returns their paths.

    Errors: `LoadTestError` if matplotlib is missing or the folder cannot be written.
    """
    require_matplotlib()
    # the object interface: no global state, no window system
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional

    heard = [(record.due_s, record.figures) for record in records if record.figures is not None]
    latencies_ms = {
        "first playable sound (TTFP)": [(due_s, f.ttfp_s * 1000) for due_s, f in heard],
        "first audible sound (TTFA)": [
            (due_s, f.audible_ttfa_s * 1000) for due_s, f in heard if f.audible_ttfa_s is not None
        ],
    }
    latency, distribution, open_streams = (Figure(figsize=(9, 4.5), layout="constrained") for _ in range(3))

    axes = latency.add_subplot(xlabel="due, seconds into the run", ylabel="ms", title="latency from when it was due")
    for name, points in latencies_ms.items():
        axes.plot([due_s for due_s, _ in points], [ms for _, ms in points], ".", label=name)
    failed_s = [record.due_s for record in records if record.error]
    axes.plot(failed_s, [0.0] * len(failed_s), "rx", label=f"failed ({len(failed_s)})")
    axes.legend()

    axes = distribution.add_subplot(xlabel="ms", ylabel="share of requests", title="latency, cumulative")
    for name, points in latencies_ms.items():
        values = np.sort([ms for _, ms in points])
        axes.step(values, np.arange(1, len(values) + 1) / max(1, len(values)), where="post", label=name)
    axes.legend()

    axes = open_streams.add_subplot(xlabel="seconds into the run", ylabel="open requests", title="open requests")
    times_s, counts = in_flight(records)
    axes.step(times_s, counts, where="post")

    paths = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, figure in (("latency", latency), ("distribution", distribution), ("in_flight", open_streams)):
            paths.append(directory / f"{name}.png")
            figure.savefig(paths[-1], dpi=120)
    except OSError as error:
        raise LoadTestError(f"cannot write plots to {directory}: {error.strerror}") from error
    return paths


def in_flight(records: Sequence[RequestRecord]) -> tuple[list[float], list[int]]:
    """Times in seconds into the run, and how many requests were open from each on."""
    steps = [(record.sent_s, 1) for record in records]
    steps += [(record.due_s + record.ended_s, -1) for record in records]
    steps.sort()
    counts = np.cumsum([step for _, step in steps], dtype=np.int64)
    return [at_s for at_s, _ in steps], [int(count) for count in counts]
