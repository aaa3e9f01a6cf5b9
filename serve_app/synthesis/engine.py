"""The streaming engine: many utterances at once through the language model, the flow and the vocoder.

Synchronous and single-threaded: one thread calls everything here (`engine_loop.py`). Where there is a
GPU, a render is under way (`flight.py`) while steps of the language model go on; a CPU has rendered when it is asked.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from serve_app.errors import CheckpointError, GenerationFailed, SpeechError
from serve_app.messages import Float32Array, Int32Array, PreparedSpeech
from serve_app.model.checkpoint import Checkpoint, CheckpointFault, load_checkpoint
from serve_app.synthesis.admission import Admission
from serve_app.synthesis.attempt import Attempt, Attempts
from serve_app.synthesis.capacity import StepCosts
from serve_app.synthesis.caution import Caution
from serve_app.synthesis.cuda_graphs import Graphs
from serve_app.synthesis.delivery import Delivery
from serve_app.synthesis.failures import Failures
from serve_app.synthesis.flight import LOOK_S, Flight
from serve_app.synthesis.forecast import Forecast
from serve_app.synthesis.guards import LengthRule
from serve_app.synthesis.language_stage import LanguageStage
from serve_app.synthesis.networks import Networks
from serve_app.synthesis.opening import Opening
from serve_app.synthesis.render_stage import FlowPrefixCache, RenderStage, first_hop_tokens
from serve_app.synthesis.sample_copy import StartCopy, start_copy
from serve_app.synthesis.sampling import Sampler
from serve_app.synthesis.scheduler import Limits, Playback, Progress, Scheduler, Work
from serve_app.synthesis.second_try import SecondTry
from serve_app.synthesis.settings import EngineSettings, LiveSettings
from serve_app.synthesis.step_times import StepTimes
from serve_app.synthesis.stream import SpeechStream, StreamEvent, failed, silence
from serve_app.synthesis.stream_memory import stream_memory

log = logging.getLogger(__name__)


class StreamingEngine:
    """Continuous batching over slots, chunk-cached flow, streaming vocoder."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: EngineSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        copy_samples: StartCopy = start_copy,
    ) -> None:
        """clock: seconds. copy_samples: from the device. Tests bring their own: of time, and of a render's end."""
        dims = checkpoint.dims
        self._clock = clock
        self._config = config
        # Each request holds one utterance that plays and at most one that is generated ahead of it.
        self._num_slots = 2 * config.max_streams
        networks = Networks.load(checkpoint, config, self._num_slots)
        lengths = LengthRule(config.min_token_text_ratio, config.max_token_text_ratio)
        self._opening = Opening(dims.language_model, lengths, trim_leading_silence=config.trim_leading_silence)
        self._language = LanguageStage(
            networks.language_model, networks.cache, Sampler(dims.sampling), lengths, networks.graphs
        )
        first_hop = config.first_hop_tokens or first_hop_tokens(
            networks.vocoder, dims.flow.token_mel_ratio, config.first_lookahead_frames
        )
        self.prefixes = FlowPrefixCache(networks.flow, config.flow_cache_mib * 2**20, first_hop)
        self._render = RenderStage(
            networks.flow, networks.vocoder, self.prefixes, config.first_lookahead_frames, copy=copy_samples
        )
        memory = stream_memory(networks.flow, self.prefixes, config.max_positions, networks.stream_bytes)
        self._admission = Admission(config, self._language, self._render, memory)
        self._caution = Caution()
        self._delivery = Delivery(clock, self._caution, hold_first_sound=config.hold_first_sound)
        self._second_try = SecondTry(self._language, dims.flow.lookahead, config.retry_s, clock)
        self._times = StepTimes(self.costs, self._render)
        self._attempts = Attempts(
            Failures(self.prefixes), self._times, self._failed, lambda s: s.stream_id in self._streams, clock
        )
        self.adjust(config)
        self._streams: dict[int, SpeechStream] = {}
        self._flight: Flight | None = None
        if networks.graphs is not None and networks.graphs.can_capture:
            self._capture(networks.graphs)

    @property
    def costs(self) -> StepCosts:
        return self._admission.costs

    def adjust(self, settings: LiveSettings) -> None:
        config = self._config
        limits = Limits(prefill_chunk=config.prefill_chunk, render=config.render_batch, max_lead_s=settings.max_lead_s)
        self._admission.adjust(settings, limits)
        self._forecast = Forecast(self._admission.capacity, self._caution)
        self._scheduler = Scheduler(limits, self._admission.capacity.round_s, self._forecast.can_wait)

    def wait_s(self) -> float | None:
        now_s = self._clock()
        waits = [self._delivery.wait_s(self._streams.values())]
        if self._flight is None:
            waits.append(self._scheduler.wait_s(self._progress(), now_s))
        elif self._flight.is_over(now_s) or self._scheduler.next_batch(self._progress(), now_s, may_render=False):
            return 0.0
        else:
            waits.append(LOOK_S)
        return min((wait_s for wait_s in waits if wait_s is not None), default=None)

    def num_spare(self) -> int:
        return self._admission.spare(self.num_listeners)

    def admits(self, num_listeners: int) -> bool:
        return self._admission.admits(num_listeners)

    def prefix_counts(self) -> tuple[int, int]:
        return self.prefixes.hits, self.prefixes.misses

    def _progress(self) -> Iterable[Progress]:
        return (stream.progress for stream in self._streams.values())

    @property
    def num_listeners(self) -> int:
        """Requests that still need work; an utterance generated ahead of another belongs to the same listener."""
        return len({id(stream.progress.playback) for stream in self._streams.values()})

    def open(self, stream_id: int, speech: PreparedSpeech, index: int, playback: Playback) -> None:
        stream = self._opening(stream_id, speech, index, playback)
        self._admission.open(stream, self.num_listeners)
        self._streams[stream_id] = stream

    @torch.inference_mode()
    def feed(self, stream_id: int, text_ids: Int32Array) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._language.feed(stream, text_ids)

    @torch.inference_mode()
    def end(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._language.end(stream)

    def close(self, stream_id: int) -> None:
        stream = self._streams.pop(stream_id, None)
        if stream is not None and not (self._flight is not None and self._flight.keeps(stream)):
            self._admission.close(stream)

    @torch.inference_mode()
    def _capture(self, graphs: Graphs) -> None:
        """Before the engine is ready: no listener waits for a capture."""
        with graphs.capturing():
            self._language.rehearse()
            self._render.rehearse(self._config.render_batch, self._config.max_positions)
        log.info("%d CUDA graphs captured", graphs.num_captured)

    def check(self) -> None:
        held = [*self._streams.values(), *(self._flight.gone if self._flight is not None else ())]
        num_taken = sum(stream.slot is not None for stream in held)
        assert self._language.num_free_slots + num_taken == self._num_slots, "a cache slot leaked"
        assert self._admission.stream_ids == {stream.stream_id for stream in held}, "reserved memory leaked"
        self._render.check(held)

    @torch.inference_mode()
    def step(self) -> list[StreamEvent]:
        released = self._delivery.due(self._streams.values(), self._forecast)
        flight, now_s = self._flight, self._clock()
        if flight is not None and flight.is_over(now_s):
            return released + self._attempts(flight.attempt, self._land)
        batch = self._scheduler.next_batch(self._progress(), now_s, may_render=flight is None)
        if batch is None:
            return released
        streams = [self._streams[stream_id] for stream_id in batch.stream_ids]
        attempt = Attempt(batch, streams, self._times.kind(batch.work, streams), now_s)
        return released + self._attempts(attempt, self._run)

    def _run(self, attempt: Attempt) -> list[StreamEvent]:
        batch, streams = attempt.batch, attempt.streams
        match batch.work:
            case Work.PREFILL:
                return self._prefill(streams, batch.positions) + self._advanced(streams)
            case Work.DECODE:
                self._language.decode(streams)
                return self._advanced(streams)
            case Work.RENDER:
                return self._take_off(attempt)

    def _prefill(self, streams: Sequence[SpeechStream], num_positions: int) -> list[StreamEvent]:
        events = []
        for stream in streams:
            if stream.flow is None:
                stream.started_s = self._clock()
                self._render.open(stream)
                # A pause goes out at once, so that it is in hand while the sound after it is made.
                events.append(self._delivery.event(stream, silence(stream.utterance.pause_before_s)))
            self._language.prefill(stream, num_positions)
        return events

    def _advanced(self, streams: Sequence[SpeechStream]) -> list[StreamEvent]:
        """What the language model's step brought."""
        events = []
        for stream in streams:
            self._second_try.consider(stream)
            if stream.fault is not None:
                events.append(self._failed(stream, stream.fault))
                continue
            self._render.count(stream)
            if stream.progress.generated:
                events.append(self._delivery.event(stream, silence(0)))
        return events

    def _take_off(self, attempt: Attempt) -> list[StreamEvent]:
        """Asks for a render, and delivers it if it is there at once."""
        events, able = [], []
        for stream in attempt.streams:
            if stream.progress.generated and not stream.tokens:  # no text came, or the model ended at once
                events.append(self._delivery.event(stream, silence(0), finished=True))
                self.close(stream.stream_id)
            else:
                able.append(stream)
        if able:
            self._flight = Flight(attempt, able, self._render.render(able))
            if not self._flight.rendered.is_there():
                attempt.narrow(able)
                return events
            events += self._land(attempt)
        return events

    def _land(self, attempt: Attempt) -> list[StreamEvent]:
        """Delivers what the render brought."""
        flight, self._flight = self._flight, None
        assert flight is not None and flight.attempt is attempt
        try:
            landed = flight.land()
        finally:
            for stream in flight.gone:
                self._admission.close(stream)
        return [event for chunk in landed if (event := self._sound(*chunk)) is not None]

    def _sound(self, stream: SpeechStream, samples: Float32Array, last: bool) -> StreamEvent | None:
        if not np.isfinite(samples).all():
            return self._failed(stream, GenerationFailed("the model produced no valid sound"))
        event = self._delivery.sound(stream, samples, self._forecast, self._streams.values(), last=last)
        if last:
            self.close(stream.stream_id)
        return event

    def _failed(self, stream: SpeechStream, error: SpeechError) -> StreamEvent:
        self.close(stream.stream_id)
        return failed(stream.stream_id, error)


def load_engine(directory: Path, config: EngineSettings) -> StreamingEngine:
    """The streaming engine of a checkpoint directory. Raises CheckpointError, naming everything that is wrong."""
    try:
        return StreamingEngine(load_checkpoint(directory), config)
    except CheckpointFault as fault:
        raise CheckpointError(str(fault)) from fault
