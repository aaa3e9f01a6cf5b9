"""The dashboard and the alert rules: PromQL, and about the metrics that there are. `test_observability.py` scrapes."""

import json

import pytest
import yaml

from serve_app.metrics import ALL
from tests.metrics_table import table, written
from tests.promql import ALERTS, DASHBOARD, Wanted, alert_expressions, dashboard_queries, wanted

SERIES = {series: metric for metric in ALL for series in metric.series}
RAYS_LABELS = {"application", "deployment", "replica", "instance"}
EXPRESSIONS = sorted({*dashboard_queries(), *alert_expressions().values()})


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_are_about_our_metrics_and_their_labels(expression: str) -> None:
    read = wanted(expression)
    assert read
    for series in read:
        if not series.name.startswith("ray_cosyserve_"):
            continue  # Ray's own: only a scrape can tell
        metric = SERIES[series.name]
        known = {*metric.labels, *RAYS_LABELS} | ({"le"} if series.name.endswith("_bucket") else set())
        assert series.labels <= known, f"{series.name} has no {series.labels - known}"


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {series.name for query in dashboard_queries() for series in wanted(query)}
    assert [metric.name for metric in ALL if not shown & set(metric.series)] == []


def test_buckets_that_are_named_exist() -> None:
    bounds = {str(bound) for metric in ALL if metric.name == "cosyserve_underruns" for bound in metric.buckets}
    named = [query for query in EXPRESSIONS if 'le="' in query]
    assert named and all(query.split('le="')[1].split('"')[0] in bounds for query in named)


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        area = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not area & cells
        cells |= area


def test_alerts_have_what_prometheus_and_people_need() -> None:
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) == 7
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("warning", "critical") and rule["annotations"]["summary"]


def test_the_reader_of_expressions_finds_names_matchers_and_groups() -> None:
    found = wanted('sum by (a) (rate(x_total{b="1"}[5m])) / ignoring(c) (y_count{d=~"2"} or absent(z)) > 3')
    assert found == {
        Wanted("x_total", frozenset({"a", "b"})),
        Wanted("y_count", frozenset({"d"})),
        Wanted("z", frozenset()),
    }
    with pytest.raises(ValueError):
        wanted("sum by (rate(x[5m])")


def test_the_documentation_lists_every_metric() -> None:
    assert written() == table(), "run: python -m tests.metrics_table"
