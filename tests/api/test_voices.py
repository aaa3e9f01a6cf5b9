"""Registering and deleting voices."""

import asyncio
import base64
from dataclasses import asdict, replace
from typing import Any

import httpx
import pytest

from serve_app import errors
from serve_app.api.voices import MAX_NAME_CHARACTERS
from serve_app.config import ApiConfig
from serve_app.messages import ClipQuality, NewVoice, ReferenceClip
from tests.api.live import assert_error, client_of
from tests.fakes import QUALITY, FakeService

VOICES = "/v1/audio/voices"
PREVIEW = f"{VOICES}/preview"
CLIP = b"RIFF\x00\xff\r\n--" * 100_000


async def register(client: httpx.AsyncClient, audio: bytes | None = CLIP, **fields: str) -> httpx.Response:
    files = None if audio is None else {"audio_sample": ("my voice.wav", audio, "audio/wav")}
    return await client.post(VOICES, data={"name": "Zoë", **fields}, files=files)


async def test_a_voice_is_registered_listed_and_deleted() -> None:
    service = FakeService()
    async with client_of(service) as client:
        response = await register(client, ref_text=" Words. ", language="zh-Hans", denoise="off", consent="yes")
        voice = response.json()
        listed = (await client.get(VOICES)).json()["voices"]
        one = (await client.get(f"{VOICES}/Zoë")).json()
        deleted = await client.delete(f"{VOICES}/Zoë")
        again = await client.delete(f"{VOICES}/{voice['id']}")
    assert response.status_code == 200, response.text
    assert service.registered == [NewVoice("Zoë", CLIP, "Words.", "zh-Hans", "off")]
    quality = voice.pop("quality")
    assert quality == asdict(ClipQuality(2.0, 1.5, 30.0, -20.0, 0.0, 8000, False, ())) | {"warnings": ["A bit short."]}
    assert voice == one == listed[-1]
    assert (voice["name"], voice["type"], voice["language"]) == ("Zoë", "audio_sample", "zh-Hans")
    assert deleted.json() == {"id": voice["id"], "object": "audio.voice.deleted", "deleted": True}
    assert_error(again, 404, "not_found")


async def test_a_builtin_voice_stays() -> None:
    async with client_of(FakeService()) as client:
        assert_error(await client.delete(f"{VOICES}/default"), 403, "builtin_voice")


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"name": ""}, 400, "invalid_value", "name"),
        ({"name": "x" * (MAX_NAME_CHARACTERS + 1)}, 400, "invalid_value", "name"),
        ({"name": "default"}, 409, "voice_exists", "name"),
        ({"name": "alloy"}, 409, "voice_exists", "name"),
        ({"language": "<en>"}, 400, "invalid_value", "language"),
        ({"denoise": "perhaps"}, 400, "invalid_value", "denoise"),
        ({"ref_text": "x" * 1001}, 400, "invalid_value", "ref_text"),
        ({"audio": None}, 415, "unsupported_media_type", None),
        ({"audio": bytes(11 << 20)}, 413, "request_too_large", None),
    ],
)
async def test_what_the_form_gets_wrong(fields: dict[str, Any], status: int, code: str, param: str | None) -> None:
    if fields == {"audio": None}:
        async with client_of(FakeService()) as client:
            assert_error(await client.post(VOICES, json={"name": "Zoë"}), status, code, param)
        return
    async with client_of(FakeService()) as client:
        response = await register(client, **fields)
    assert_error(response, status, code, param)
    if status == 409:
        assert response.headers["x-should-retry"] == "false"


async def test_a_clip_is_needed() -> None:
    async with client_of(FakeService()) as client:
        assert_error(await register(client, audio=None), 400, "invalid_value", "audio_sample")


@pytest.mark.parametrize(
    ("error", "status", "code", "param"),
    [
        (errors.InvalidVoiceName("m"), 400, "invalid_name", "name"),
        (errors.VoiceExists("m"), 409, "voice_exists", "name"),
        (errors.InvalidAudio("m"), 400, "invalid_audio", "audio_sample"),
        (errors.AudioTooShort("m"), 400, "audio_too_short", "audio_sample"),
        (errors.AudioTooLong("m"), 400, "audio_too_long", "audio_sample"),
        (errors.NotReady("m"), 503, "not_ready", None),
    ],
)
async def test_what_the_store_refuses(error: Exception, status: int, code: str, param: str | None) -> None:
    async with client_of(FakeService(register_error=error)) as client:
        assert_error(await register(client), status, code, param)


@pytest.mark.parametrize("path", [VOICES, PREVIEW])
async def test_a_foreign_page_may_not_register(path: str) -> None:
    async with client_of(FakeService(), ApiConfig()) as client:
        files = {"audio_sample": CLIP}
        response = await client.post(path, data={"name": "x"}, files=files, headers={"origin": "http://a.example"})
    assert response.status_code == 403


async def test_a_clip_is_heard_as_it_would_be_used_and_not_kept() -> None:
    service = FakeService()
    async with client_of(service) as client:
        form = {"ref_text": " Words. ", "denoise": "on", "name": "../not looked at"}
        response = await client.post(PREVIEW, data=form, files={"audio_sample": CLIP})
        assert_error(await client.get(PREVIEW), 404, "not_found")  # it is no voice
    assert response.status_code == 200, response.text
    assert service.previewed == [ReferenceClip(CLIP, "Words.", "on")] and service.registered == []
    answer = response.json()
    assert base64.b64decode(answer.pop("audio")) == CLIP
    assert answer.pop("quality") == asdict(replace(QUALITY, denoised=True)) | {"warnings": ["A bit short."]}
    assert answer == {"object": "audio.voice.preview", "sample_rate": 24_000}


@pytest.mark.parametrize(
    ("form", "audio", "status", "code", "param"),
    [
        ({}, None, 400, "invalid_value", "audio_sample"),
        ({"denoise": "perhaps"}, CLIP, 400, "invalid_value", "denoise"),
        ({"ref_text": "x" * 1001}, CLIP, 400, "invalid_value", "ref_text"),
        ({}, bytes(11 << 20), 413, "request_too_large", None),
    ],
)
async def test_what_the_form_of_a_preview_gets_wrong(
    form: dict[str, str], audio: bytes | None, status: int, code: str, param: str | None
) -> None:
    files = {"other" if audio is None else "audio_sample": audio or b""}
    async with client_of(FakeService()) as client:
        assert_error(await client.post(PREVIEW, data=form, files=files), status, code, param)


async def test_what_preprocessing_refuses_to_preview() -> None:
    for error, status, code, param in (
        (errors.AudioTooLong("m"), 400, "audio_too_long", "audio_sample"),
        (errors.NotReady("m"), 503, "not_ready", None),
    ):
        async with client_of(FakeService(register_error=error)) as client:
            assert_error(await client.post(PREVIEW, files={"audio_sample": CLIP}), status, code, param)


async def test_a_client_that_leaves_before_the_preview_takes_its_call_with_it() -> None:
    service = FakeService(prepare_gate=asyncio.Semaphore(0))
    async with client_of(service) as client:
        waiting = asyncio.create_task(client.post(PREVIEW, files={"audio_sample": CLIP}))
        await service.until_open(0, prepares=1)
        waiting.cancel()
        await service.until_open(0, prepares=0)
    assert service.previewed == []


async def test_warnings_of_preprocessing_reach_the_client() -> None:
    async with client_of(FakeService(warnings=("A pause was shortened.", "Markup was left out."))) as client:
        response = await client.post("/v1/audio/speech", json={"input": "Hi."})
    assert response.headers["x-warnings"] == "A pause was shortened.; Markup was left out."
