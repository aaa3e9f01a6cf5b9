"""What leaves the engine for a listener, and when: silence left out, a first sound held back, playback counted."""

from collections.abc import Callable, Collection, Iterable

from serve_app.messages import SAMPLE_RATE_HZ, Float32Array
from serve_app.synthesis.caution import Caution, Promise
from serve_app.synthesis.forecast import Forecast
from serve_app.synthesis.stream import SpeechStream, StreamEvent, silence


class Delivery:
    """Makes the events of streams that did not fail."""

    def __init__(self, clock: Callable[[], float], caution: Caution, *, hold_first_sound: bool) -> None:
        """clock: seconds. caution: is told what became of forecasts."""
        self._clock = clock
        self._caution = caution
        self._hold_first_sound = hold_first_sound

    def event(self, stream: SpeechStream, samples: Float32Array, *, finished: bool = False) -> StreamEvent:
        """Reports new samples, and counts them as in the listener's hand."""
        if len(samples) or finished:
            samples = stream.take_held(samples)
        if len(samples):
            self._deliver(stream, len(samples) / SAMPLE_RATE_HZ)
        new_tokens = stream.take_unreported_tokens() if len(samples) or finished else 0
        return StreamEvent(stream.stream_id, samples, new_tokens, stream.progress.generated, finished)

    def _deliver(self, stream: SpeechStream, audio_s: float) -> None:
        playback, now_s = stream.progress.playback, self._clock()
        if stream.promise is not None and playback.started_at_s is not None:
            self._caution.learn(stream.promise, now_s)
            stream.promise = None
        playback.deliver(audio_s, now_s)

    def sound(
        self,
        stream: SpeechStream,
        rendered: Float32Array,
        forecast: Forecast,
        streams: Iterable[SpeechStream],
        *,
        last: bool,
    ) -> StreamEvent | None:
        """Of what was rendered what is heard; None while it is held back. streams: all. last: nothing follows."""
        trim = stream.leading_silence
        samples = rendered if trim is None else trim.trim(rendered, last=last)
        if not last and self._holds(stream, samples, forecast, streams):
            return None
        return self.event(stream, samples, finished=last)

    def due(self, streams: Collection[SpeechStream], forecast: Forecast) -> list[StreamEvent]:
        """First sounds that need not be held any longer, of all streams."""
        held = [stream for stream in streams if len(stream.held)]
        due = [stream for stream in held if self._lasts(stream, stream.held, forecast, streams)]
        return [self.event(stream, stream.take_held(silence(0))) for stream in due]

    def wait_s(self, streams: Iterable[SpeechStream]) -> float | None:
        """0 where a held sound is due though nothing else is to be done; None otherwise: steps go on until it is."""
        return 0.0 if any(len(stream.held) and stream.progress.needs() is None for stream in streams) else None

    def _holds(
        self, stream: SpeechStream, samples: Float32Array, forecast: Forecast, streams: Iterable[SpeechStream]
    ) -> bool:
        """Holds a first sound back that would be played before the next chunk is there."""
        if not self._hold_first_sound or stream.progress.playback.started_at_s is not None:
            return False
        if len(stream.held) or not len(samples) or self._lasts(stream, samples, forecast, streams):
            return False
        stream.held = samples
        return True

    def _lasts(
        self, stream: SpeechStream, samples: Float32Array, forecast: Forecast, streams: Iterable[SpeechStream]
    ) -> bool:
        everybody = (other.progress for other in streams)
        audio_s, now_s = len(samples) / SAMPLE_RATE_HZ, self._clock()
        next_chunk_s = forecast.next_chunk_s(stream.progress, audio_s, everybody, now_s)
        if next_chunk_s is None:
            return True
        lasts = forecast.lasts(audio_s, next_chunk_s)
        if lasts and stream.interleave is None:  # fed text comes when it comes
            stream.promise = Promise(now_s, next_chunk_s)
        return lasts
