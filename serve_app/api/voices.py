"""Registering and deleting voices, and hearing a clip as a voice would be made of it.

`POST /v1/audio/voices`, `DELETE /v1/audio/voices/{voice}`, `POST /v1/audio/voices/preview`. What a clip and a name must
be is decided where they are stored; here they are only taken out of the form.
"""

import base64
import re
from dataclasses import asdict, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from serve_app.api.access import voice_owner
from serve_app.api.catalog import find_voice, voice_object
from serve_app.api.error_table import HTTP_ROWS, ApiError, invalid_field, row_of
from serve_app.api.forms import Form, read_form
from serve_app.api.presence import run_while_connected
from serve_app.api.schema import MAX_SIDE_TEXT, clean_text
from serve_app.api.service import SpeechService
from serve_app.config import ApiConfig
from serve_app.errors import InvalidAudio, VoiceExists, VoiceNotFound
from serve_app.messages import (
    SAMPLE_RATE_HZ,
    ClipPreview,
    Denoise,
    NewVoice,
    ReferenceClip,
    RegisteredVoice,
)

_LANGUAGE = re.compile(r"([A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*)?")
_DENOISE: dict[str, Denoise] = {
    **{"": "auto", "auto": "auto", "on": "on", "off": "off"},
    **{"true": "on", "1": "on", "false": "off", "0": "off"},
}
MAX_NAME_CHARACTERS = 256
"""Far above the longest name that a store accepts: it, not the form, says what a name is."""


class VoiceRegistration:
    """The ASGI app of the `POST`."""

    def __init__(self, service: SpeechService, config: ApiConfig) -> None:
        self.service = service
        self.config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Errors: `ApiError`; `InvalidVoiceName`, `VoiceExists`; those of a clip, with the form's name for it."""
        form = await read_form(scope, receive, self.config)
        new = replace(new_voice(form, self.config), owner=voice_owner(scope))
        try:
            registered = await self.service.register_voice(new)
        except InvalidAudio as error:
            raise fault_of_sample(error) from None
        await JSONResponse(registered_object(registered))(scope, receive, send)


class ClipPreviewing:
    """The ASGI app of `POST /v1/audio/voices/preview`: the form of a registration, less the name. Nothing is kept."""

    def __init__(self, service: SpeechService, config: ApiConfig) -> None:
        self.service = service
        self.config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Errors: `ApiError`; those of a clip, with the form's name for it; `ClientLeft`."""
        clip = reference_clip(await read_form(scope, receive, self.config), self.config)

        async def work() -> None:
            try:
                preview = await self.service.preview_clip(clip)
            except InvalidAudio as error:
                raise fault_of_sample(error) from None
            await JSONResponse(preview_object(preview))(scope, receive, send)

        await run_while_connected(receive, work())


class VoiceDeletion:
    """The endpoint of the `DELETE`."""

    def __init__(self, service: SpeechService) -> None:
        self.service = service

    async def delete(self, request: Request) -> Response:
        """Errors: `ApiError` 404, `BuiltinVoice`."""
        owner = voice_owner(request.scope)
        voice = find_voice(await self.service.voices(owner), request.path_params["voice"])
        try:
            await self.service.delete_voice(voice.id, owner)
        except VoiceNotFound as error:  # somebody else was faster
            raise ApiError(HTTP_ROWS[404], error.message) from None
        return JSONResponse({"id": voice.id, "object": "audio.voice.deleted", "deleted": True})


def new_voice(form: Form, config: ApiConfig) -> NewVoice:
    """Errors: `ApiError` 400 that names the field, 413; `VoiceExists` for a name that is configured as an alias."""
    name = form.text("name", MAX_NAME_CHARACTERS)
    if not name:
        raise invalid_field("name", "Invalid 'name': it is required.")
    if name in config.voice_aliases:
        raise VoiceExists("That name already stands for another voice.")
    language = form.text("language", 64)
    if not _LANGUAGE.fullmatch(language):
        raise invalid_field("language", "Invalid 'language': it must be a tag such as 'en' or 'zh-Hans'.")
    clip = reference_clip(form, config)
    return NewVoice(name, clip.audio, clip.transcript, language, clip.denoise)


def reference_clip(form: Form, config: ApiConfig) -> ReferenceClip:
    """`audio_sample`, `ref_text` and `denoise`. Errors: `ApiError` 400 that names the field, 413."""
    denoise = _DENOISE.get(form.text("denoise", 16).lower())
    if denoise is None:
        raise invalid_field("denoise", "Invalid 'denoise': it must be 'auto', 'on' or 'off'.")
    return ReferenceClip(
        audio=form.file("audio_sample", config.max_reference_bytes),
        transcript=clean_text(form.text("ref_text", MAX_SIDE_TEXT)).strip(),
        denoise=denoise,
    )


def fault_of_sample(error: InvalidAudio) -> ApiError:
    """What is wrong with a clip, by the name that it has in a form."""
    return ApiError(replace(row_of(error), param="audio_sample"), error.message)


def preview_object(preview: ClipPreview) -> dict[str, Any]:
    """audio: base64 of a WAV file."""
    return {
        "object": "audio.voice.preview",
        "audio": base64.b64encode(preview.audio).decode(),
        "sample_rate": SAMPLE_RATE_HZ,
        "quality": asdict(preview.quality),
    }


def registered_object(registered: RegisteredVoice) -> dict[str, Any]:
    """The voice as listings show it, and what is to be known of its clip."""
    return {**voice_object(registered.voice), "quality": asdict(registered.quality)}
