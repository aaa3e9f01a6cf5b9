"""A `Recorder` that keeps everything it is told."""

from collections import defaultdict
from dataclasses import dataclass, field

from serve_app.metrics import Metric


def key_of(metric: Metric, labels: dict[str, str]) -> tuple[str, ...]:
    assert tuple(sorted(labels)) == tuple(sorted(metric.labels)), "every label has a value"
    return (metric.name, *(labels[name] for name in metric.labels))


@dataclass
class Recorded:
    """Sums of counters, values of gauges, observations of histograms; keys are name and label values."""

    sums: dict[tuple[str, ...], float] = field(default_factory=lambda: defaultdict(float))
    values: dict[tuple[str, ...], float] = field(default_factory=dict)
    observed: dict[tuple[str, ...], list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        assert metric.kind == "counter" and amount >= 0
        if amount:
            self.sums[key_of(metric, labels)] += amount

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        assert metric.kind == "gauge"
        self.values[key_of(metric, labels)] = value

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        assert metric.kind == "histogram"
        self.observed[key_of(metric, labels)].append(value)
