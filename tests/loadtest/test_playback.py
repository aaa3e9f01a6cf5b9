"""The arithmetic of listening, on traces made by hand."""

import pytest

from serve_app.loadtest.playback import (
    BodyEvent,
    Gap,
    SoundArrival,
    gaps,
    heard_at_s,
    play,
    playing_times_s,
    sound_arrivals,
)


def trace(*pairs: tuple[float, float]) -> list[SoundArrival]:
    return [SoundArrival(at_s, audio_s) for at_s, audio_s in pairs]


def assert_play(arrivals: list[SoundArrival], prebuffer_s: float, num_underruns: int, stall_s: float) -> None:
    playback = play(arrivals, prebuffer_s)
    assert (playback.prebuffer_s, playback.num_underruns) == (prebuffer_s, num_underruns)
    assert playback.stall_s == pytest.approx(stall_s)


def test_a_stream_ahead_of_its_listener_has_no_gap() -> None:
    assert_play(trace((0.2, 0.5), (0.6, 0.5), (1.1, 0.5)), 0.0, 0, 0.0)


def test_every_late_piece_is_one_underrun_and_gaps_add_up() -> None:
    # played 0.2..0.7, gap to 1.0, played to 1.5, gap to 1.6
    late = trace((0.2, 0.5), (1.0, 0.5), (1.6, 0.5))
    assert_play(late, 0.0, 2, 0.4)


def test_a_gap_moves_everything_after_it() -> None:
    # after the first gap the listener is 0.3 s behind, so what comes 0.1 s late by the server's clock is in time
    assert_play(trace((0.0, 0.5), (0.8, 0.5), (1.1, 0.5)), 0.0, 1, 0.3)


def test_a_gap_is_told_by_its_place_in_the_sound_and_by_the_clock() -> None:
    late = trace((0.25, 0.5), (1.0, 0.5), (1.5, 0.25), (2.0, 0.5))
    assert gaps(late, 0.0) == [Gap(0.5, 0.75, 0.25), Gap(1.25, 1.75, 0.25)]


def test_a_prebuffer_is_sound_held_and_not_time_waited() -> None:
    arrivals = trace((1.0, 0.06), (1.05, 0.06), (1.25, 0.06))
    # starts at 1.05 with 0.12 s, dry at 1.17, gap to 1.25
    assert_play(arrivals, 0.1, 1, 0.08)
    # starts with the last piece
    assert_play(arrivals, 0.15, 0, 0.0)
    # starts at 1.0, dry at 1.06, at 1.12, gap to 1.25
    assert_play(arrivals, 0.0, 1, 0.13)
    # never holds as much, so starts when there is no more
    assert_play(arrivals, 0.5, 0, 0.0)


def test_a_big_first_piece_fills_every_prebuffer() -> None:
    arrivals = trace((0.3, 0.5), (0.9, 0.5))
    for prebuffer_s in (0.0, 0.1, 0.2):
        assert_play(arrivals, prebuffer_s, 1, 0.1)


def test_jitter_below_a_millisecond_is_no_underrun() -> None:
    assert_play(trace((0.0, 0.1), (0.1009, 0.1)), 0.0, 0, 0.0)
    assert_play(trace((0.0, 0.1), (0.1011, 0.1)), 0.0, 1, 0.0011)


def test_playing_times_follow_each_other_unless_late() -> None:
    assert playing_times_s(trace((0.2, 0.5), (0.3, 0.1), (2.0, 0.1)), 0.0) == pytest.approx([0.2, 0.7, 2.0])


def test_sound_is_heard_at_the_pace_of_the_clock() -> None:
    arrivals = trace((0.2, 0.5), (0.3, 0.5), (2.0, 0.5))
    assert heard_at_s(arrivals, 0.0) == pytest.approx(0.2)
    # it arrived in the first packet, but 0.4 s of something else are played before it
    assert heard_at_s(arrivals, 0.4) == pytest.approx(0.6)
    assert heard_at_s(arrivals, 0.9) == pytest.approx(1.1)
    assert heard_at_s(arrivals, 1.1) == pytest.approx(2.1)
    with pytest.raises(ValueError, match="ends before"):
        heard_at_s(arrivals, 1.6)


def test_only_whole_frames_after_the_header_are_playable() -> None:
    # a header of 4 bytes, frames of 2 bytes at 10 Hz, then 3 bytes that are no sound
    sizes = [(0.1, 3), (0.2, 1), (0.3, 1), (0.4, 4), (0.5, 1), (0.6, 5)]
    events = [BodyEvent(at_s, b"x" * size) for at_s, size in sizes]
    # after the events the body holds 3, 4, 5, 9, 10, 15 bytes: 0, 0, 0, 2, 3, 4 frames of those that end at 12
    arrivals = sound_arrivals(events, start_byte=4, end_byte=12, frame_bytes=2, sample_rate_hz=10)
    assert [arrival.at_s for arrival in arrivals] == [0.4, 0.5, 0.6]
    assert [arrival.audio_s for arrival in arrivals] == pytest.approx([0.2, 0.1, 0.1])
