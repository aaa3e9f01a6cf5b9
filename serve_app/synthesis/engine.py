"""The streaming engine: many utterances at once through the language model, the flow and the vocoder.

Synchronous and single-threaded: one thread calls everything here (`engine_loop.py`).
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from serve_app.errors import CheckpointError, GenerationFailed, SpeechError
from serve_app.messages import Int32Array, PreparedSpeech, PreparedUtterance
from serve_app.model.checkpoint import Checkpoint, CheckpointFault, load_checkpoint
from serve_app.synthesis.admission import Admission
from serve_app.synthesis.capacity import StepCosts
from serve_app.synthesis.cuda_graphs import Graphs
from serve_app.synthesis.delivery import Delivery
from serve_app.synthesis.failures import Failures, Mark, is_out_of_memory
from serve_app.synthesis.guards import LengthRule
from serve_app.synthesis.interleave import Interleave
from serve_app.synthesis.language_stage import LanguageStage
from serve_app.synthesis.leading_silence import LeadingSilence
from serve_app.synthesis.networks import Networks
from serve_app.synthesis.render_stage import FlowPrefixCache, RenderStage, first_hop_tokens
from serve_app.synthesis.sampling import Sampler, utterance_seed
from serve_app.synthesis.scheduler import Batch, Limits, Playback, Progress, Scheduler, Work
from serve_app.synthesis.second_try import SecondTry
from serve_app.synthesis.settings import EngineSettings, LiveSettings
from serve_app.synthesis.step_times import StepTimes
from serve_app.synthesis.stream import SpeechStream, StreamEvent, failed, silence

log = logging.getLogger(__name__)


class StreamingEngine:
    """Continuous batching over slots, chunk-cached flow, streaming vocoder."""

    def __init__(
        self, checkpoint: Checkpoint, config: EngineSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """clock: seconds; an argument so that tests and simulations can own time."""
        dims = checkpoint.dims
        self._clock = clock
        self._config = config
        # Each request holds one utterance that plays and at most one that is generated ahead of it.
        self._num_slots = 2 * config.max_streams
        networks = Networks.load(checkpoint, config, self._num_slots)
        self._lengths = LengthRule(config.min_token_text_ratio, config.max_token_text_ratio)
        self._language_dims = dims.language_model
        self._language = LanguageStage(
            networks.language_model, networks.cache, Sampler(dims.sampling), self._lengths, networks.graphs
        )
        first_hop = config.first_hop_tokens or first_hop_tokens(
            networks.vocoder, dims.flow.token_mel_ratio, config.first_lookahead_frames
        )
        self.prefixes = FlowPrefixCache(networks.flow, config.flow_cache_mib * 2**20, first_hop)
        self._render = RenderStage(networks.flow, networks.vocoder, self.prefixes, config.first_lookahead_frames)
        self._admission = Admission(config, self._language, self._render, networks.stream_bytes)
        self._delivery = Delivery(clock, hold_first_sound=config.hold_first_sound)
        self._second_try = SecondTry(self._language, dims.flow.lookahead, config.retry_s, clock)
        self._times = StepTimes(self.costs, self._render)
        self._failures = Failures(self.prefixes)
        self.adjust(config)
        self._streams: dict[int, SpeechStream] = {}
        if networks.graphs is not None and networks.graphs.can_capture:
            self._capture(networks.graphs)

    @property
    def costs(self) -> StepCosts:
        return self._admission.costs

    def adjust(self, settings: LiveSettings) -> None:
        config = self._config
        limits = Limits(prefill_chunk=config.prefill_chunk, render=config.render_batch, max_lead_s=settings.max_lead_s)
        self._admission.adjust(settings, limits)
        self._scheduler = Scheduler(limits, self._admission.capacity.round_s)

    def wait_s(self) -> float | None:
        waits = (self._delivery.wait_s(self._streams.values()), self._scheduler.wait_s(self._progress(), self._clock()))
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
        utterance = speech.utterances[index]
        min_tokens, max_tokens = self._lengths.bounds(len(utterance.text_ids))
        stream = SpeechStream(
            speech.voice,
            utterance,
            utterance_seed(speech.seed, index),
            speech.speed,
            Progress(stream_id, playback, index),
            min_tokens=min_tokens,
            max_tokens=max_tokens,
            interleave=self._interleave(utterance) if speech.fed else None,
            leading_silence=self._leading_silence(utterance, index),
        )
        self._admission.open(stream, self.num_listeners)
        self._streams[stream_id] = stream

    def _leading_silence(self, utterance: PreparedUtterance, index: int) -> LeadingSilence | None:
        """Only before the first word of a request: between sentences, and where it was asked for, silence is meant."""
        wanted = self._config.trim_leading_silence and index == 0 and utterance.pause_before_s == 0
        return LeadingSilence() if wanted else None

    def _interleave(self, utterance: PreparedUtterance) -> Interleave:
        dims = self._language_dims
        prompt = utterance.prefix_ids.tolist(), utterance.speech_prefix_ids.tolist()
        interleave = Interleave(dims.text_block, dims.speech_block, *prompt)
        interleave.feed(utterance.text_ids.tolist())
        return interleave

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
        if stream is not None:
            self._admission.close(stream)

    @torch.inference_mode()
    def _capture(self, graphs: Graphs) -> None:
        """Before the engine is ready: no listener waits for a capture."""
        with graphs.capturing():
            self._language.rehearse()
            self._render.rehearse(self._config.render_batch, self._config.max_positions)
        log.info("%d CUDA graphs captured", graphs.num_captured)

    def check(self) -> None:
        held = sum(stream.slot is not None for stream in self._streams.values())
        assert self._language.num_free_slots + held == self._num_slots, "a cache slot leaked"
        assert self._admission.stream_ids == self._streams.keys(), "reserved memory leaked"
        self._render.check(self._streams.values())

    @torch.inference_mode()
    def step(self) -> list[StreamEvent]:
        released = self._delivery.due(self._streams.values())
        started_s = self._clock()
        batch = self._scheduler.next_batch(self._progress(), started_s)
        if batch is None:
            return released
        streams = [self._streams[stream_id] for stream_id in batch.stream_ids]
        kind = self._times.kind(batch.work, streams)
        marks = [Mark(batch.work, stream) for stream in streams]
        try:
            events = self._run(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, streams that took no part must go on
            return released + self._one_by_one(batch, marks, error)
        self._failures.note_success()
        self._times.note(kind, streams, self._clock() - started_s)
        return released + events

    def _run(self, batch: Batch) -> list[StreamEvent]:
        streams = [self._streams[stream_id] for stream_id in batch.stream_ids]
        match batch.work:
            case Work.PREFILL:
                begun = self._prefill(streams, batch.positions)
                return begun + self._advanced(streams)
            case Work.DECODE:
                self._language.decode(streams)
                return self._advanced(streams)
            case Work.RENDER:
                return self._rendered(streams)

    def _one_by_one(self, batch: Batch, marks: Sequence[Mark], error: Exception) -> list[StreamEvent]:
        """After a batch failed: each of its streams takes the step again alone, where that is safe, so that none ends
        but for a failure of its own.
        """
        self._failures.note(batch, error)
        events: list[StreamEvent] = []
        unharmed: list[SpeechStream] = []
        for mark in marks:
            own_error = error
            if len(marks) > 1 and mark.rewind():
                alone = replace(batch, stream_ids=(mark.stream.stream_id,))
                try:
                    events += self._run(alone)
                    unharmed.append(mark.stream)
                    continue
                except Exception as again:  # noqa: BLE001 - as in `step`
                    self._failures.note(alone, again)
                    own_error = again
            events.append(self._failed(mark.stream, self._failures.answer(own_error)))
        self._failures.judge(error, num_unharmed=len(unharmed))
        if len(unharmed) == len(marks) and is_out_of_memory(error) and unharmed[-1].stream_id in self._streams:
            # Together they are too many: one less from here on, or every step would fail first.
            events.append(self._failed(unharmed[-1], self._failures.answer(error)))
        return events

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

    def _rendered(self, streams: Sequence[SpeechStream]) -> list[StreamEvent]:
        events: list[StreamEvent | None] = []
        able = []
        for stream in streams:
            if stream.progress.generated and not stream.tokens:  # no text came, or the model ended at once
                events.append(self._delivery.event(stream, silence(0), finished=True))
                self.close(stream.stream_id)
            else:
                able.append(stream)
        rendered = self._render.render(able) if able else []
        for stream, (samples, last) in zip(able, rendered, strict=True):
            if not np.isfinite(samples).all():
                events.append(self._failed(stream, GenerationFailed("the model produced no valid sound")))
                continue
            capacity, listeners = self._admission.capacity, self.num_listeners
            events.append(self._delivery.sound(stream, samples, capacity, listeners, last=last))
            if last:
                self.close(stream.stream_id)
        return [event for event in events if event is not None]

    def _failed(self, stream: SpeechStream, error: SpeechError) -> StreamEvent:
        self.close(stream.stream_id)
        return failed(stream.stream_id, error)


def load_engine(directory: Path, config: EngineSettings) -> StreamingEngine:
    """The streaming engine of a checkpoint directory. Raises CheckpointError, naming everything that is wrong."""
    try:
        return StreamingEngine(load_checkpoint(directory), config)
    except CheckpointFault as fault:
        raise CheckpointError(str(fault)) from fault
