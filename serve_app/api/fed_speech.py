"""Speech of text that is still arriving, as one stream of one format."""

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from dataclasses import replace

import numpy as np

from serve_app.api.audio_stream import Usage, spoken_samples
from serve_app.api.encoders import Encoder
from serve_app.api.schema import clean_text, is_speakable
from serve_app.api.service import SpeechService
from serve_app.messages import SpeechRequest


async def fed_parts(
    service: SpeechService,
    request: SpeechRequest,
    pieces: AsyncIterable[str],
    encoder: Encoder,
    usage: Usage,
    gain: float = 1.0,
) -> AsyncGenerator[bytes, None]:
    """The parts of one file that says all pieces in order; nothing at all if none of them can be spoken.

    request: all but the text. gain: factor on the samples; encoders saturate what gets too loud.
    Errors: those of the service, for any piece.
    """
    begun = False
    async for piece in pieces:
        text = clean_text(piece)
        if not is_speakable(text):
            continue
        prepared = await service.prepare(replace(request, text=text))
        async with aclosing(spoken_samples(service, prepared, usage)) as spoken:
            async for samples in spoken:
                if not begun:
                    begun = True
                    yield encoder.begin()
                yield encoder.encode(samples * np.float32(gain))
    if begun:
        yield encoder.flush()
