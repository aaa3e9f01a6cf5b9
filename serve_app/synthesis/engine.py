"""The engine: many utterances at once through the language model, the flow and the vocoder.

Synchronous and single-threaded: one thread calls everything here (`engine_thread.py`).
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from serve_app.config import LiveSynthesisConfig, SynthesisConfig
from serve_app.errors import CheckpointError, GenerationFailed, InputTooLong, Overloaded, SpeechError
from serve_app.messages import SAMPLE_RATE_HZ, Float32Array, Int32Array, PreparedSpeech, PreparedUtterance
from serve_app.model.checkpoint import Checkpoint, CheckpointFault, load_checkpoint
from serve_app.synthesis.capacity import DEFAULT_MAX_LOAD, Capacity, MemoryBudget, StepCosts
from serve_app.synthesis.cuda_graphs import Graphs
from serve_app.synthesis.guards import LengthRule
from serve_app.synthesis.interleave import Interleave
from serve_app.synthesis.language_stage import LanguageStage
from serve_app.synthesis.leading_silence import LeadingSilence
from serve_app.synthesis.networks import Networks
from serve_app.synthesis.render_stage import FlowPrefixCache, RenderStage
from serve_app.synthesis.sampling import Sampler, utterance_seed
from serve_app.synthesis.scheduler import Batch, Limits, Playback, Progress, Scheduler, Work
from serve_app.synthesis.stream import SpeechStream, StreamEvent, failed, silence

MAX_FAILED_BATCHES = 3
"""So many in a row, without one that succeeds between them: then not a stream is at fault but the engine."""

log = logging.getLogger(__name__)


class Engine(Protocol):
    """What a replica needs of an engine. Ours is `StreamingEngine`; `reference.py` holds the yardstick."""

    def open(self, stream_id: int, speech: PreparedSpeech, index: int, playback: Playback) -> None:
        """Starts utterance number `index` of a request.

        playback: of the listener, shared by all utterances of the request. Raises Overloaded, InputTooLong or
        InvalidRequest; then nothing is held.
        """
        ...

    def feed(self, stream_id: int, text_ids: Int32Array) -> None:
        """More text of an utterance that was opened with `PreparedSpeech.fed`: int32 [T], T >= 0.

        Ignored when the stream is gone, was not opened as fed, or its end was declared: its owner learns of a stream
        that failed from its event. Text that outgrows the model ends this stream with InputTooLong.
        """
        ...

    def end(self, stream_id: int) -> None:
        """Declares that no text will follow for a fed utterance. Idempotent; ignored when the stream is gone."""
        ...

    def close(self, stream_id: int) -> None:
        """Frees all that a stream holds. Idempotent; an unknown id is ignored."""
        ...

    def step(self) -> list[StreamEvent]:
        """Runs one batch and reports what it made; [] when it made no sound or no stream can go on."""
        ...

    def check(self) -> None:
        """Raises AssertionError unless free and used resources add up to what there is."""
        ...

    def num_spare(self) -> int:
        """Listeners that could still be taken without making others run dry."""
        ...

    def prefix_counts(self) -> tuple[int, int]:
        """How many utterances found their voice's flow prefix, and for how many it had to be computed."""
        ...

    def adjust(self, settings: LiveSynthesisConfig) -> None:
        """Other settings from the next step on; open streams go on."""
        ...

    def wait_s(self) -> float | None:
        """Seconds until `step` has something to do: 0 for now, None when nothing can be done before a stream is opened,
        fed or ended."""
        ...


class StreamingEngine:
    """Continuous batching over slots, chunk-cached flow, streaming vocoder."""

    def __init__(
        self, checkpoint: Checkpoint, config: SynthesisConfig, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """clock: seconds; an argument so that tests and simulations can own time."""
        dims = checkpoint.dims
        self._clock = clock
        self._config = config
        # Each request holds one utterance that plays and at most one that is generated ahead of it.
        self._num_slots = 2 * config.max_streams
        networks = Networks.load(checkpoint, config, self._num_slots)
        self._lengths = LengthRule(config.min_token_text_ratio, config.max_token_text_ratio)
        self._language = LanguageStage(
            networks.language_model, networks.cache, Sampler(dims.sampling), self._lengths, networks.graphs
        )
        self._language_dims = dims.language_model
        self._lookahead_tokens = dims.flow.lookahead
        self.prefixes = FlowPrefixCache(networks.flow, config.flow_cache_mib * 2**20, config.first_hop_tokens)
        self._render = RenderStage(networks.flow, networks.vocoder, self.prefixes, config.first_lookahead_frames)
        self._memory = MemoryBudget(networks.stream_bytes)
        self.costs = StepCosts()
        self.adjust(config)
        self._streams: dict[int, SpeechStream] = {}
        self._num_failed_batches = 0
        if networks.graphs is not None and networks.graphs.can_capture:
            self._capture(networks.graphs)

    def adjust(self, settings: LiveSynthesisConfig) -> None:
        self._live = settings
        limits = Limits(
            prefill_chunk=self._config.prefill_chunk, render=self._config.render_batch, max_lead_s=settings.max_lead_s
        )
        self._scheduler = Scheduler(limits)
        self._capacity = Capacity(self.costs, limits, settings.max_load or DEFAULT_MAX_LOAD)

    def wait_s(self) -> float | None:
        now_s = self._clock()
        waits = [max(0.0, stream.held_until_s - now_s) for stream in self._streams.values() if len(stream.held)]
        scheduled_s = self._scheduler.wait_s(self._progress(), now_s)
        return min(waits if scheduled_s is None else [*waits, scheduled_s], default=None)

    def num_spare(self) -> int:
        listeners = self.num_listeners
        return min(self._config.max_streams - listeners, self._capacity.spare(listeners))

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
        if not self._language.fits(stream):
            raise InputTooLong("the reference clip and one sentence of the text together are too long for the model")
        if self._language.num_free_slots == 0:
            raise Overloaded("every stream of this replica is taken")
        if index == 0 and self._live.max_load is not None and not self._capacity.admits(self.num_listeners):
            raise Overloaded("one more listener would make those that are playing run dry")
        num_tokens = len(speech.voice.speech_ids) + (self._config.max_positions if speech.fed else max_tokens)
        num_bytes = self._render.stream_bytes(num_tokens)
        if not self._memory.fits_alone(num_bytes):
            raise InputTooLong("the reference clip and one sentence of the text together need too much memory")
        if not self._memory.take(stream_id, num_bytes):
            raise Overloaded("the memory of this replica is taken")
        self._language.open(stream)
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
            self._language.close(stream)
            self._render.close(stream)
            self._memory.give_back(stream_id)

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
        assert self._memory.held.keys() == self._streams.keys(), "reserved memory leaked"
        self._render.check(self._streams.values())

    @torch.inference_mode()
    def step(self) -> list[StreamEvent]:
        started_s = self._clock()
        due = [stream for stream in self._streams.values() if len(stream.held) and stream.held_until_s <= started_s]
        released = [self._event(stream, stream.take_held(silence(0))) for stream in due]
        batch = self._scheduler.next_batch(self._progress(), started_s)
        if batch is None:
            return released
        streams = [self._streams[stream_id] for stream_id in batch.stream_ids]
        introducing = batch.work is Work.RENDER and all(map(self._introduces, streams))
        try:
            events = self._run(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, streams that took no part must go on
            return released + self._give_up(batch, error)
        self._num_failed_batches = 0
        self._observe(Work.PREFILL if introducing else batch.work, streams, self._clock() - started_s)
        return released + events

    def _introduces(self, stream: SpeechStream) -> bool:
        """Whether the next chunk is part of the flow's prefix of an unknown voice."""
        return stream.flow is not None and self._render.in_prefix(stream)

    def _observe(self, work: Work, streams: Sequence[SpeechStream], elapsed_s: float) -> None:
        """Notes what a step cost; for prompts, which are taken in piece by piece by model and flow, what the whole did.

        work: PREFILL for both.
        """
        if work is not Work.PREFILL:
            self.costs.observe(work, len(streams), elapsed_s)
            return
        for stream in streams:
            if stream.reading_s is None:
                continue  # fed text: a few positions
            stream.reading_s += elapsed_s / len(streams)
            if stream.outputs and not self._introduces(stream):
                self.costs.observe(work, 1, stream.reading_s)
                stream.reading_s = None

    def _give_up(self, batch: Batch, error: Exception) -> list[StreamEvent]:
        """Ends the streams of a batch that failed. Raises the error again when the engine itself is at fault."""
        self._num_failed_batches += 1
        if self._num_failed_batches >= MAX_FAILED_BATCHES:
            raise error
        log.error("a %s batch of %d failed", batch.work.value, len(batch.stream_ids), exc_info=error)
        answer: SpeechError = GenerationFailed("the engine failed on this request")
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            self.prefixes.clear()
            torch.cuda.empty_cache()
            answer = Overloaded("the device has no memory left for this request")
        for stream_id in batch.stream_ids:
            self.close(stream_id)
        return [failed(stream_id, answer) for stream_id in batch.stream_ids]

    def _run(self, batch: Batch) -> list[StreamEvent]:
        streams = [self._streams[stream_id] for stream_id in batch.stream_ids]
        if batch.work is Work.RENDER:
            return self._rendered(streams)
        events = []
        if batch.work is Work.PREFILL:
            for stream in streams:
                if stream.flow is None:
                    stream.started_s = self._clock()
                    self._render.open(stream)
                    # A pause goes out at once, so that it is in hand while the sound after it is made.
                    events.append(self._event(stream, silence(stream.utterance.pause_before_s)))
                self._language.prefill(stream, batch.positions)
        else:
            self._language.decode(streams)
        for stream in streams:
            if stream.stuck_from is not None and not stream.progress.generated:
                self._unstick(stream)
            if stream.fault is not None:
                events.append(self._failed(stream, stream.fault))
                continue
            self._render.count(stream)
            if stream.progress.generated:
                events.append(self._event(stream, silence(0)))
        return events

    def _unstick(self, stream: SpeechStream) -> None:
        """One more try from another seed, if nobody has heard any of what was no speech and it is not too late.

        Where it goes on depends on the tokens alone, so that a request repeats itself if it succeeds.
        """
        assert stream.stuck_from is not None and stream.flow is not None and stream.prompt_ids is not None
        assert stream.started_s is not None
        num_rendered = stream.flow.num_tokens + self._lookahead_tokens - len(stream.prompt_ids)
        in_time = self._clock() - stream.started_s <= self._config.retry_s
        unheard = stream.interleave is None and num_rendered <= stream.stuck_from
        if in_time and unheard and not stream.retried:
            self._language.retry(stream)
        else:
            stream.fault = GenerationFailed("the model got stuck on this text and said no more of it")

    def _rendered(self, streams: Sequence[SpeechStream]) -> list[StreamEvent]:
        events = []
        for stream in streams:
            if stream.progress.generated and not stream.tokens:  # no text came, or the model ended at once
                events.append(self._event(stream, silence(0), finished=True))
                self.close(stream.stream_id)
        able = [stream for stream in streams if stream.stream_id in self._streams]
        if not able:
            return events
        for stream, (rendered, last) in zip(able, self._render.render(able), strict=True):
            if not np.isfinite(rendered).all():
                events.append(self._failed(stream, GenerationFailed("the model produced no valid sound")))
                continue
            trim = stream.leading_silence
            samples = rendered if trim is None else trim.trim(rendered, last=last)
            if not last and self._holds(stream, samples):
                continue
            events.append(self._event(stream, samples, finished=last))
            if last:
                self.close(stream.stream_id)
        return events

    def _holds(self, stream: SpeechStream, samples: Float32Array) -> bool:
        """Holds a first sound back that would be played before the next chunk is there."""
        progress = stream.progress
        if not self._config.hold_first_sound or progress.playback.started_at_s is not None:
            return False
        if len(stream.held) or not len(samples) or progress.waiting:
            return False
        hold_s = self._capacity.hold_s(self.num_listeners, progress.tokens_needed, len(samples) / SAMPLE_RATE_HZ)
        if hold_s > 0:
            stream.held, stream.held_until_s = samples, self._clock() + hold_s
        return hold_s > 0

    def _failed(self, stream: SpeechStream, error: SpeechError) -> StreamEvent:
        self.close(stream.stream_id)
        return failed(stream.stream_id, error)

    def _event(self, stream: SpeechStream, samples: Float32Array, *, finished: bool = False) -> StreamEvent:
        """Reports new samples, and counts them as in the listener's hand."""
        if len(samples) or finished:
            samples = stream.take_held(samples)
        if len(samples):
            stream.progress.playback.deliver(len(samples) / SAMPLE_RATE_HZ, self._clock())
        new_tokens = stream.take_unreported_tokens() if len(samples) or finished else 0
        return StreamEvent(stream.stream_id, samples, new_tokens, stream.progress.generated, finished)


def load_engine(directory: Path, config: SynthesisConfig) -> StreamingEngine:
    """The streaming engine of a checkpoint directory. Raises CheckpointError, naming everything that is wrong."""
    try:
        return StreamingEngine(load_checkpoint(directory), config)
    except CheckpointFault as fault:
        raise CheckpointError(str(fault)) from fault
