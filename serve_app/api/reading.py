"""`POST /v1/audio/speech/reading`: what would be said for a text, before anything is spoken."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, Strict
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from serve_app.api.body import read_body
from serve_app.api.schema import parse_json, speakable
from serve_app.api.service import SpeechService
from serve_app.api.speech import check_content_type
from serve_app.config import ApiConfig
from serve_app.messages import Reading


class ReadingBody(BaseModel):
    """The fields of a request for speech that decide how its text is read; the others are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    input: Annotated[str, Strict()] = Field(description="The text that would be spoken.")
    normalize: Annotated[bool, Strict()] | None = Field(
        default=None, description="Put figures and signs into words, drop Markdown; true if absent."
    )


class ReadingEndpoint:
    """The ASGI app of the route."""

    def __init__(self, service: SpeechService, config: ApiConfig) -> None:
        self.service = service
        self.config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Errors: `ApiError` (400, 408, 413, 415), `EmptyInput`, `InputTooLong`."""
        check_content_type(scope)
        raw = await read_body(scope, receive, self.config.max_body_bytes, self.config.body_timeout_s)
        body = parse_json(ReadingBody, raw)
        text = speakable(body.input, self.config)
        reading = await self.service.reading(text, body.normalize is not False)
        await JSONResponse(reading_object(reading))(scope, receive, send)


def reading_object(reading: Reading) -> dict[str, Any]:
    """The reading as clients see it; `spoken` of the parts, joined, is `spoken` of their piece."""
    pieces = []
    for piece in reading.pieces:
        parts = [
            {"text_start": part.text_start, "text_end": part.text_end, "written": part.written, "spoken": part.spoken}
            for part in piece.parts
        ]
        place = {
            "text_start": min(part.text_start for part in piece.parts),
            "text_end": max(part.text_end for part in piece.parts),
        }
        spoken = "".join(part.spoken for part in piece.parts)
        pieces.append({**place, "spoken": spoken, "pause_before_s": piece.pause_before_s, "parts": parts})
    return {
        "object": "speech.reading",
        "pieces": pieces,
        "pause_after_s": reading.pause_after_s,
        "warnings": list(reading.warnings),
    }
