"""One parse at the edge: defaults, aliases, limits, and refusals that name the field and never echo its value."""

import base64
import json
from typing import Any

import pytest

from serve_app.api.error_table import ApiError, error_body, row_of
from serve_app.api.schema import SpeechOrder, parse_speech
from serve_app.config import ApiConfig
from serve_app.errors import SpeechError
from serve_app.messages import ReferenceClip

CONFIG = ApiConfig(voice_aliases={"alloy": "default"})


def parse(**fields: Any) -> SpeechOrder:
    return parse_speech(json.dumps({"input": "Hello.", **fields}).encode(), CONFIG, "req_1")


def refusal(raw: bytes) -> tuple[int, str | None, str | None]:
    """Status, code and param of the error that `raw` causes."""
    with pytest.raises((ApiError, SpeechError)) as caught:
        parse_speech(raw, CONFIG, "req_1")
    row = row_of(caught.value)
    json.dumps(error_body(caught.value), allow_nan=False).encode("utf-8")
    return row.status, row.code, row.param


def test_defaults() -> None:
    order = parse()
    assert order.request.text == "Hello."
    assert (order.request.voice, order.request.speed, order.request.seed) == ("default", 1.0, None)
    assert (order.output.audio_format, order.output.sample_rate_hz) == ("mp3", 24_000)
    assert not order.output.server_sent_events


def test_null_means_the_default_and_unknown_fields_are_ignored() -> None:
    assert parse(voice=None, speed=None, response_format=None, model=None, seed=None, extra={"a": [1]}) == parse()


@pytest.mark.parametrize(
    ("fields", "voice"),
    [
        ({"voice": "nova"}, "nova"),
        ({"speaker": "nova"}, "nova"),
        ({"voice": {"id": "voice_1"}}, "voice_1"),
        ({"voice": "alloy"}, "default"),
        ({"voice": {"id": "alloy"}}, "default"),
    ],
)
def test_voice_forms(fields: dict[str, Any], voice: str) -> None:
    assert parse(**fields).request.voice == voice


@pytest.mark.parametrize("model", ["cosyvoice2-0.5b", "tts-1", "tts-1-hd", "gpt-4o-mini-tts", "cosyvoice-v2"])
def test_model_aliases(model: str) -> None:
    parse(model=model)


def test_text_stays_as_it_came_so_that_places_in_it_are_the_clients() -> None:
    text = "\ufeffCafe\u0301\x00\x07\x85 au\nlait\t!"
    assert parse(input=text).request.text == text


def test_side_texts_are_composed_and_stripped_of_controls() -> None:
    assert parse(instructions="\ufeffCafe\u0301\x00\x07\x85 au\nlait\t!").request.instructions == "Café au\nlait\t!"


def test_length_counts_code_points_after_cleaning() -> None:
    parse(input="e\u0301" * 4096)
    parse(input="\x00" * 10 + "a" * 4096)
    assert refusal(json.dumps({"input": "a" * 4097}).encode()) == (400, "string_above_max_length", "input")


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, -(2**63)])
def test_every_int64_is_a_seed(seed: int) -> None:
    value = parse(seed=seed).request.seed
    assert value is not None and 0 <= value < 2**63


def test_reference_clip_as_base64_and_as_data_uri() -> None:
    clip = b"RIFF\x00\xff" * 100
    encoded = base64.b64encode(clip).decode()
    assert parse(ref_audio=encoded, ref_text=" Hi. ").request.reference == ReferenceClip(clip, "Hi.")
    assert parse(ref_audio=f"data:audio/wav;base64,{encoded}").request.reference == ReferenceClip(clip, "")


def test_body_limit_leaves_out_the_reference() -> None:
    clip = base64.b64encode(bytes(CONFIG.max_body_bytes)).decode()
    parse(ref_audio=clip)
    assert refusal(json.dumps({"input": "a", "x": clip}).encode()) == (413, "request_too_large", None)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", (400, "invalid_value", None)),
        (b"{", (400, "invalid_value", None)),
        (b"[]", (400, "invalid_value", None)),
        (b"null", (400, "invalid_value", None)),
        (b'"x"', (400, "invalid_value", None)),
        (b'{"input":"\xff"}', (400, "invalid_value", None)),
        (b'{"input":"\\ud800"}', (400, "invalid_value", None)),
        (b'{"input":"hi","x":' + b"[" * 100_000, (400, "invalid_value", None)),
        (b"{}", (400, "invalid_value", "input")),
        (b'{"input":null}', (400, "invalid_value", "input")),
        (b'{"input":7}', (400, "invalid_value", "input")),
        (b'{"input":""}', (400, "empty_input", "input")),
        ('{"input":" … 🙂!"}'.encode(), (400, "empty_input", "input")),
        (b'{"input":"hi","speed":NaN}', (400, "invalid_value", "speed")),
        (b'{"input":"hi","speed":Infinity}', (400, "invalid_value", "speed")),
        (b'{"input":"hi","speed":1e999}', (400, "invalid_value", "speed")),
        (b'{"input":"hi","speed":0.24}', (400, "invalid_value", "speed")),
        (b'{"input":"hi","speed":4.01}', (400, "invalid_value", "speed")),
        (b'{"input":"hi","speed":"1"}', (400, "invalid_value", "speed")),
        (b'{"input":"hi","speed":true}', (400, "invalid_value", "speed")),
        (b'{"input":"hi","seed":9223372036854775808}', (400, "invalid_value", "seed")),
        (b'{"input":"hi","seed":1.5}', (400, "invalid_value", "seed")),
        (b'{"input":"hi","sample_rate":12345}', (400, "invalid_value", "sample_rate")),
        (b'{"input":"hi","response_format":"ogg"}', (400, "invalid_value", "response_format")),
        (b'{"input":"hi","stream_format":"chunks"}', (400, "invalid_value", "stream_format")),
        (b'{"input":"hi","voice":[]}', (400, "invalid_value", "voice")),
        (b'{"input":"hi","voice":""}', (400, "invalid_value", "voice")),
        (b'{"input":"hi","model":"other"}', (404, "model_not_found", "model")),
        (b'{"input":"hi","instructions":"' + b"x" * 1001 + b'"}', (400, "invalid_value", "instructions")),
        (b'{"input":"hi","ref_audio":"http://example.com/a.wav"}', (400, "invalid_audio", "ref_audio")),
        (b'{"input":"hi","ref_audio":"file:///etc/passwd"}', (400, "invalid_audio", "ref_audio")),
        (b'{"input":"hi","ref_audio":"***"}', (400, "invalid_audio", "ref_audio")),
        (b'{"input":"hi","ref_audio":""}', (400, "invalid_audio", "ref_audio")),
    ],
)
def test_refusals(raw: bytes, expected: tuple[int, str | None, str | None]) -> None:
    assert refusal(raw) == expected


def test_refusals_do_not_echo_the_input() -> None:
    secret = "hunter2hunter2"
    for name in ("input", "model", "voice", "response_format", "stream_format", "speed", "seed", "ref_audio"):
        value: Any = [secret] if name in ("input", "voice", "ref_audio") else secret
        raw = json.dumps({"input": "hi", name: value}).encode()
        with pytest.raises((ApiError, SpeechError)) as caught:
            parse_speech(raw, CONFIG, "req_1")
        assert secret not in json.dumps(error_body(caught.value))
