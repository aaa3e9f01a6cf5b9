"""Every metric of this application: one list, from which the instruments, the documentation and the tests are made.

Ray exports them on each node's metrics port, with `ray_` before the name and its own labels (`application`,
`deployment`, `replica`) beside ours. Labels are bounded: no request id, no text, no voice, no key.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

_TIMES_S = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_STEPS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """labels: names, of which every record gives values. buckets: upper bounds, of a histogram alone."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The names that Prometheus sees."""
        exported = f"ray_{self.name}"
        if self.kind == "histogram":
            return (f"{exported}_bucket", f"{exported}_count", f"{exported}_sum")
        return (f"{exported}_total",) if self.kind == "counter" else (exported,)


TTFA = Metric(
    "cosyserve_ttfa_seconds",
    "histogram",
    "From a request to its first sample at the ingress, preparing and queueing included",
    buckets=_TIMES_S,
)
AUDIBLE_TTFA = Metric(
    "cosyserve_audible_ttfa_seconds",
    "histogram",
    "From a request to when the first 20 ms above -45 dBFS are heard",
    buckets=_TIMES_S,
)
RTF = Metric(
    "cosyserve_rtf",
    "histogram",
    "Seconds from a request to its last sample, for each second of sound; below 1 it kept ahead of its listener",
    buckets=(0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 5.0),
)
UNDERRUNS = Metric(
    "cosyserve_underruns",
    "histogram",
    'Gaps in one stream, for a listener who plays each sample as soon as it comes; le="0.5" are streams without one',
    buckets=(0.5, 1.5, 2.5, 5.5, 10.5, 50.5),
)
SPEECHES = Metric(
    "cosyserve_speeches",
    "counter",
    "Requests for speech, over HTTP and WebSockets, by how they ended: spoken, left, invalid, refused, failed",
    labels=("end",),
)
REFUSALS = Metric(
    "cosyserve_refusals",
    "counter",
    "Requests for speech that came at a bad time, by reason: the class of the error",
    labels=("reason",),
)
REQUESTS = Metric(
    "cosyserve_requests",
    "counter",
    "HTTP requests by route, media format of the answer, and status; `left` and `broken` are streams cut off",
    labels=("endpoint", "format", "status"),
)
ERRORS = Metric(
    "cosyserve_errors",
    "counter",
    "HTTP requests that failed, by the error's code",
    labels=("code",),
)
SENT_BYTES = Metric("cosyserve_sent_bytes", "counter", "Bytes of HTTP bodies sent, by media format", labels=("format",))
AUDIO = Metric("cosyserve_audio_seconds", "counter", "Seconds of sound that went through the ingress")
IN_FLIGHT = Metric(
    "cosyserve_in_flight",
    "gauge",
    "Requests for speech in an ingress replica: preparing, unheard (in synthesis, no sound yet), speaking",
    labels=("state",),
)
STAGES = Metric(
    "cosyserve_stage_seconds",
    "histogram",
    "Times of a request's stages. prepare, speak: until prepared, and from then to the first sample, as the ingress "
    "sees them, queues included; prepare_work, speak_work: the same on the replica that does it",
    labels=("stage",),
    buckets=_TIMES_S,
)
VOICE_CACHE = Metric(
    "cosyserve_voice_cache",
    "counter",
    "Voice prompts that preprocessing had at hand (hit) or made (miss)",
    labels=("result",),
)
STREAMS = Metric("cosyserve_streams", "gauge", "Requests that a synthesis replica speaks")
SPARE_STREAMS = Metric(
    "cosyserve_spare_streams", "gauge", "How many more a synthesis replica could speak without an underrun"
)
ENGINE_UP = Metric("cosyserve_engine_up", "gauge", "1 while a synthesis replica's engine works, 0 after it has failed")
STEP = Metric(
    "cosyserve_step_seconds",
    "histogram",
    "Steps of the engine by kind of work: prefill, decode, render",
    labels=("work",),
    buckets=_STEPS_S,
)
BATCH = Metric(
    "cosyserve_batch_streams",
    "histogram",
    "Streams in a step of the engine, by kind of work",
    labels=("work",),
    buckets=(1.5, 2.5, 4.5, 8.5, 16.5, 32.5, 64.5),
)
PREFIX_CACHE = Metric(
    "cosyserve_prefix_cache",
    "counter",
    "Streams whose voice the flow had at hand (hit), or had to read first (miss): how well voices find their replica",
    labels=("result",),
)

OF_INGRESS = (
    *(TTFA, AUDIBLE_TTFA, RTF, UNDERRUNS, SPEECHES, REFUSALS, REQUESTS, ERRORS, SENT_BYTES, AUDIO, IN_FLIGHT, STAGES),
)
OF_PREPROCESS = (STAGES, VOICE_CACHE)
OF_SYNTHESIS = (STAGES, STREAMS, SPARE_STREAMS, ENGINE_UP, STEP, BATCH, PREFIX_CACHE)
ALL = tuple(dict.fromkeys((*OF_INGRESS, *OF_PREPROCESS, *OF_SYNTHESIS)))


class Recorder(Protocol):
    """Takes what happened. Any thread may call it; it costs microseconds and raises nothing."""

    def add(self, metric: Metric, amount: float = 1, **labels: str) -> None: ...

    def set(self, metric: Metric, value: float, **labels: str) -> None: ...

    def observe(self, metric: Metric, value: float, **labels: str) -> None: ...


class Silent:
    """A `Recorder` for who does not ask."""

    def add(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        pass

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        pass

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        pass


SILENT = Silent()


class Factory(Protocol):
    """What makes instruments: the module `ray.serve.metrics`."""

    Counter: Callable[..., Any]
    Gauge: Callable[..., Any]
    Histogram: Callable[..., Any]


class Instruments:
    """A `Recorder` over Ray's instruments, one for each metric."""

    def __init__(self, factory: Factory, metrics: Iterable[Metric]) -> None:
        """factory: given by the deployments, so that nothing here knows Ray."""
        self._of = {metric.name: _instrument(factory, metric) for metric in metrics}

    def add(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        if amount > 0:  # Ray refuses to add nothing
            self._of[metric.name].inc(amount, labels)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        self._of[metric.name].set(value, labels)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        self._of[metric.name].observe(value, labels)


def _instrument(factory: Factory, metric: Metric) -> Any:
    if metric.kind == "counter":
        return factory.Counter(metric.name, metric.help, metric.labels)
    if metric.kind == "gauge":
        return factory.Gauge(metric.name, metric.help, metric.labels)
    return factory.Histogram(metric.name, metric.help, list(metric.buckets), metric.labels)
