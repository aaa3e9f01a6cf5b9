"""The endpoints of CosyVoice's own server (runtime/python/fastapi/server.py), for clients written against it.

Its client really sends a GET with a body. The answer is raw s16le at 24 kHz.
"""

from collections.abc import Callable
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve_app.api.access import voice_owner
from serve_app.api.boundary import request_id
from serve_app.api.error_table import error_response, invalid_field
from serve_app.api.forms import Form, read_form
from serve_app.api.presence import run_while_connected
from serve_app.api.schema import MAX_SIDE_TEXT, OutputOptions, SpeechOrder, clean_text, resolve_voice, speakable
from serve_app.api.service import SpeechService
from serve_app.api.speech import stream_audio
from serve_app.config import ApiConfig
from serve_app.messages import ReferenceClip, SpeechRequest

ToRequest = Callable[[Form, ApiConfig, str], SpeechRequest]


class CompatEndpoint:
    """One of CosyVoice's modes: `to_request` reads its form."""

    def __init__(self, to_request: ToRequest, service: SpeechService, config: ApiConfig) -> None:
        self.to_request = to_request
        self.service = service
        self.config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        form = await read_form(scope, receive, self.config)
        request = replace(self.to_request(form, self.config, request_id(scope)), owner=voice_owner(scope))
        order = SpeechOrder(request, OutputOptions(audio_format="pcm"))
        await run_while_connected(receive, stream_audio(self.service, order, send))


def sft_request(form: Form, config: ApiConfig, identifier: str) -> SpeechRequest:
    """`tts_text`, `spk_id`."""
    voice = resolve_voice(form.text("spk_id", 256) or None, config)
    return SpeechRequest(identifier, spoken_text(form, config), voice)


def zero_shot_request(form: Form, config: ApiConfig, identifier: str) -> SpeechRequest:
    """`tts_text`, `prompt_text`, `prompt_wav`."""
    transcript = clean_text(form.text("prompt_text", MAX_SIDE_TEXT)).strip()
    if not transcript:
        raise invalid_field("prompt_text", "Invalid 'prompt_text': the words spoken in prompt_wav are required.")
    clip = ReferenceClip(form.file("prompt_wav", config.max_reference_bytes), transcript)
    return SpeechRequest(identifier, spoken_text(form, config), reference=clip)


def cross_lingual_request(form: Form, config: ApiConfig, identifier: str) -> SpeechRequest:
    """`tts_text`, `prompt_wav`."""
    clip = ReferenceClip(form.file("prompt_wav", config.max_reference_bytes))
    return SpeechRequest(identifier, spoken_text(form, config), reference=clip)


def instruct2_request(form: Form, config: ApiConfig, identifier: str) -> SpeechRequest:
    """`tts_text`, `instruct_text`, `prompt_wav`."""
    instructions = clean_text(form.text("instruct_text", MAX_SIDE_TEXT)).strip().removesuffix("<|endofprompt|>")
    clip = ReferenceClip(form.file("prompt_wav", config.max_reference_bytes))
    return SpeechRequest(identifier, spoken_text(form, config), reference=clip, instructions=instructions)


def spoken_text(form: Form, config: ApiConfig) -> str:
    """Errors: `ApiError` 400, `EmptyInput`, `InputTooLong`."""
    if "tts_text" not in form.fields:
        raise invalid_field("tts_text", "Invalid 'tts_text': it is required.")
    return speakable(form.fields["tts_text"], config)


async def instruct_is_gone(request: Request) -> Response:
    """CosyVoice2 has no such mode."""
    return error_response(
        invalid_field(None, "CosyVoice2 has no instruct mode of this kind; use /inference_instruct2.")
    )


MODES: dict[str, ToRequest] = {
    "/inference_sft": sft_request,
    "/inference_zero_shot": zero_shot_request,
    "/inference_cross_lingual": cross_lingual_request,
    "/inference_instruct2": instruct2_request,
}
