"""The body of `POST /v1/audio/speech`, parsed once into a `SpeechRequest` and the shape of its answer."""

import base64
import binascii
import re
import unicodedata
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    ValidationError,
)

from serve_app.api.error_table import HTTP_ROWS, INVALID_REQUEST, ApiError, ErrorRow, invalid_field
from serve_app.config import ApiConfig
from serve_app.errors import AudioTooLong, EmptyInput, InputTooLong, InvalidAudio
from serve_app.messages import SAMPLE_RATE_HZ, Denoise, ReferenceClip, SpeechRequest

AudioFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
MAX_SIDE_TEXT = 1000
"""Longest `instructions` and `ref_text`, in characters."""

_DATA_URI = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)


def clean_text(text: str) -> str:
    """NFC, without control characters and byte order marks; line breaks and tabs stay."""
    kept = (c for c in text if c in "\n\r\t" or unicodedata.category(c) != "Cc")
    return unicodedata.normalize("NFC", "".join(kept)).replace("\ufeff", "")


def no_numeric_strings(value: object) -> object:
    """JSON numbers only: neither "1.0" nor true is one."""
    if isinstance(value, str | bool):
        raise ValueError("must be a number")
    return value


Number = BeforeValidator(no_numeric_strings)
SideText = Annotated[str, Strict(), StringConstraints(max_length=MAX_SIDE_TEXT)]


class VoiceObject(BaseModel):
    """OpenAI's object form of a custom voice."""

    id: Annotated[str, Strict(), StringConstraints(min_length=1, max_length=256)]


class SpeechSettings(BaseModel):
    """How to speak: all that a request says but its text. Unknown fields are ignored; null means the default."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: Annotated[str, Strict()] | None = None
    voice: Annotated[str, Strict(), StringConstraints(min_length=1, max_length=256)] | VoiceObject | None = Field(
        default=None, validation_alias=AliasChoices("voice", "speaker"), description="Id or name of a voice."
    )
    response_format: AudioFormat | None = None
    speed: Annotated[float, Field(ge=0.25, le=4.0, allow_inf_nan=False), Number] | None = None
    instructions: SideText | None = None
    sample_rate: Annotated[Literal[8000, 16000, 22050, 24000, 44100, 48000], Number] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1), Number] | None = None
    ref_audio: Annotated[str, Strict()] | None = Field(
        default=None, description="A reference clip as a data URI or base64, for one-shot voice cloning."
    )
    ref_text: SideText | None = None
    denoise: Denoise | None = Field(default=None, description="Take noise out of ref_audio; auto if absent.")
    normalize: Annotated[bool, Strict()] | None = Field(
        default=None, description="Put figures and signs into words, drop Markdown; true if absent."
    )
    timings: Annotated[bool, Strict()] | None = Field(
        default=None, description="Also say when each sentence is heard; over HTTP it needs stream_format sse."
    )


class SpeechBody(SpeechSettings):
    """The body of `POST /v1/audio/speech`."""

    input: Annotated[str, Strict()] = Field(description="The text to speak.")
    stream_format: Literal["audio", "sse"] | None = None


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """The shape of the answer, which the models never see."""

    audio_format: AudioFormat = "mp3"
    sample_rate_hz: int = SAMPLE_RATE_HZ
    server_sent_events: bool = False
    timings: bool = False


@dataclass(frozen=True, slots=True)
class SpeechOrder:
    """One parsed request."""

    request: SpeechRequest
    output: OutputOptions


Body = TypeVar("Body", bound=BaseModel)


def parse_json(model: type[Body], raw: bytes) -> Body:
    """Errors: `ApiError` 400, with a message that names the field and never holds its value."""
    try:
        # strict UTF-8 and no lone surrogates, which would break whoever encodes them later
        return model.model_validate_json(raw.removeprefix(b"\xef\xbb\xbf"))
    except ValidationError as error:
        raise explain(error) from None


def explain(error: ValidationError) -> ApiError:
    """The first fault that pydantic found, as a 400."""
    fault: Any = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if fault["type"] == "json_invalid":
        return invalid_field(None, "The body is not valid UTF-8 JSON.")
    if not fault["loc"]:
        return invalid_field(None, "The body must be a JSON object.")
    param = str(fault["loc"][0])
    text = str(fault["msg"]).removeprefix("Value error, ")
    return invalid_field(param, f"Invalid '{param}': {text[:1].lower()}{text[1:]}.")


def parse_speech(raw: bytes, config: ApiConfig, request_id: str, owner: str = "") -> SpeechOrder:
    """Errors: `ApiError` (400, 404, 413), `EmptyInput`, `InputTooLong`, `InvalidAudio`, `AudioTooLong`."""
    body = parse_json(SpeechBody, raw)
    if len(raw) - len(body.ref_audio or "") > config.max_body_bytes:
        raise ApiError(HTTP_ROWS[413], "The request body is too large.")
    request = speech_request(body, speakable(body.input, config), config, request_id, owner)
    output = OutputOptions(
        audio_format=body.response_format or "mp3",
        sample_rate_hz=body.sample_rate or SAMPLE_RATE_HZ,
        server_sent_events=body.stream_format == "sse",
        timings=body.timings is True,
    )
    if output.timings and not output.server_sent_events:
        raise invalid_field("timings", "Invalid 'timings': they are events, which need stream_format 'sse'.")
    return SpeechOrder(request, output)


def speech_request(
    settings: SpeechSettings, text: str, config: ApiConfig, request_id: str, owner: str = ""
) -> SpeechRequest:
    """owner: of the voices it may use. Errors: `ApiError` 404 for the model, `InvalidAudio`, `AudioTooLong`."""
    check_model(settings.model, config)
    return SpeechRequest(
        request_id=request_id,
        text=text,
        voice=resolve_voice(settings.voice, config),
        reference=reference_clip(settings, config),
        instructions=clean_text(settings.instructions or "").strip(),
        speed=1.0 if settings.speed is None else settings.speed,
        # the engine's seeds are not negative
        seed=None if settings.seed is None else settings.seed % 2**63,
        normalize=settings.normalize is not False,
        by_sentence=settings.timings is True,
        owner=owner,
    )


def check_model(name: str | None, config: ApiConfig) -> None:
    """Errors: `ApiError` 404 for a model that is not served."""
    if name is not None and name != config.model_name and name not in config.model_aliases:
        row = ErrorRow(404, INVALID_REQUEST, "model_not_found", "model")
        raise ApiError(row, f"That model is not served here; use '{config.model_name}'.")


def speakable(text: str, config: ApiConfig) -> str:
    """The text as it came, so that places in it are the client's. Errors: `EmptyInput`, `InputTooLong` once cleaned."""
    cleaned = clean_text(text)
    if len(cleaned) > config.max_input_characters:
        raise InputTooLong(f"The text has more than {config.max_input_characters} characters.")
    if not is_speakable(cleaned):
        raise EmptyInput("The text holds no letter and no digit: there is nothing to speak.")
    return text


def is_speakable(text: str) -> bool:
    """Whether there is a letter or a digit in it, of any script."""
    return any(unicodedata.category(character)[0] in "LN" for character in text)


def resolve_voice(voice: str | VoiceObject | None, config: ApiConfig) -> str:
    """The voice's id or name, through the configured aliases."""
    if voice is None:
        return config.default_voice
    name = voice.id if isinstance(voice, VoiceObject) else voice
    return config.voice_aliases.get(name, name)


def reference_clip(body: SpeechSettings, config: ApiConfig) -> ReferenceClip | None:
    """The clip of a one-shot voice, decoded from base64. Errors: `InvalidAudio`, `AudioTooLong`."""
    if body.ref_audio is None:
        return None
    header = _DATA_URI.match(body.ref_audio)
    encoded = body.ref_audio[header.end() if header else 0 :]
    if "://" in encoded[:16] or encoded[:5].lower() in ("file:", "data:"):
        raise InvalidAudio("ref_audio must be base64 or a base64 data URI; addresses are not opened.")
    try:
        audio = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidAudio("ref_audio is not valid base64.") from None
    if not audio:
        raise InvalidAudio("ref_audio is empty.")
    if len(audio) > config.max_reference_bytes:
        raise AudioTooLong("ref_audio is larger than the service accepts.")
    return ReferenceClip(audio, clean_text(body.ref_text or "").strip(), body.denoise or "auto")
