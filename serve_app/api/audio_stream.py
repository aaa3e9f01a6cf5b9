"""From a prepared request to encoded bytes: what every endpoint that speaks has in common."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from serve_app.api.encoders import Encoder
from serve_app.api.service import SpeechService
from serve_app.api.timings import Timeline
from serve_app.errors import GenerationFailed
from serve_app.messages import AudioChunk, Float32Array, PreparedSpeech


@dataclass
class Usage:
    """Tokens of one answer: text in, speech out; and the seconds that the engine worked for its first sound."""

    input_tokens: int = 0
    output_tokens: int = 0
    first_work_s: float = 0.0

    def json(self) -> dict[str, int]:
        total = self.input_tokens + self.output_tokens
        return {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens, "total_tokens": total}


async def spoken_samples(
    service: SpeechService, prepared: PreparedSpeech, usage: Usage, timeline: Timeline | None = None
) -> AsyncGenerator[Float32Array, None]:
    """Chunks of float32 [S], S > 0, finite; at least one.

    timeline: of this request; it is told of every chunk before that is given out.
    Errors: `GenerationFailed`, and the service's own.
    """
    usage.input_tokens += sum(len(utterance.text_ids) for utterance in prepared.utterances)
    async with aclosing(samples_of(service.speak(prepared), usage, timeline)) as spoken:
        async for samples in spoken:
            yield samples
    if timeline is not None:
        timeline.end()


async def samples_of(
    chunks: AsyncGenerator[AudioChunk, None], usage: Usage, timeline: Timeline | None = None
) -> AsyncGenerator[Float32Array, None]:
    """What `spoken_samples` gives, of any source of chunks, which is closed with it."""
    silent = True
    async with aclosing(chunks):
        async for chunk in chunks:
            usage.output_tokens += chunk.num_speech_tokens
            usage.first_work_s = usage.first_work_s or chunk.work_s
            if not np.isfinite(chunk.samples).all():
                raise GenerationFailed("The model produced samples that are not finite.")
            if timeline is not None:
                timeline.add(chunk)
            if len(chunk.samples):
                silent = False
                yield chunk.samples
    if silent:
        raise GenerationFailed("The model produced no sound.")


async def encoded_parts(
    service: SpeechService,
    prepared: PreparedSpeech,
    encoder: Encoder,
    usage: Usage,
    timeline: Timeline | None = None,
) -> AsyncGenerator[bytes, None]:
    """The file in parts. The first part comes once the first samples exist; a part may be empty.

    Errors: those of `spoken_samples`; those before the first part are those that still can have a status.
    """
    async with aclosing(spoken_samples(service, prepared, usage, timeline)) as spoken:
        first = await anext(spoken)
        yield encoder.begin()  # a WAV header travels alone
        yield encoder.encode(first)
        async for samples in spoken:
            yield encoder.encode(samples)
    yield encoder.flush()
