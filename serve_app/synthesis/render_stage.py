"""Speech tokens to samples for a batch of streams: gather, forward, scatter."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from serve_app.messages import Float32Array, VoicePrompt
from serve_app.model.flow import Flow, FlowState
from serve_app.model.vocoder import Vocoder, VocoderState
from serve_app.synthesis.stream import SpeechStream


class FlowPrefixCache:
    """The flow's state after a voice's prompt, computed once per voice and copied for each stream; LRU by bytes."""

    def __init__(self, flow: Flow, max_bytes: int) -> None:
        self._flow = flow
        self._max_bytes = max_bytes
        self._states: OrderedDict[str, FlowState] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def open(self, voice: VoicePrompt) -> FlowState:
        """A state of its own for one stream, positioned after the voice's whole prompt chunks."""
        known = self._states.get(voice.key)
        if known is not None:
            self._states.move_to_end(voice.key)
            self.hits += 1
            return known.clone()
        self.misses += 1
        prefix = self._flow.open(
            torch.from_numpy(voice.speaker), speech_ids(voice), torch.from_numpy(np.ascontiguousarray(voice.mel))
        )
        if prefix.num_bytes > self._max_bytes:
            return prefix
        self._states[voice.key] = prefix
        while self.num_bytes > self._max_bytes:
            self._states.popitem(last=False)
        return prefix.clone()

    @property
    def num_bytes(self) -> int:
        return sum(state.num_bytes for state in self._states.values())


class RenderStage:
    """Renders one chunk of a stream at a time: flow, then vocoder."""

    def __init__(self, flow: Flow, vocoder: Vocoder, prefixes: FlowPrefixCache) -> None:
        self._flow = flow
        self._vocoder = vocoder
        self._prefixes = prefixes
        self._chunk_tokens = flow.dims.chunk_tokens
        self._window_tokens = flow.dims.chunk_tokens + flow.dims.lookahead
        self._mel_ratio = flow.dims.token_mel_ratio

    def open(self, stream: SpeechStream) -> None:
        stream.prompt_ids = speech_ids(stream.voice)
        stream.flow = self._prefixes.open(stream.voice)
        stream.vocoder = self._vocoder.open(stream.seed)
        self.count(stream)

    def count(self, stream: SpeechStream) -> None:
        """Updates how many tokens are missing before the stream's next chunk can be rendered."""
        assert stream.prompt_ids is not None and stream.flow is not None
        available = len(stream.prompt_ids) + len(stream.tokens) - stream.flow.num_tokens
        stream.progress.tokens_needed = self._window_tokens - available

    def render(self, streams: Sequence[SpeechStream]) -> list[tuple[Float32Array, bool]]:
        """The next samples of each stream, float32 [S], S >= 0, and whether they are its last."""
        states, windows, starts = [], [], []
        for stream in streams:
            assert stream.prompt_ids is not None and stream.flow is not None
            start = stream.flow.num_tokens
            ids = torch.cat((stream.prompt_ids, torch.tensor(stream.tokens, dtype=torch.int64)))
            states.append(stream.flow)
            starts.append(start)
            windows.append(ids[start : start + self._window_tokens])
        mels = self._flow.render(states, windows)

        vocoders: list[VocoderState] = []
        voiced: list[Tensor] = []
        last: list[bool] = []
        for stream, start, mel in zip(streams, starts, mels, strict=True):
            assert stream.prompt_ids is not None and stream.flow is not None and stream.vocoder is not None
            vocoders.append(stream.vocoder)
            num_prompt_frames = self._mel_ratio * (len(stream.prompt_ids) - start)
            voiced.append(mel[max(0, num_prompt_frames) :])
            done = stream.flow.num_tokens >= len(stream.prompt_ids) + len(stream.tokens)
            last.append(stream.progress.generated and done)
            self.count(stream)
        samples = self._vocoder.render(vocoders, voiced, last)
        return [(part.numpy(), final) for part, final in zip(samples, last, strict=True)]


def speech_ids(voice: VoicePrompt) -> Tensor:
    """int64 [P], the prompt tokens that the flow starts with."""
    return torch.from_numpy(voice.speech_ids.astype(np.int64))
