"""The shapes of what goes over the wire as JSON, for `/openapi.json`."""

from typing import Any

from serve_app.api.reading import ReadingBody
from serve_app.api.schema import SpeechBody
from serve_app.api.status import ENDS
from serve_app.config import ApiConfig
from serve_app.messages import SAMPLE_RATE_HZ

Json = dict[str, Any]


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def object_of(**properties: Json) -> Json:
    """An object that has all of these."""
    return {"type": "object", "required": list(properties), "properties": properties}


def schemas(config: ApiConfig) -> Json:
    """What goes over the wire as JSON. The request's schema is the one that parses it."""
    speech = SpeechBody.model_json_schema(ref_template="#/components/schemas/{model}")
    nested = speech.pop("$defs", {})
    reading_body = ReadingBody.model_json_schema()
    for body in (speech, reading_body):
        body["properties"]["input"] |= {"minLength": 1, "maxLength": config.max_input_characters}
    text: Json = {"type": "string"}
    text_or_null: Json = {"type": ["string", "null"]}
    integer: Json = {"type": "integer"}
    voice = object_of(
        id=text,
        name=text,
        object={"const": "audio.voice"},
        type={"enum": ["builtin", "audio_sample"]},
        created_at=integer,
        language=text,
    )
    model = object_of(
        id=text,
        object={"const": "model"},
        created=integer,
        owned_by=text,
        task={"const": "text-to-speech"},
        sample_rate=integer,
        voices={"type": "array", "items": object_of(name=text, language=text)},
    )
    kinds = ["invalid_request_error", "authentication_error", "permission_error", "rate_limit_error", "server_error"]
    error = object_of(message=text, type={"enum": kinds}, param=text_or_null, code=text_or_null)
    return {
        "SpeechBody": speech,
        **nested,
        "ReadingBody": reading_body,
        "Reading": reading_schema(),
        "Voice": voice,
        "RegisteredVoice": {"allOf": [ref("Voice"), object_of(quality={"type": "object"})]},
        "VoicePreview": object_of(
            object={"const": "audio.voice.preview"},
            audio={"type": "string", "contentEncoding": "base64", "contentMediaType": "audio/wav"},
            sample_rate={"const": SAMPLE_RATE_HZ},
            quality={"type": "object"},
        ),
        "DeletedVoice": object_of(id=text, object={"const": "audio.voice.deleted"}, deleted={"const": True}),
        "VoiceList": object_of(
            object={"const": "list"},
            voices={"type": "array", "items": ref("Voice")},
            data={"type": "array", "items": ref("Voice")},
        ),
        "Model": model,
        "ModelList": object_of(object={"const": "list"}, data={"type": "array", "items": ref("Model")}),
        "ShortModelList": object_of(models={"type": "array", "items": object_of(id=text, name=text)}),
        "Ready": object_of(ready={"type": "boolean"}),
        "Status": status_schema(),
        "Error": object_of(error=error),
    }


def reading_schema() -> Json:
    """Places are code points of `input`; what no part covers is not spoken."""
    text: Json = {"type": "string"}
    place: Json = {"type": "integer", "minimum": 0}
    seconds: Json = {"type": "number", "minimum": 0}
    part = object_of(text_start=place, text_end=place, written=text, spoken=text)
    piece = object_of(
        text_start=place,
        text_end=place,
        spoken=text,
        pause_before_s=seconds,
        parts={"type": "array", "minItems": 1, "items": part},
    )
    return object_of(
        object={"const": "speech.reading"},
        pieces={"type": "array", "minItems": 1, "items": piece},
        pause_after_s=seconds,
        warnings={"type": "array", "items": text},
    )


def status_schema() -> Json:
    """Of `api/status.py`."""
    count: Json = {"type": "integer", "minimum": 0}
    ms: Json = {"type": ["number", "null"]}
    times = object_of(count=count, p50=ms, p95=ms, p99=ms)

    def stage(*names: str) -> Json:
        return {"anyOf": [object_of(**dict.fromkeys(("replicas", *names), count)), {"type": "null"}]}

    return object_of(
        ready={"type": "boolean"},
        window_s=count,
        recent=object_of(**dict.fromkeys((*ENDS, "underruns"), count)),
        ttfa_ms=times,
        audible_ttfa_ms=times,
        stages=object_of(
            ingress=stage("requests"),
            preprocess=stage("preparing", "waiting"),
            synthesis=stage("waiting_for_sound", "streams", "spare"),
        ),
        replicas={"type": "array", "items": object_of(id={"type": "string"}, streams=count, spare={"type": "integer"})},
    )
