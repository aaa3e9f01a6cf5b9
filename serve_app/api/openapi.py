"""The description of this interface: `/openapi.json` and `/docs`."""

from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from serve_app.api.docs_page import page_of
from serve_app.api.openapi_schemas import Json, object_of, ref, schemas
from serve_app.config import ApiConfig

ABOUT = """Text to speech with CosyVoice2, compatible with OpenAI's audio API.

Two WebSockets, which OpenAPI cannot describe: `/v1/audio/speech/stream` takes JSON text frames `session.config`,
`input.text`, `input.flush`, `input.done`, `input.cancel`, `session.close` and sends `audio.start`, binary audio,
`audio.timing`, `audio.done`, `session.done`, `error`; `/api-ws/v1/inference` is DashScope's duplex protocol.

A failure after the first byte of audio breaks the chunked body; it never ends short audio cleanly."""

ERRORS = {
    400: "A field is wrong, or the text cannot be spoken.",
    401: "The API key is missing or wrong; only where keys are configured.",
    403: "Not allowed.",
    404: "No such thing.",
    405: "This route does not take that method.",
    408: "The body did not arrive in time.",
    409: "The name is taken.",
    413: "The body is too large.",
    415: "The body is of another type.",
    429: "Overloaded; `retry-after` says when to try again.",
    500: "A bug.",
    503: "Not ready, or draining; `retry-after` says when to try again.",
    507: "No room for another voice.",
}
AUDIO_TYPES = ("audio/mpeg", "audio/ogg", "audio/aac", "audio/flac", "audio/wav", "audio/pcm")


def errors(*statuses: int) -> Json:
    """The error answers of an operation; those that any may give are added."""
    body = {"application/json": {"schema": ref("Error")}}
    return {str(status): {"description": ERRORS[status], "content": body} for status in sorted({401, 500, *statuses})}


def json_answer(name: str, description: str = "OK") -> Json:
    return {"200": {"description": description, "content": {"application/json": {"schema": ref(name)}}}}


def operation(summary: str, answers: Json, **more: Any) -> Json:
    return {"summary": summary, "security": [{}, {"key": []}], **more, "responses": answers}


def path_parameter(name: str, description: str) -> Json:
    schema = {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def audio_answer(*types: str) -> Json:
    content: Json = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in types}
    headers = {
        "x-sample-rate": {"description": "Hz", "schema": {"type": "integer"}},
        "x-warnings": {"description": "What was done otherwise than asked", "schema": {"type": "string"}},
        "server-timing": {"description": "Stages until the first audio", "schema": {"type": "string"}},
    }
    return {"200": {"description": "Audio, as it is made", "headers": headers, "content": content}}


def form_of(required: tuple[str, ...], texts: tuple[str, ...], file: str | None) -> Json:
    """A form body with text fields and at most one file."""
    properties: Json = {name: {"type": "string"} for name in texts}
    if file is not None:
        properties[file] = {"type": "string", "format": "binary"}
    schema = {"type": "object", "required": list(required), "properties": properties}
    types = ["multipart/form-data"] + (["application/x-www-form-urlencoded"] if file is None else [])
    return {"required": True, "content": {media_type: {"schema": schema} for media_type in types}}


def speech_operation() -> Json:
    answers = audio_answer(*AUDIO_TYPES)
    answers["200"]["content"]["text/event-stream"] = {
        "schema": object_of(event={"type": "string"}, data={"type": "string"})
    }
    answers |= errors(400, 404, 408, 413, 415, 429, 503)
    body = {"required": True, "content": {"application/json": {"schema": ref("SpeechBody")}}}
    return operation("Speak a text", answers, requestBody=body)


def reading_operation() -> Json:
    body = {"required": True, "content": {"application/json": {"schema": ref("ReadingBody")}}}
    answers = json_answer("Reading", "What would be spoken") | errors(400, 408, 413, 415, 429, 503)
    return operation(
        "How a text would be read: figures and signs in words, without speaking it", answers, requestBody=body
    )


def compat_operation(required: tuple[str, ...], texts: tuple[str, ...], file: str | None) -> Json:
    answers = audio_answer("audio/pcm") | errors(400, 403, 408, 413, 415, 429, 503)
    return operation(
        "CosyVoice's own endpoint; a GET with the same form works too",
        answers,
        requestBody=form_of(required, texts, file),
    )


def describe(config: ApiConfig) -> Json:
    """The OpenAPI 3.1 document."""
    unready = errors(429, 503)
    voices = operation("All voices", json_answer("VoiceList") | unready)
    voice = operation("One voice, by id or name", json_answer("Voice") | errors(404, 429, 503))
    deletion = operation("Delete a voice", json_answer("DeletedVoice") | errors(403, 404, 429, 503))
    fields = ("name", "ref_text", "language", "consent", "denoise")
    registration = operation(
        "Register a voice from a clip of 0.5 to 30 seconds",
        json_answer("RegisteredVoice") | errors(400, 403, 408, 409, 413, 415, 429, 503, 507),
        requestBody=form_of(("name", "audio_sample"), fields, "audio_sample"),
    )
    preview = operation(
        "How a clip would be used: trimmed, mended, of even loudness; nothing is kept",
        json_answer("VoicePreview") | errors(400, 403, 408, 413, 415, 429, 503),
        requestBody=form_of(("audio_sample",), ("ref_text", "denoise"), "audio_sample"),
    )
    model = operation("One model, by name or alias", json_answer("Model") | errors(404, 429, 503))
    ok = {"200": {"description": "OK", "content": {"text/plain": {"schema": {"const": "OK"}}}}}
    paths: Json = {
        "/v1/audio/speech": {"post": speech_operation()},
        "/v1/audio/speech/reading": {"post": reading_operation()},
        "/v1/audio/voices": {"get": voices, "post": registration},
        "/v1/audio/voices/preview": {"post": preview},
        "/v1/audio/voices/{voice}": {
            "parameters": [path_parameter("voice", "Id or name")],
            "get": voice,
            "delete": deletion,
        },
        "/v1/models": {"get": operation("The models", json_answer("ModelList") | unready)},
        "/v1/models/{model}": {"parameters": [path_parameter("model", "Name or alias")], "get": model},
        "/v1/audio/models": {"get": operation("The models, in short", json_answer("ShortModelList") | errors())},
        "/inference_sft": {"post": compat_operation(("tts_text",), ("tts_text", "spk_id"), None)},
        "/v1/status": {"get": operation("What the service is doing, for operators", json_answer("Status") | errors())},
        "/health": {"get": operation("Whether this process answers", ok | errors())},
        "/ready": {"get": operation("Whether a warmed replica exists", json_answer("Ready") | errors(503))},
    }
    clip_modes = {
        "/inference_zero_shot": ("tts_text", "prompt_text"),
        "/inference_cross_lingual": ("tts_text",),
        "/inference_instruct2": ("tts_text", "instruct_text"),
    }
    for path, texts in clip_modes.items():
        paths[path] = {"post": compat_operation((*texts, "prompt_wav"), texts, "prompt_wav")}
    return {
        "openapi": "3.1.0",
        "info": {"title": "cosyvoice-serve", "version": "1", "description": ABOUT},
        "paths": paths,
        "components": {
            "schemas": schemas(config),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


class Description:
    """The two endpoints."""

    def __init__(self, config: ApiConfig) -> None:
        self.document = describe(config)
        self.page = page_of(self.document)

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(self.document)

    async def docs(self, request: Request) -> Response:
        return HTMLResponse(
            self.page,
            headers={
                "content-security-policy": (
                    "default-src 'none'; style-src 'unsafe-inline'; "
                    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
                ),
                "referrer-policy": "no-referrer",
            },
        )
