"""What a listener hears of a stream: pure arithmetic over when its bytes arrived.

The player modelled here starts once it holds `prebuffer_s` seconds of sound, or all there is; with 0, at the first
sample. From then on it plays at the pace of the clock. Where the next samples are late it is silent until they come (an
underrun) and goes on at once: the listener hears every sample, and the gaps add up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

MIN_STALL_S = 0.001
"""A shorter gap is the jitter of any clock and cannot be heard; it is not counted."""


@dataclass(frozen=True, slots=True)
class BodyEvent:
    """Bytes of a response body. at_s: arrival, in seconds since the request was due."""

    at_s: float
    data: bytes


@dataclass(frozen=True, slots=True)
class SoundArrival:
    """At `at_s` seconds, `audio_s` more seconds of sound became playable."""

    at_s: float
    audio_s: float


@dataclass(frozen=True, slots=True)
class Playback:
    """One listener's experience of one stream. stall_s: the sum of its gaps."""

    prebuffer_s: float
    num_underruns: int
    stall_s: float


@dataclass(frozen=True, slots=True)
class Gap:
    """Silence in the middle of a stream, for want of samples.

    position_s: seconds of sound before it. at_s: when it began, by the clock of the arrivals.
    """

    position_s: float
    at_s: float
    length_s: float


def sound_arrivals(
    events: Sequence[BodyEvent], start_byte: int, end_byte: int, frame_bytes: int, sample_rate_hz: int
) -> list[SoundArrival]:
    """When whole frames became playable, of a body whose samples are its bytes `start_byte` up to `end_byte`."""
    arrivals: list[SoundArrival] = []
    num_bytes = 0
    num_frames = 0
    for event in events:
        num_bytes += len(event.data)
        frames_now = max(0, min(num_bytes, end_byte) - start_byte) // frame_bytes
        if frames_now > num_frames:
            arrivals.append(SoundArrival(event.at_s, (frames_now - num_frames) / sample_rate_hz))
            num_frames = frames_now
    return arrivals


def start_time_s(arrivals: Sequence[SoundArrival], prebuffer_s: float) -> float:
    """When the player starts. `arrivals` holds at least one."""
    held_s = 0.0
    for arrival in arrivals:
        held_s += arrival.audio_s
        if held_s >= prebuffer_s - 1e-9:
            return arrival.at_s
    return arrivals[-1].at_s


def playing_times_s(arrivals: Sequence[SoundArrival], prebuffer_s: float) -> list[float]:
    """For each arrival, when its first sample is played."""
    times: list[float] = []
    dry_at_s = start_time_s(arrivals, prebuffer_s)
    for arrival in arrivals:
        times.append(max(arrival.at_s, dry_at_s))
        dry_at_s = times[-1] + arrival.audio_s
    return times


def gaps(arrivals: Sequence[SoundArrival], prebuffer_s: float) -> list[Gap]:
    """Those between what the player plays. The end of the stream is no gap, however late it is closed."""
    found: list[Gap] = []
    position_s = 0.0
    times_s = playing_times_s(arrivals, prebuffer_s)
    for arrival, start_s, next_s in zip(arrivals, times_s, times_s[1:], strict=False):
        position_s += arrival.audio_s
        dry_at_s = start_s + arrival.audio_s
        if next_s - dry_at_s >= MIN_STALL_S:
            found.append(Gap(position_s, dry_at_s, next_s - dry_at_s))
    return found


def play(arrivals: Sequence[SoundArrival], prebuffer_s: float) -> Playback:
    """What the gaps come to."""
    found = gaps(arrivals, prebuffer_s)
    return Playback(prebuffer_s, len(found), sum((gap.length_s for gap in found), 0.0))


def heard_at_s(arrivals: Sequence[SoundArrival], position_s: float) -> float:
    """When the listener hears the sample `position_s` seconds into the sound, the player starting at the first sample.

    So silence at the head of a stream counts as waiting, even if it arrives in the same packet as the first word.
    """
    passed_s = 0.0
    for arrival, start_s in zip(arrivals, playing_times_s(arrivals, 0.0), strict=True):
        if position_s < passed_s + arrival.audio_s:
            return start_s + position_s - passed_s
        passed_s += arrival.audio_s
    raise ValueError(f"the sound ends before {position_s} s")
