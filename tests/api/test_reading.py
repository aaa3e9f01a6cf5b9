"""`POST /v1/audio/speech/reading`: what would be said, with its places in the text; refusals as for speech."""

import json

import pytest

from serve_app import errors
from tests.api.live import assert_error, client_of
from tests.fakes import FakeService

READING = "/v1/audio/speech/reading"


async def test_parts_and_their_places() -> None:
    async with client_of(FakeService(warnings=("A pause was shortened",))) as client:
        response = await client.post(READING, json={"input": "Salt & oil.", "voice": "nobody", "speed": 9})
        plain = await client.post(READING, json={"input": "Salt & oil.", "normalize": False})
    assert response.status_code == 200
    body = response.json()
    assert set(body) == {"object", "pieces", "pause_after_s", "warnings"}
    assert (body["object"], body["pause_after_s"]) == ("speech.reading", 0.0)
    assert body["warnings"] == ["A pause was shortened"]
    [piece] = body["pieces"]
    assert piece["parts"] == [
        {"text_start": 0, "text_end": 5, "written": "Salt ", "spoken": "Salt "},
        {"text_start": 5, "text_end": 6, "written": "&", "spoken": "and"},
        {"text_start": 6, "text_end": 11, "written": " oil.", "spoken": " oil."},
    ]
    del piece["parts"]
    assert piece == {"text_start": 0, "text_end": 11, "spoken": "Salt and oil.", "pause_before_s": 0.0}
    assert plain.json()["pieces"][0]["spoken"] == "Salt & oil."


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"{", 400, "invalid_value", None),
        (b"{}", 400, "invalid_value", "input"),
        (b'{"input":7}', 400, "invalid_value", "input"),
        (b'{"input":"hi","normalize":"no"}', 400, "invalid_value", "normalize"),
        (b'{"input":"..."}', 400, "empty_input", "input"),
        (json.dumps({"input": "a" * 4097}).encode(), 400, "string_above_max_length", "input"),
        (b'{"input":"' + b" " * 300_000 + b'"}', 413, "request_too_large", None),
    ],
)
async def test_refusals(body: bytes, status: int, code: str, param: str | None) -> None:
    async with client_of(FakeService()) as client:
        response = await client.post(READING, content=body, headers={"content-type": "application/json"})
    assert_error(response, status, code, param)


async def test_what_preprocessing_refuses() -> None:
    async with client_of(FakeService(prepare_error=errors.EmptyInput("Nothing."))) as client:
        assert_error(await client.post(READING, json={"input": "Hi."}), 400, "empty_input", "input")
        form = await client.post(READING, content=b"input=hi", headers={"content-type": "text/plain"})
    assert_error(form, 415, "unsupported_media_type")
