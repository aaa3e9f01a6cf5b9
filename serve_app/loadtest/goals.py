"""Goals in words, such as "p95 ttfa < 300ms, continuity >= 99%": read once, then checked against runs.

    goals   = goal { "," goal }
    goal    = [ "mean" | "p50" | "p95" | "p99" ] metric ( "<" | "<=" | ">" | ">=" ) number [ unit ]
    metric  = "ttfb" | "ttfp" | "ttfa" | "e2e"      a latency; needs its statistic; unit "ms" or "s", required
            | "rtf"                                 the mean unless said otherwise; no unit
            | "continuity" | "errors"               a share of all requests; unit "%"; errors without one: a count
            | "underruns" | "audio_s_per_s"         no unit

`ttfa` is the audible one. A figure that does not exist, because no request succeeded, holds no goal.
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from serve_app.loadtest.faults import GoalError
from serve_app.loadtest.summary import Spread, Summary

STATISTICS = ("mean", "p50", "p95", "p99")
LATENCIES: dict[str, Callable[[Summary], Spread | None]] = {
    "ttfb": lambda summary: summary.ttfb_ms,
    "ttfp": lambda summary: summary.ttfp_ms,
    "ttfa": lambda summary: summary.audible_ttfa_ms,
    "e2e": lambda summary: summary.e2e_ms,
}
SPREADS: dict[str, Callable[[Summary], Spread | None]] = {
    **LATENCIES,
    "rtf": lambda summary: summary.rtf_spread,
}
PLAIN: dict[str, Callable[[Summary], float | None]] = {
    "continuity": lambda summary: summary.player.continuity,
    "errors": lambda summary: summary.errors,
    "underruns": lambda summary: summary.player.underruns,
    "audio_s_per_s": lambda summary: summary.audio_s_per_s,
}
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
GOAL = re.compile(r"(?:(\w+)\s+)?(\w+)\s*(<=|>=|<|>)\s*(\d+(?:\.\d+)?)\s*(ms|s|%|)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Goal:
    """text: as it was written. bound: in the unit of the figure: milliseconds, a share 0..1, or a plain number."""

    text: str
    metric: str
    statistic: str
    comparison: str
    bound: float
    is_share: bool

    def figure(self, summary: Summary) -> float | None:
        """What the run has for this goal, in the unit of `bound`."""
        if self.metric in SPREADS:
            values = SPREADS[self.metric](summary)
            return None if values is None else float(getattr(values, self.statistic))
        figure = PLAIN[self.metric](summary)
        if self.metric == "errors" and self.is_share:
            return None if not summary.requests or figure is None else figure / summary.requests
        return figure

    def is_held_by(self, summary: Summary) -> bool:
        figure = self.figure(summary)
        return figure is not None and COMPARISONS[self.comparison](figure, self.bound)


def parse_goals(text: str) -> tuple[Goal, ...]:
    """Errors: `GoalError`."""
    return tuple(_parse_goal(part.strip()) for part in text.split(","))


def missed_goals(goals: tuple[Goal, ...], summary: Summary) -> tuple[Goal, ...]:
    """Those that the run does not hold."""
    return tuple(goal for goal in goals if not goal.is_held_by(summary))


def _parse_goal(text: str) -> Goal:
    match = GOAL.fullmatch(text.lower())
    if match is None:
        raise GoalError(f"cannot read the goal {text!r}; one looks like 'p95 ttfa < 300ms' or 'continuity >= 99%'")
    statistic, metric, comparison, number, unit = match.groups()
    if metric not in SPREADS and metric not in PLAIN:
        raise GoalError(f"unknown figure {metric!r} in {text!r}; there are {', '.join([*SPREADS, *PLAIN])}")
    if statistic is not None and statistic not in STATISTICS:
        raise GoalError(f"unknown statistic {statistic!r} in {text!r}; there are {', '.join(STATISTICS)}")
    if statistic is not None and metric in PLAIN:
        raise GoalError(f"{metric} has no {statistic}, in {text!r}")
    if statistic is None and metric in LATENCIES:
        raise GoalError(f"which {metric}, in {text!r}? say p50, p95, p99 or mean")
    allowed = ("ms", "s") if metric in LATENCIES else {"continuity": ("%",), "errors": ("%", "")}.get(metric, ("",))
    if unit not in allowed:
        wanted = " or ".join(name or "no unit" for name in allowed)
        raise GoalError(f"{metric} takes {wanted}, in {text!r}")
    bound = float(number) * {"s": 1000.0, "%": 0.01}.get(unit, 1.0)
    return Goal(text, metric, statistic or "mean", comparison, bound, is_share=unit == "%")
