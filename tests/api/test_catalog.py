"""Health, models, voices."""

from serve_app.config import ApiConfig
from serve_app.errors import NotReady
from tests.api.live import assert_error, client_of
from tests.fakes import FakeService


async def test_health_is_exactly_ok() -> None:
    async with client_of(FakeService(is_ready=False)) as client:
        response = await client.get("/health")
    assert (response.status_code, response.content) == (200, b"OK")
    assert response.headers["content-type"].startswith("text/plain")


async def test_ready_follows_the_service() -> None:
    service = FakeService()
    async with client_of(service) as client:
        assert (await client.get("/ready")).json() == {"ready": True}
        service.is_ready = False
        response = await client.get("/ready")
    assert_error(response, 503, "not_ready")
    assert int(response.headers["retry-after"]) <= 30


async def test_models() -> None:
    async with client_of(FakeService(), ApiConfig(model_name="cosy")) as client:
        listing = (await client.get("/v1/models")).json()
        one = (await client.get("/v1/models/cosy")).json()
        alias = (await client.get("/v1/models/tts-1")).json()
        audio = (await client.get("/v1/audio/models")).json()
        missing = await client.get("/v1/models/other")
    assert listing == {"object": "list", "data": [one]}
    assert (one["id"], one["object"], one["task"], one["sample_rate"]) == ("cosy", "model", "text-to-speech", 24_000)
    assert one["voices"] == [{"name": "default", "language": "en"}, {"name": "Ünal", "language": ""}]
    assert alias == {**one, "id": "tts-1"}
    assert audio == {"models": [{"id": "cosy", "name": "cosy"}]}
    assert_error(missing, 404, "model_not_found", "model")


async def test_voices() -> None:
    async with client_of(FakeService()) as client:
        listing = (await client.get("/v1/audio/voices")).json()
        by_id = (await client.get("/v1/audio/voices/voice_1")).json()
        by_name = (await client.get("/v1/audio/voices/Ünal")).json()
        missing = await client.get("/v1/audio/voices/nobody")
    assert listing["object"] == "list"
    assert listing["voices"] == listing["data"]
    assert listing["voices"][1] == by_id == by_name
    assert by_id == {
        "id": "voice_1",
        "name": "Ünal",
        "object": "audio.voice",
        "type": "audio_sample",
        "created_at": 1_700_000_001,
        "language": "",
    }
    assert listing["voices"][0]["type"] == "builtin"
    assert_error(missing, 404, "not_found")
    assert missing.json()["error"]["message"] == "No voice of that id or name."


async def test_error_of_the_service_in_a_listing() -> None:
    class Down(FakeService):
        async def voices(self, owner=""):  # type: ignore[no-untyped-def]
            raise NotReady("No replica.")

    async with client_of(Down()) as client:
        assert_error(await client.get("/v1/models"), 503, "not_ready")
