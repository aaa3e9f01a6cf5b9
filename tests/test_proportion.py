"""One policy for the whole application: both stages move together, within their bounds."""

from collections import namedtuple
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.proportion import InProportion

DeploymentID = namedtuple("DeploymentID", "name app_name")
INGRESS, PREPROCESS, SYNTHESIS = (DeploymentID(name, "speech") for name in ("Ingress", "Preprocess", "Synthesis"))


def context(streams: float = 0, requests: float = 0, target: int = 1, most: int = 100) -> SimpleNamespace:
    return SimpleNamespace(
        aggregated_metrics={"streams": {"r": streams}, "spare": {"r": 10 - streams}},
        total_num_requests=requests,
        target_num_replicas=target,
        capacity_adjusted_max_replicas=most,
        config=SimpleNamespace(get_target_ongoing_requests=lambda: 10),
    )


def wanted(streams: float, ratio: float, *, requests: float = 0, most: int = 100) -> dict[str, int]:
    contexts = {
        INGRESS: context(requests=requests),
        PREPROCESS: context(),
        SYNTHESIS: context(streams, most=most),
    }
    decisions, state = InProportion(ratio)(contexts)
    assert state == {}
    return {deployment.name: number for deployment, number in decisions.items()}


@given(st.floats(0, 10), st.sampled_from([0.25, 0.5, 1, 2]))
def test_preprocessing_is_a_share_of_synthesis(streams: float, ratio: float) -> None:
    found = wanted(streams, ratio)
    assert found["Preprocess"] - 1 < ratio * found["Synthesis"] <= found["Preprocess"]


def test_a_burst_adds_both_at_once() -> None:
    assert wanted(8, 2) == {"Ingress": 1, "Preprocess": 4, "Synthesis": 2}


def test_preprocessing_does_not_grow_for_synthesis_that_may_not() -> None:
    assert wanted(10, 2, most=1)["Preprocess"] == 2


def test_others_follow_their_own_requests() -> None:
    assert wanted(0, 1, requests=31)["Ingress"] == 4


def test_where_synthesis_does_not_scale_preprocessing_follows_its_requests() -> None:
    assert InProportion(0.5)({PREPROCESS: context(requests=25)}) == ({PREPROCESS: 3}, {})


@pytest.mark.parametrize("ratio", [0, -1])
def test_an_impossible_share_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        InProportion(ratio)
