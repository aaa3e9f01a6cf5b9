"""What a flood's table says of gaps."""

from serve_app.loadtest.playback import SoundArrival
from tests.chaos.floods import told_gaps
from tests.chaos.listeners import Heard


def taken(began_at_s: float, *arrivals: tuple[float, float]) -> Heard:
    sound = [SoundArrival(at_s, audio_s) for at_s, audio_s in arrivals]
    return Heard(status=200, whole=True, ended_s=3.0, ended_at_s=began_at_s + 3.0, arrivals=sound)


def test_each_gap_is_told_with_its_place_its_length_and_how_many_were_open() -> None:
    with_gap = taken(100.0, (0.25, 0.5), (1.0, 1.0))
    gapless = [taken(99.0, (0.25, 1.5)), taken(100.5, (0.25, 1.5)), taken(103.0, (0.25, 1.5))]
    [told] = told_gaps([with_gap, *gapless])
    assert told == "a gap of 250 ms after 0.50 s of 1.5 s of sound, streams open then: 3"
    assert told_gaps(gapless) == []
