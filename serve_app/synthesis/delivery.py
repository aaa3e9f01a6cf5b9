"""What leaves the engine for a listener, and when: silence left out, a first sound held back, playback counted."""

from collections.abc import Callable, Iterable

from serve_app.messages import SAMPLE_RATE_HZ, Float32Array
from serve_app.synthesis.capacity import Capacity
from serve_app.synthesis.stream import SpeechStream, StreamEvent, silence


class Delivery:
    """Makes the events of streams that did not fail."""

    def __init__(self, clock: Callable[[], float], *, hold_first_sound: bool) -> None:
        """clock: seconds."""
        self._clock = clock
        self._hold_first_sound = hold_first_sound

    def event(self, stream: SpeechStream, samples: Float32Array, *, finished: bool = False) -> StreamEvent:
        """Reports new samples, and counts them as in the listener's hand."""
        if len(samples) or finished:
            samples = stream.take_held(samples)
        if len(samples):
            stream.progress.playback.deliver(len(samples) / SAMPLE_RATE_HZ, self._clock())
        new_tokens = stream.take_unreported_tokens() if len(samples) or finished else 0
        return StreamEvent(stream.stream_id, samples, new_tokens, stream.progress.generated, finished)

    def sound(
        self, stream: SpeechStream, rendered: Float32Array, capacity: Capacity, num_listeners: int, *, last: bool
    ) -> StreamEvent | None:
        """Of what was rendered what is heard; None while it is held back. last: nothing follows."""
        trim = stream.leading_silence
        samples = rendered if trim is None else trim.trim(rendered, last=last)
        if not last and self._holds(stream, samples, capacity, num_listeners):
            return None
        return self.event(stream, samples, finished=last)

    def due(self, streams: Iterable[SpeechStream]) -> list[StreamEvent]:
        """First sounds that have been held long enough."""
        now_s = self._clock()
        due = [stream for stream in streams if len(stream.held) and stream.held_until_s <= now_s]
        return [self.event(stream, stream.take_held(silence(0))) for stream in due]

    def wait_s(self, streams: Iterable[SpeechStream]) -> float | None:
        """Seconds until a held sound is due; None when nothing is held."""
        now_s = self._clock()
        return min((max(0.0, stream.held_until_s - now_s) for stream in streams if len(stream.held)), default=None)

    def _holds(self, stream: SpeechStream, samples: Float32Array, capacity: Capacity, num_listeners: int) -> bool:
        """Holds a first sound back that would be played before the next chunk is there."""
        progress = stream.progress
        if not self._hold_first_sound or progress.playback.started_at_s is not None:
            return False
        if len(stream.held) or not len(samples) or progress.waiting:
            return False
        hold_s = capacity.hold_s(num_listeners, progress.tokens_needed, len(samples) / SAMPLE_RATE_HZ)
        if hold_s > 0:
            stream.held, stream.held_until_s = samples, self._clock() + hold_s
        return hold_s > 0
