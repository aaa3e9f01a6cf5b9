"""What a dashboard's queries and alert rules ask for: metric names and labels, from parsed PromQL."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser
import yaml

from tests.conftest import ROOT

DASHBOARD = ROOT / "configs/grafana/cosyserve.json"
ALERTS = ROOT / "configs/grafana/alerts.yaml"


@dataclass(frozen=True)
class Wanted:
    """A series that an expression reads, and the labels that it matches or groups by."""

    name: str
    labels: frozenset[str]


def dashboard_queries() -> list[str]:
    """Every query, with Grafana's own variables put in."""
    found: list[str] = []
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        found += [target["expr"] for target in panel.get("targets", ())]
    return [query.replace("$__rate_interval", "1m").replace("$application", ".*") for query in found]


def variable_queries() -> list[re.Match[str]]:
    """The variables' `label_values(name, label)`, as name and label."""
    variables = json.loads(DASHBOARD.read_text())["templating"]["list"]
    queries = [variable["query"]["query"] for variable in variables if variable["type"] == "query"]
    matches = [re.fullmatch(r"label_values\((\w+), (\w+)\)", query) for query in queries]
    assert all(matches)
    return [match for match in matches if match]


def alert_expressions() -> dict[str, str]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def wanted(expression: str) -> set[Wanted]:
    """Errors: ValueError for what is no PromQL."""
    return set(_wanted(promql_parser.parse(expression), frozenset()))


def _wanted(node: Any, grouped: frozenset[str]) -> Iterator[Wanted]:
    """grouped: the labels that whatever stands around this node asks of it."""
    if isinstance(node, promql_parser.VectorSelector):
        matched = {matcher.name for matcher in node.matchers.matchers}
        assert node.name is not None
        yield Wanted(node.name, grouped | matched)
    elif isinstance(node, promql_parser.MatrixSelector):
        yield from _wanted(node.vector_selector, grouped)
    elif isinstance(node, promql_parser.AggregateExpr):
        # an aggregation inside another has dropped what it does not name itself
        own = frozenset(node.modifier.labels) if node.modifier else frozenset[str]()
        yield from _wanted(node.expr, own)
    elif isinstance(node, promql_parser.BinaryExpr):
        yield from _wanted(node.lhs, grouped)
        yield from _wanted(node.rhs, grouped)
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            yield from _wanted(argument, grouped)
    elif isinstance(node, promql_parser.ParenExpr | promql_parser.UnaryExpr | promql_parser.SubqueryExpr):
        yield from _wanted(node.expr, grouped)
    else:
        assert isinstance(node, promql_parser.NumberLiteral | promql_parser.StringLiteral), type(node)
