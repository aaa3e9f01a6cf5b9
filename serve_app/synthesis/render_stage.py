"""Speech tokens to samples for a batch of streams: gather, forward, scatter."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from serve_app.messages import Float32Array, VoicePrompt
from serve_app.model.fixed_windows import FixedWindows
from serve_app.model.flow import Flow, FlowState
from serve_app.model.paged_chunks import PagedChunks, PagedKept
from serve_app.model.vocoder import Vocoder, VocoderState
from serve_app.synthesis.mel_stretch import StretchState, stretch
from serve_app.synthesis.sample_copy import Arriving, StartCopy, send, start_copy
from serve_app.synthesis.stage_stream import StageStream, stage_stream
from serve_app.synthesis.stream import SpeechStream

MIN_PROMPT_TOKENS = 50
"""A prompt is not cut below two seconds: the voice would suffer."""


FIRST_SOUND_TOKENS = 4
"""Of a first sound, 160 ms: about the time in which a busy engine makes the next one."""


def first_hop_tokens(vocoder: Vocoder, token_mel_ratio: int, lookahead_frames: int | None) -> int:
    """The shortest first hop that brings a sound: what the vocoder holds back, and the sound.

    lookahead_frames: held back at the first output, if not as many as usual.
    """
    held_back = vocoder.lookahead_frames if lookahead_frames is None else lookahead_frames
    return -(-held_back // token_mel_ratio) + FIRST_SOUND_TOKENS


def cut_tokens(num_tokens: int, chunk_tokens: int, first_hop_tokens: int) -> int:
    """How many tokens to drop from the start of a prompt so that its end lies `first_hop_tokens` before a chunk border.

    The first chunk can be rendered as soon as the chunk that the prompt's end lies in is full, so this many new tokens
    are all that the first sound waits for. Only the flow's prompt is cut: the language model reads the whole clip.
    """
    cut = (num_tokens + first_hop_tokens) % chunk_tokens
    return cut if num_tokens - cut >= MIN_PROMPT_TOKENS else 0


class FlowPrefixCache:
    """The flow's state after a voice's prompt, computed once per voice and copied for each stream; LRU by bytes.

    A stream of an unknown voice computes it chunk by chunk, as it will render its speech, and leaves a copy here.
    """

    def __init__(self, flow: Flow, max_bytes: int, first_hop_tokens: int) -> None:
        self._flow = flow
        self.max_bytes = max_bytes
        self.first_hop_tokens = first_hop_tokens
        self._states: OrderedDict[str, FlowState] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def hold(self, voice: VoicePrompt) -> FlowState | None:
        """The state of a stream that begins behind the voice's prefix, if the voice is known; to be closed, or given
        to `open`. Holding it, the stream need not fear that the voice is forgotten until then."""
        known = self._states.get(voice.key)
        if known is None:
            return None
        self._states.move_to_end(voice.key)
        return known.clone()

    def num_prompt_tokens(self, voice: VoicePrompt) -> int:
        """Of the prompt as the flow gets it."""
        return len(voice.speech_ids) - self._cut(voice)

    def _cut(self, voice: VoicePrompt) -> int:
        return cut_tokens(len(voice.speech_ids), self._flow.dims.chunk_tokens, self.first_hop_tokens)

    def open(self, voice: VoicePrompt, held: FlowState | None = None) -> tuple[FlowState, Tensor]:
        """A state of its own for one stream, and the prompt's ids, int64 [P].

        It is behind the voice's whole prompt chunks if the voice is known, else at the prompt's start.
        held: what `hold` gave this stream; it is the stream's state then.
        """
        dims, cut = self._flow.dims, self._cut(voice)
        prompt_ids = torch.from_numpy(voice.speech_ids[cut:].astype(np.int64))
        known = held or self.hold(voice)
        if known is not None:
            self.hits += 1
            return known, prompt_ids
        self.misses += 1
        mel = np.ascontiguousarray(voice.mel[dims.token_mel_ratio * cut :])
        device = self._flow.noise.device
        speaker, mel_there = send(torch.from_numpy(voice.speaker), device), send(torch.from_numpy(mel), device)
        state = self._flow.begin(speaker, prompt_ids, mel_there)
        if not self._flow.num_prefix_tokens(len(prompt_ids)):
            self.keep(voice, state)  # too short for a chunk of its own
        return state, prompt_ids

    def keep(self, voice: VoicePrompt, prefix: FlowState) -> None:
        """Remembers a voice by a copy of a stream's state right behind its prefix."""
        if voice.key in self._states or prefix.num_bytes > self.max_bytes:
            return
        self._states[voice.key] = prefix.clone(grows=False)
        while self.num_bytes > self.max_bytes:
            self._states.popitem(last=False)[1].close()

    def clear(self) -> None:
        """Forgets every voice, and so gives back the memory."""
        for state in self._states.values():
            state.close()
        self._states.clear()
        self._flow.chunks.trim()

    @property
    def states(self) -> Iterable[FlowState]:
        return self._states.values()

    @property
    def num_bytes(self) -> int:
        return sum(state.num_bytes for state in self._states.values())


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """The next samples of each stream of a batch, which the device may still be at.

    sizes: of each. last: whether these are its last. arriving: all of them, one behind the other.
    """

    sizes: Sequence[int]
    last: Sequence[bool]
    arriving: Arriving

    def is_there(self) -> bool:
        return self.arriving.is_there()

    def __call__(self) -> list[tuple[Float32Array, bool]]:
        """Of each stream float32 [S], S >= 0, and whether they are its last. Waits for the device; raises what it
        says went wrong."""
        parts = torch.split(self.arriving(), list(self.sizes))
        return [(part.numpy(), last) for part, last in zip(parts, self.last, strict=True)]


class RenderStage:
    """Renders one chunk of a stream at a time: flow, then vocoder. On a GPU beside the language model, which gives it
    tokens through the host, and nothing else."""

    def __init__(
        self,
        flow: Flow,
        vocoder: Vocoder,
        prefixes: FlowPrefixCache,
        first_lookahead_frames: int | None = None,
        on_stream: StageStream | None = None,
        copy: StartCopy = start_copy,
    ) -> None:
        """on_stream: where all of this runs; None: as `stage_stream` says. copy: brings samples to the host."""
        self._on_stream = on_stream or stage_stream(flow.noise.device)
        self._first_lookahead_frames = first_lookahead_frames
        self._flow = flow
        self._vocoder = vocoder
        self._prefixes = prefixes
        self._chunk_tokens = flow.dims.chunk_tokens
        self._window_tokens = flow.dims.chunk_tokens + flow.dims.lookahead
        self._mel_ratio = flow.dims.token_mel_ratio
        self._copy = copy

    def open(self, stream: SpeechStream) -> None:
        with self._on_stream():
            held, stream.prefix = stream.prefix, None
            stream.flow, stream.prompt_ids = self._prefixes.open(stream.voice, held)
            stream.vocoder = self._vocoder.open(stream.seed, first_lookahead_frames=self._first_lookahead_frames)
        stream.stretch = StretchState(stream.speed)
        self.count(stream)

    def close(self, stream: SpeechStream) -> None:
        """Frees what the flow keeps of it; idempotent."""
        for state in (stream.prefix, stream.flow):
            if state is not None:
                state.close()

    def check(self, streams: Iterable[SpeechStream]) -> None:
        """Raises AssertionError unless every page of the flow is free or somebody's."""
        if isinstance(self._flow.chunks, PagedChunks):
            states = [*self._prefixes.states, *(state for stream in streams for state in (stream.prefix, stream.flow))]
            kept = [state.kept for state in states if state is not None]
            used = {page for past in kept if isinstance(past, PagedKept) for page in past.pages}
            pool = self._flow.chunks.pool
            assert pool.num_free + len(used) == pool.num_pages, "a page of the flow leaked"

    def rehearse(self, max_streams: int, max_tokens: int) -> None:
        """Calls every bucket once where shapes are fixed: warm-up."""
        with self._on_stream():
            if isinstance(self._flow.chunks, PagedChunks):
                self._flow.chunks.rehearse(max_streams, -(-max_tokens // self._chunk_tokens))
            if isinstance(self._vocoder.windows, FixedWindows):
                self._vocoder.windows.rehearse(max_streams)

    def count(self, stream: SpeechStream) -> None:
        """Updates how many tokens are missing before the stream's next chunk can be rendered."""
        assert stream.prompt_ids is not None and stream.flow is not None
        available = len(stream.prompt_ids) + len(stream.tokens) - stream.flow.num_tokens
        stream.progress.tokens_needed = self._window_tokens - available

    def in_prefix(self, stream: SpeechStream) -> bool:
        """Whether the next chunk is one of the voice's prompt alone, in which nothing is said."""
        assert stream.prompt_ids is not None and stream.flow is not None
        return stream.flow.num_tokens < self._flow.num_prefix_tokens(len(stream.prompt_ids))

    def render(self, streams: Sequence[SpeechStream]) -> Rendered:
        """Asks the device for the next chunk of each stream, and does not wait for it.

        The streams count as rendered from here on: the device does things in the order in which it was asked, so the
        next chunk may be asked for at once. A chunk of a voice's prompt has no samples; the last of these makes the
        voice known.
        """
        with self._on_stream():
            return self._render_chunks(streams)

    def _render_chunks(self, streams: Sequence[SpeechStream]) -> Rendered:
        introducing = [stream for stream in streams if self.in_prefix(stream)]
        states, windows, starts = [], [], []
        for stream in streams:
            assert stream.prompt_ids is not None and stream.flow is not None
            start = stream.flow.num_tokens
            ids = torch.cat((stream.prompt_ids, torch.tensor(stream.tokens, dtype=torch.int64)))
            states.append(stream.flow)
            starts.append(start)
            windows.append(ids[start : start + self._window_tokens])
        mels = self._flow.render(states, windows)
        for stream in introducing:
            if stream.flow is not None and not self.in_prefix(stream):
                self._prefixes.keep(stream.voice, stream.flow)

        vocoders: list[VocoderState] = []
        voiced: list[Tensor] = []
        last: list[bool] = []
        for stream, start, mel in zip(streams, starts, mels, strict=True):
            assert stream.prompt_ids is not None and stream.flow is not None
            assert stream.stretch is not None and stream.vocoder is not None
            vocoders.append(stream.vocoder)
            num_prompt_frames = self._mel_ratio * (len(stream.prompt_ids) - start)
            done = stream.flow.num_tokens >= len(stream.prompt_ids) + len(stream.tokens)
            last.append(stream.progress.generated and done)
            voiced.append(stretch(mel[max(0, num_prompt_frames) :], stream.stretch, final=last[-1]))
            self.count(stream)
        samples = self._vocoder.render(vocoders, voiced, last)
        return Rendered([len(part) for part in samples], last, self._copy(torch.cat(samples)))
