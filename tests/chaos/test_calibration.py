"""The capacity that a flood is a multiple of: sound that came within the window, whole requests alone."""

import pytest

from serve_app.loadtest.playback import SoundArrival
from tests.chaos.calibration import rate_within
from tests.chaos.listeners import Heard


def heard(began_s: float, arrivals: list[tuple[float, float]], status: int = 200) -> Heard:
    """One request; arrivals: (seconds since it began, seconds of sound)."""
    return Heard(
        status=status,
        ended_s=10.0,
        ended_at_s=began_s + 10.0,
        whole=True,
        arrivals=[SoundArrival(at_s, audio_s) for at_s, audio_s in arrivals],
    )


def test_sound_counts_when_it_comes_whenever_its_request_began() -> None:
    early = heard(95.0, [(1.0, 2.0), (6.0, 4.0)])
    late = heard(108.0, [(1.0, 3.0), (3.0, 3.0)])
    refused = heard(101.0, [], status=429)
    rate = rate_within([early, late, refused], 100.0, 110.0, num_clients=2)
    assert rate.audio_s_per_s == pytest.approx((4.0 + 3.0) / 10)
    assert rate.requests_per_s == pytest.approx(rate.audio_s_per_s / 6.0), "requests of six seconds of sound"


def test_a_service_that_completes_nothing_has_no_capacity_to_be_flooded() -> None:
    with pytest.raises(AssertionError, match="completed"):
        rate_within([heard(0.0, [], status=429)], 0.0, 1.0, num_clients=1)
