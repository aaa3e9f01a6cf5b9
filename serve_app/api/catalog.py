"""What can be asked for: health, models and voices."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from serve_app.api.access import voice_owner
from serve_app.api.error_table import HTTP_ROWS, INVALID_REQUEST, ApiError, ErrorRow
from serve_app.api.service import SpeechService
from serve_app.config import ApiConfig
from serve_app.errors import NotReady
from serve_app.messages import SAMPLE_RATE_HZ, VoiceInfo

MODEL_CREATED_AT = 1733875200
"""Unix seconds of CosyVoice2's publication (December 2024): a constant, because clients compare listings."""


class Catalog:
    """The read-only endpoints."""

    def __init__(self, service: SpeechService, config: ApiConfig) -> None:
        self.service = service
        self.config = config

    async def health(self, request: Request) -> Response:
        """Liveness: this process answers."""
        return PlainTextResponse("OK")

    async def ready(self, request: Request) -> Response:
        """Readiness: a warmed synthesis replica exists. Errors: `NotReady`."""
        if not await self.service.ready():
            raise NotReady("No synthesis replica is ready yet.")
        return JSONResponse({"ready": True})

    async def models(self, request: Request) -> Response:
        model = await self.model_object(self.config.model_name, voice_owner(request.scope))
        return JSONResponse({"object": "list", "data": [model]})

    async def model(self, request: Request) -> Response:
        """One model, by name or alias. Errors: `ApiError` 404."""
        name = request.path_params["model"]
        if name != self.config.model_name and name not in self.config.model_aliases:
            raise ApiError(ErrorRow(404, INVALID_REQUEST, "model_not_found", "model"), "That model is not served here.")
        return JSONResponse(await self.model_object(name, voice_owner(request.scope)))

    async def audio_models(self, request: Request) -> Response:
        name = self.config.model_name
        return JSONResponse({"models": [{"id": name, "name": name}]})

    async def voices(self, request: Request) -> Response:
        voices = [voice_object(voice) for voice in await self.service.voices(voice_owner(request.scope))]
        # both names for the list: clients look for either
        return JSONResponse({"object": "list", "voices": voices, "data": voices})

    async def voice(self, request: Request) -> Response:
        """One voice, by id or name; an id wins over a name. Errors: `ApiError` 404."""
        voices = await self.service.voices(voice_owner(request.scope))
        return JSONResponse(voice_object(find_voice(voices, request.path_params["voice"])))

    async def model_object(self, name: str, owner: str) -> dict[str, Any]:
        voices = [{"name": voice.name, "language": voice.language} for voice in await self.service.voices(owner)]
        return {
            "id": name,
            "object": "model",
            "created": MODEL_CREATED_AT,
            "owned_by": "cosyvoice-serve",
            "task": "text-to-speech",
            "sample_rate": SAMPLE_RATE_HZ,
            "voices": voices,
        }


def voice_object(voice: VoiceInfo) -> dict[str, Any]:
    """A voice as clients see it."""
    return {
        "id": voice.id,
        "name": voice.name,
        "object": "audio.voice",
        "type": "builtin" if voice.builtin else "audio_sample",
        "created_at": voice.created_at,
        "language": voice.language,
    }


def find_voice(voices: tuple[VoiceInfo, ...], wanted: str) -> VoiceInfo:
    """Errors: `ApiError` 404."""
    matches = [v for v in voices if v.id == wanted] or [v for v in voices if v.name == wanted]
    if matches:
        return matches[0]
    raise ApiError(HTTP_ROWS[404], "No voice of that id or name.")
