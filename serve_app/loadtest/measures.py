"""The figures of one request, from the events of its body."""

from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.loadtest.playback import BodyEvent, Playback, heard_at_s, play, sound_arrivals
from serve_app.loadtest.sound import first_audible_frame, locate_pcm, locate_wav

PREBUFFERS_S = (0.0, 0.1, 0.2)
"""The players that every stream is played on."""


@dataclass(frozen=True, slots=True)
class StreamFigures:
    """What one whole stream was like. Times are in seconds since the request was due.

    ttfb_s: first byte of the body. ttfp_s: first playable sample. audible_ttfa_s: the first audible window is heard;
    None if all is silence. e2e_s: end of the body. audio_s: length of the sound.
    players: one for each of `PREBUFFERS_S`.
    """

    ttfb_s: float
    ttfp_s: float
    audible_ttfa_s: float | None
    e2e_s: float
    audio_s: float
    players: tuple[Playback, ...]

    @property
    def rtf(self) -> float:
        """Real-time factor: seconds waited for a second of sound."""
        return self.e2e_s / self.audio_s


def measure(events: Sequence[BodyEvent], end_s: float, audio_format: str, pcm_rate_hz: int) -> StreamFigures:
    """Figures of a complete body.

    events: in order of arrival; an event without bytes counts for nothing. end_s: when the body ended. audio_format:
    "wav" or "pcm". pcm_rate_hz: sample rate of a pcm body. Errors: `BadAudio`.
    """
    body = b"".join(event.data for event in events)
    span = locate_wav(body) if audio_format == "wav" else locate_pcm(body, pcm_rate_hz)
    rate_hz = span.format.sample_rate_hz
    arrivals = sound_arrivals(events, span.start_byte, span.end_byte, span.format.frame_bytes, rate_hz)
    audible_frame = first_audible_frame(body[span.start_byte : span.end_byte], span.format)
    return StreamFigures(
        ttfb_s=next(event.at_s for event in events if event.data),
        ttfp_s=arrivals[0].at_s,
        audible_ttfa_s=None if audible_frame is None else heard_at_s(arrivals, audible_frame / rate_hz),
        e2e_s=end_s,
        audio_s=(span.end_byte - span.start_byte) // span.format.frame_bytes / rate_hz,
        players=tuple(play(arrivals, prebuffer_s) for prebuffer_s in PREBUFFERS_S),
    )
