"""Goals are read strictly, and checked against the right figure."""

import dataclasses

import pytest

from serve_app.loadtest.faults import GoalError
from serve_app.loadtest.goals import missed_goals, parse_goals
from serve_app.loadtest.summary import PlayerFigures, Spread, Summary, summarise

SUMMARY = Summary(
    requests=200,
    errors=2,
    errors_by_kind={"status_429": 2},
    error_examples={"status_429": ""},
    cancelled=0,
    silent=0,
    wall_s=10.0,
    audio_s=50.0,
    ttfb_ms=Spread(1, 2, 3, 4),
    ttfp_ms=Spread(11, 12, 13, 14),
    audible_ttfa_ms=Spread(101, 102, 103, 104),
    e2e_ms=Spread(1001, 1002, 1003, 1004),
    rtf_spread=Spread(0.1, 0.2, 0.3, 0.4),
    client_lag_ms=None,
    prebuffer_ms=100.0,
    players=(PlayerFigures(0.0, 50, 9.0, 0.5), PlayerFigures(100.0, 3, 1.0, 0.985), PlayerFigures(200.0, 0, 0.0, 0.99)),
)


@pytest.mark.parametrize(
    ("held", "missed"),
    [
        ("p95 ttfa <= 103ms", "p95 ttfa < 103ms"),
        ("P50 TTFP < 0.0121 s", "p50 ttfp < 0.012s"),
        ("mean ttfb < 1.5ms", "p99 ttfb < 1.5ms"),
        ("p99 e2e <= 1.004s", "p99 e2e < 1004ms"),
        ("rtf < 0.15", "p95 rtf < 0.15"),
        ("continuity >= 98.5%", "continuity >= 99%"),
        ("errors <= 1%", "errors < 1%"),
        ("errors <= 2", "errors <= 1"),
        ("underruns <= 3", "underruns < 3"),
        ("audio_s_per_s >= 5", "audio_s_per_s > 5"),
    ],
)
def test_a_goal_is_checked_against_its_figure(held: str, missed: str) -> None:
    assert missed_goals(parse_goals(held), SUMMARY) == ()
    assert missed_goals(parse_goals(missed), SUMMARY) == parse_goals(missed)


def test_goals_are_separated_by_commas() -> None:
    goals = parse_goals("p95 ttfa < 300ms, continuity >= 99%")
    assert [goal.text for goal in missed_goals(goals, SUMMARY)] == ["continuity >= 99%"]


def test_a_run_in_which_nothing_succeeded_holds_no_goal_on_sound() -> None:
    nothing = summarise([])
    for text in ("p95 ttfa < 300ms", "rtf < 100", "continuity >= 0%", "errors <= 100%"):
        assert missed_goals(parse_goals(text), nothing), text
    failed = dataclasses.replace(SUMMARY, ttfp_ms=None)
    assert missed_goals(parse_goals("p50 ttfp < 10s"), failed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read the goal ''"),
        ("fast", "cannot read"),
        ("p95 ttfa < 300ms,", "cannot read the goal ''"),
        ("p95 ttfa = 300ms", "cannot read"),
        ("p95 ttfa < -3ms", "cannot read"),
        ("p95 ttfx < 300ms", "unknown figure 'ttfx'"),
        ("p42 ttfa < 300ms", "unknown statistic 'p42'"),
        ("ttfa < 300ms", "which ttfa"),
        ("p95 ttfa < 300", "ttfa takes ms or s"),
        ("p95 ttfa < 300%", "ttfa takes ms or s"),
        ("continuity >= 0.99", "continuity takes %"),
        ("p95 continuity >= 99%", "continuity has no p95"),
        ("rtf < 1s", "rtf takes no unit"),
    ],
)
def test_a_goal_that_cannot_be_read_is_explained(text: str, message: str) -> None:
    with pytest.raises(GoalError, match=message):
        parse_goals(text)
