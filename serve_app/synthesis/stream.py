"""One utterance on its way through the engine, and what the engine reports of it."""

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from serve_app.errors import SpeechError
from serve_app.messages import SAMPLE_RATE_HZ, Float32Array, PreparedUtterance, VoicePrompt
from serve_app.model.flow import FlowState
from serve_app.model.vocoder import VocoderState
from serve_app.synthesis.caution import Promise
from serve_app.synthesis.interleave import Interleave
from serve_app.synthesis.leading_silence import LeadingSilence
from serve_app.synthesis.mel_stretch import StretchState
from serve_app.synthesis.scheduler import Progress


@dataclass(frozen=True, slots=True, eq=False)
class StreamEvent:
    """Something happened to a stream.

    samples: float32 [S], S >= 0, the next samples.
    num_speech_tokens: tokens generated since the stream's previous event.
    generated: the language model is done with this utterance, so the next one of the request may be opened.
    finished: no event will follow; set together with `error` when the stream failed.
    """

    stream_id: int
    samples: Float32Array
    num_speech_tokens: int
    generated: bool
    finished: bool
    error: SpeechError | None = None


def silence(seconds: float) -> Float32Array:
    """Exact zeros, float32 [S]."""
    return np.zeros(round(seconds * SAMPLE_RATE_HZ), np.float32)


def failed(stream_id: int, error: SpeechError) -> StreamEvent:
    """The last event of a stream that failed."""
    return StreamEvent(stream_id, silence(0), 0, generated=True, finished=True, error=error)


@dataclass(slots=True, eq=False)
class SpeechStream:
    """State of one utterance, from `Engine.open` to `Engine.close`.

    min_tokens: stop tokens are masked before this many speech tokens.
    max_tokens: generation ends here at the latest, as if the model had ended it: the listener gets all of it.
    interleave: the text of a fed utterance; None when the text is known whole.
    slot: the language model's cache slot; None after the last token.
    position: entries of that slot already written.
    unread: [S, hidden], what the language model reads before it draws its next token; None while it decodes.
    reading_s: seconds spent on reading the prompt so far; None once it is read.
    unread_speech: the newest speech token where it waits to be read together with fed text, else empty.
    outputs: everything drawn so far, fill tokens included and the stop token excluded.
    tokens: the speech tokens of it.
    stuck_from: how many of the tokens are speech, when the model is stuck and what follows is none.
    started_s: clock time at which the model began to read; None before.
    retried: it was stuck before, and draws from another seed since.
    fault: why the stream must end now.
    prompt_ids: int64 [P], the voice's speech tokens that the flow starts with.
    prefix: the flow's state behind the voice's prefix, held from when the stream is opened until it begins; None where
        the voice was unknown, or memory is not shared.
    flow, stretch, vocoder: rendering state, None before the prompt is read.
    held: a first sound that waits, so that what follows comes in time; else empty.
    promise: when the chunk after the first sound was forecast, from that sound on until the chunk is there.
    leading_silence: what is left out before the first sound; None where nothing is.
    num_reported_tokens: how many of `tokens` events have accounted for.
    """

    voice: VoicePrompt
    utterance: PreparedUtterance
    seed: int
    speed: float
    progress: Progress
    min_tokens: int
    max_tokens: int
    interleave: Interleave | None = None
    slot: int | None = None
    position: int = 0
    unread: Tensor | None = None
    reading_s: float | None = 0.0
    unread_speech: tuple[int, ...] = ()
    outputs: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    stuck_from: int | None = None
    started_s: float | None = None
    retried: bool = False
    fault: SpeechError | None = None
    prompt_ids: Tensor | None = None
    prefix: FlowState | None = None
    flow: FlowState | None = None
    stretch: StretchState | None = None
    vocoder: VocoderState | None = None
    held: Float32Array = field(default_factory=lambda: silence(0))
    promise: Promise | None = None
    leading_silence: LeadingSilence | None = None
    num_reported_tokens: int = 0

    @property
    def stream_id(self) -> int:
        return self.progress.stream_id

    def take_unreported_tokens(self) -> int:
        new = len(self.tokens) - self.num_reported_tokens
        self.num_reported_tokens = len(self.tokens)
        return new

    def take_held(self, samples: Float32Array) -> Float32Array:
        """These samples, and before them those that were held back."""
        if len(self.held):
            samples, self.held = np.concatenate((self.held, samples)), silence(0)
        return samples
