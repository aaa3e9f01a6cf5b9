"""The list of metrics, and the instruments made of it."""

import pytest

from serve_app.metrics import ALL, AUDIO, IN_FLIGHT, SPEECHES, STEP, TTFA, Instruments, Metric


class Instrument:
    def __init__(self, name: str, description: str, *more: object) -> None:
        self.name, self.description, self.more = name, description, more
        self.told: list[tuple[float, dict[str, str]]] = []

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert value > 0, "as Ray has it"
        self.told.append((value, tags))

    def observe(self, value: float, tags: dict[str, str]) -> None:
        self.told.append((value, tags))

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.told.append((value, tags))


class Factory:
    """As the module `ray.serve.metrics`."""

    def __init__(self) -> None:
        self.made: dict[str, Instrument] = {}

    def make(self, name: str, description: str, *more: object) -> Instrument:
        self.made[name] = Instrument(name, description, *more)
        return self.made[name]

    Counter = Gauge = Histogram = make


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_metrics_are_named_as_prometheus_wants_them(metric: Metric) -> None:
    assert metric.name.startswith("cosyserve_") and not metric.name.endswith("_total")
    assert metric.help and not metric.help.endswith(".")
    assert bool(metric.buckets) is (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets)) and all(bound > 0 for bound in metric.buckets)
    assert not {"application", "deployment", "replica", "route", "le"} & set(metric.labels)


def test_names_are_unique() -> None:
    assert len({metric.name for metric in ALL}) == len(ALL)


def test_instruments_are_told_with_their_labels() -> None:
    factory = Factory()
    instruments = Instruments(factory, ALL)
    assert factory.made["cosyserve_step_seconds"].more == (list(STEP.buckets), ("work",))
    instruments.add(SPEECHES, end="spoken")
    instruments.add(AUDIO, 0.0)  # Ray refuses to add nothing
    instruments.set(IN_FLIGHT, 2, state="speaking")
    instruments.observe(TTFA, 0.25)
    told = {name: instrument.told for name, instrument in factory.made.items() if instrument.told}
    assert told == {
        "cosyserve_speeches": [(1, {"end": "spoken"})],
        "cosyserve_in_flight": [(2, {"state": "speaking"})],
        "cosyserve_ttfa_seconds": [(0.25, {})],
    }


def test_what_prometheus_sees() -> None:
    assert TTFA.series == (
        "ray_cosyserve_ttfa_seconds_bucket",
        "ray_cosyserve_ttfa_seconds_count",
        "ray_cosyserve_ttfa_seconds_sum",
    )
    assert SPEECHES.series == ("ray_cosyserve_speeches_total",)
    assert IN_FLIGHT.series == ("ray_cosyserve_in_flight",)
