"""`engine: reference`: upstream's networks driven the upstream way, behind the same seam as ours.

Yardstick for what streaming sounds like upstream, and baseline of benchmarks: one sequence at a time, the flow
recomputed from the prompt's first token for every chunk, the last chunk without the streaming mask, the vocoder
restarted at every chunk with its joins cross-faded (upstream `cosyvoice/cli/model.py`, `CosyVoice2Model`). Only its
bookkeeping is put right: all state belongs to one stream, so a hop that grew in one request does not delay the next,
and a stream's random numbers are its own.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from serve_app.errors import CheckpointError, GenerationFailed, InputTooLong, InvalidRequest, Overloaded
from serve_app.messages import SAMPLE_RATE_HZ, Int32Array, PreparedSpeech, PreparedUtterance, VoicePrompt
from serve_app.model.faults import CheckpointFault
from serve_app.synthesis.sampling import utterance_seed
from serve_app.synthesis.scheduler import Playback
from serve_app.synthesis.settings import EngineSettings, LiveSettings
from serve_app.synthesis.stream import StreamEvent, failed
from serve_app.synthesis.upstream import Upstream, load_upstream

_FIRST_HOP_TOKENS = 25
_LARGEST_HOP_TOKENS = 4 * _FIRST_HOP_TOKENS
_OVERLAP_FRAMES = 8
"""Frames that the vocoder computes twice, at the end of one chunk and the start of the next."""


@dataclass(frozen=True, slots=True, eq=False)
class _Overlap:
    """The end of a chunk, kept for the next: mel [1, 80, 8], source [1, 1, S] and samples [1, S]."""

    mel: Tensor
    source: Tensor
    samples: Tensor


@dataclass(slots=True, eq=False)
class _ReferenceStream:
    """State of one utterance.

    input: [1, S, hidden], what the language model reads next. cache: transformers' own; num_read: positions in it.
    offset: tokens already rendered. hop: tokens of the next chunk, the padding of the first one apart.
    """

    voice: VoicePrompt
    utterance: PreparedUtterance
    playback: Playback
    random_state: Tensor
    min_tokens: int
    max_tokens: int
    input: Tensor
    cache: Any = None
    num_read: int = 0
    tokens: list[int] = field(default_factory=list)
    generated: bool = False
    offset: int = 0
    hop: int = _FIRST_HOP_TOKENS
    overlap: _Overlap | None = None
    num_reported_tokens: int = 0

    @property
    def next_hop(self) -> int:
        """The first chunk also fills up the prompt to the grid of the streaming mask."""
        pad = -len(self.voice.speech_ids) % _FIRST_HOP_TOKENS
        return self.hop + (pad if self.offset == 0 else 0)


class ReferenceEngine:
    """One step is one token or one chunk of one stream; streams take turns."""

    def __init__(
        self, upstream: Upstream, config: EngineSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._upstream = upstream
        self._config = config
        self._clock = clock
        self._num_slots = 2 * config.max_streams
        self._lookahead = upstream.dims.flow.lookahead
        self._mel_ratio = upstream.dims.flow.token_mel_ratio
        self._overlap_samples = _OVERLAP_FRAMES * upstream.dims.vocoder.samples_per_frame
        self._window = torch.from_numpy(np.hamming(2 * self._overlap_samples))
        self._streams: dict[int, _ReferenceStream] = {}

    def num_spare(self) -> int:
        return self._config.max_streams - len(self._streams)

    def admits(self, num_listeners: int) -> bool:
        """Only `max_streams` refuses."""
        return True

    def prefix_counts(self) -> tuple[int, int]:
        """Upstream keeps none."""
        return 0, 0

    def adjust(self, settings: LiveSettings) -> None:
        """Upstream's way knows none of them."""

    def wait_s(self) -> float | None:
        return 0.0 if self._streams else None

    @torch.inference_mode()
    def open(
        self,
        stream_id: int,
        speech: PreparedSpeech,
        index: int,
        playback: Playback,
    ) -> None:
        """Raises InvalidRequest for another speed, which upstream refuses while streaming, and for text that is still
        to come, for which upstream needs a thread that blocks until it is there."""
        if speech.speed != 1.0:
            raise InvalidRequest("the reference engine cannot change the speed")
        if speech.fed:
            raise InvalidRequest("the reference engine speaks only text that is known whole")
        voice, utterance = speech.voice, speech.utterances[index]
        if len(self._streams) == self._num_slots:
            raise Overloaded("every stream of this replica is taken")
        model = self._upstream.language_model
        text = _ids(np.concatenate((utterance.prefix_ids, utterance.text_ids)))
        prefix = torch.cat(
            (
                model.llm_embedding.weight[model.sos_eos, None],
                model.llm.model.model.embed_tokens(text),
                model.llm_embedding.weight[model.task_id, None],
                model.speech_embedding(_ids(utterance.speech_prefix_ids)),
            )
        )
        num_text_tokens = len(utterance.text_ids)
        max_tokens = int(self._config.max_token_text_ratio * num_text_tokens)
        if len(prefix) + max_tokens > self._config.max_positions:
            raise InputTooLong("the reference clip and one sentence of the text together are too long for the model")
        self._streams[stream_id] = _ReferenceStream(
            voice,
            utterance,
            playback,
            random_state=torch.Generator().manual_seed(utterance_seed(speech.seed, index)).get_state(),
            min_tokens=int(self._config.min_token_text_ratio * num_text_tokens),
            max_tokens=max_tokens,
            input=prefix[None],
        )

    def feed(self, stream_id: int, text_ids: Int32Array) -> None:
        """Ignored: no stream is open that could be fed."""

    def end(self, stream_id: int) -> None:
        """Ignored, as `feed`."""

    def close(self, stream_id: int) -> None:
        self._streams.pop(stream_id, None)

    def check(self) -> None:
        """A stream is all that is ever held, so what can leak is one that nobody steps to its end."""
        assert len(self._streams) <= self._num_slots, "more streams than slots"

    @torch.inference_mode()
    def step(self) -> list[StreamEvent]:
        if not self._streams:
            return []
        stream_id = next(iter(self._streams))
        stream = self._streams.pop(stream_id)
        self._streams[stream_id] = stream  # to the end of the queue
        with _random(stream):
            if len(stream.tokens) - stream.offset >= stream.next_hop + self._lookahead:
                return [self._event(stream_id, stream, self._render(stream, last=False), last=False)]
            if stream.generated:
                del self._streams[stream_id]
                return [self._event(stream_id, stream, self._render(stream, last=True), last=True)]
            if self._generate(stream):
                return [StreamEvent(stream_id, np.zeros(0, np.float32), 0, generated=True, finished=False)]
        return []

    def _generate(self, stream: _ReferenceStream) -> bool:
        """One more token; True when the utterance has ended."""
        model = self._upstream.language_model
        # Upstream passes a mask of the new positions alone, with which transformers 5 hides the earlier ones.
        stream.num_read += stream.input.shape[1]
        mask = torch.ones(1, 1, stream.num_read, dtype=torch.bool)
        hidden, stream.cache = model.llm.forward_one_step(stream.input, mask, stream.cache)
        scores = model.llm_decoder(hidden[:, -1]).log_softmax(dim=-1)[0]
        too_early = len(stream.tokens) < stream.min_tokens
        try:
            token = int(model.sampling_ids(scores, stream.tokens, 25, ignore_eos=too_early))
        except RuntimeError:
            # A model that is sure it has ended draws the end a hundred times, and upstream gives up: drawn without it.
            scores[self._upstream.dims.language_model.speech_vocab :] = -torch.inf
            token = int(model.sampling_ids(scores, stream.tokens, 25, ignore_eos=False))
        if token >= self._upstream.dims.language_model.speech_vocab:
            stream.generated = True
        else:
            stream.tokens.append(token)
            stream.input = model.speech_embedding.weight[token][None, None]
            stream.generated = len(stream.tokens) >= stream.max_tokens
        return stream.generated

    def _render(self, stream: _ReferenceStream, *, last: bool) -> Tensor:
        """The next hop less the end that the next chunk will overlap, or all that is left -> samples [1, S]."""
        if not stream.tokens:
            return torch.zeros(1, 0)
        end = stream.offset + stream.next_hop
        mel = self._mel(stream, stream.tokens if last else stream.tokens[: end + self._lookahead], last)
        before = stream.overlap
        samples: Tensor
        if before is None:
            samples, source = self._upstream.vocoder.inference(speech_feat=mel)
        else:
            mel = torch.cat((before.mel, mel), dim=2)
            samples, source = self._upstream.vocoder.inference(speech_feat=mel, cache_source=before.source)
            rising, falling = self._window.chunk(2)
            faded = samples[:, : len(rising)] * rising + before.samples * falling
            samples = torch.cat((faded.float(), samples[:, len(rising) :]), dim=1)
        if last:
            return samples
        kept = self._overlap_samples
        stream.overlap = _Overlap(mel[:, :, -_OVERLAP_FRAMES:], source[:, :, -kept:], samples[:, -kept:])
        stream.offset = end
        stream.hop = min(_LARGEST_HOP_TOKENS, 2 * stream.hop)
        return samples[:, :-kept]

    def _mel(self, stream: _ReferenceStream, tokens: list[int], last: bool) -> Tensor:
        """The flow over prompt and all tokens, from the beginning -> [1, 80, frames not yet rendered]."""
        voice = stream.voice
        prompt = _ids(voice.speech_ids)
        mel, _ = self._upstream.flow.inference(
            token=torch.tensor([tokens]),
            token_len=torch.tensor([len(tokens)]),
            prompt_token=prompt[None],
            prompt_token_len=torch.tensor([len(prompt)]),
            prompt_feat=torch.from_numpy(voice.mel)[None],
            prompt_feat_len=torch.tensor([len(voice.mel)]),
            embedding=torch.from_numpy(voice.speaker)[None],
            streaming=not last,
            finalize=last,
        )
        new: Tensor = mel[:, :, stream.offset * self._mel_ratio :]
        return new

    def _event(self, stream_id: int, stream: _ReferenceStream, samples: Tensor, *, last: bool) -> StreamEvent:
        if not samples.isfinite().all():
            self.close(stream_id)
            return failed(stream_id, GenerationFailed("the model produced no valid sound"))
        if samples.numel():
            stream.playback.deliver(samples.shape[1] / SAMPLE_RATE_HZ, self._clock())
        new_tokens = len(stream.tokens) - stream.num_reported_tokens
        stream.num_reported_tokens = len(stream.tokens)
        return StreamEvent(stream_id, samples[0].numpy(), new_tokens, generated=stream.generated, finished=last)


def load_reference_engine(directory: Path, config: EngineSettings) -> ReferenceEngine:
    """Upstream's networks with a directory's weights.

    Raises CheckpointError when it cannot be loaded, ImportError without the extra `reference`.
    """
    try:
        return ReferenceEngine(load_upstream(directory), config)
    except (CheckpointFault, RuntimeError) as fault:
        raise CheckpointError(str(fault)) from fault


@contextmanager
def _random(stream: _ReferenceStream) -> Iterator[None]:
    """Upstream draws from torch's global generator; for a while that is this stream's own."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(stream.random_state)
        yield
        stream.random_state = torch.get_rng_state()


def _ids(array: np.ndarray[tuple[int], np.dtype[np.int32]]) -> Tensor:
    return torch.from_numpy(array.astype(np.int64))
