"""API keys, their limits, and foreign origins."""

import asyncio
from pathlib import Path

import httpx
import pytest

from serve_app.api.access import load_keys
from serve_app.config import ApiConfig
from tests.api.live import assert_error, client_of
from tests.fakes import FakeService

SPEECH = "/v1/audio/speech"
BODY = {"input": "Hi.", "response_format": "pcm"}


@pytest.fixture
def locked(tmp_path: Path) -> ApiConfig:
    """A configuration with the keys `alpha` and `beta`."""
    file = tmp_path / "keys"
    file.write_text("# of the team\nalpha\n\nbeta # of a friend\n")
    return ApiConfig(api_keys_file=file)


async def test_without_keys_everything_is_open() -> None:
    async with client_of(FakeService()) as client:
        for headers in ({}, {"authorization": "Bearer"}, {"authorization": "Bearer whatever"}):
            assert (await client.post(SPEECH, json=BODY, headers=headers)).status_code == 200


@pytest.mark.parametrize("offered", [None, "Bearer", "Bearer wrong", "Bearer alph", "Basic alpha", "alpha", "Bearer é"])
async def test_wrong_keys(locked: ApiConfig, offered: str | None) -> None:
    headers = {} if offered is None else {b"authorization": offered.encode()}
    async with client_of(FakeService(), locked) as client:
        response = await client.post(SPEECH, json=BODY, headers=headers)
    assert assert_error(response, 401, "invalid_api_key")["type"] == "authentication_error"
    assert "wrong" not in response.text


async def test_right_keys(locked: ApiConfig) -> None:
    async with client_of(FakeService(), locked) as client:
        for headers in ({"authorization": "Bearer alpha"}, {"authorization": "bearer  beta"}):
            assert (await client.post(SPEECH, json=BODY, headers=headers)).status_code == 200
        assert (await client.post(SPEECH + "?token=beta", json=BODY)).status_code == 200


async def test_listings_need_a_key_unless_they_are_opened_to_readers(locked: ApiConfig) -> None:
    listings = ("/v1/models", "/v1/models/tts-1", "/v1/audio/models", "/v1/audio/voices")
    async with client_of(FakeService(), locked) as client:
        for path in listings:
            assert_error(await client.get(path), 401, "invalid_api_key")
            assert (await client.get(path, headers={"authorization": "Bearer alpha"})).status_code == 200
        for path in ("/health", "/ready"):
            assert (await client.get(path)).status_code == 200
    async with client_of(FakeService(), locked.model_copy(update={"listings_need_key": False})) as client:
        for path in listings:
            assert (await client.get(path)).status_code == 200
        assert_error(await client.delete("/v1/audio/voices/voice_1"), 401, "invalid_api_key")
        assert_error(await client.get("/v1/modelsx"), 401, "invalid_api_key")


def test_keys_from_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEYS", "one, two\nthree")
    assert load_keys(ApiConfig(api_keys_variable="SOME_KEYS")) == {"one", "two", "three"}


def test_a_named_place_without_keys_does_not_open_the_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "keys"
    empty.write_text("# nobody yet\n")
    monkeypatch.delenv("NO_SUCH_KEYS", raising=False)
    for config in (ApiConfig(api_keys_file=empty), ApiConfig(api_keys_variable="NO_SUCH_KEYS")):
        with pytest.raises(ValueError, match="no key"):
            load_keys(config)


async def test_limit_of_open_requests_is_per_key(locked: ApiConfig) -> None:
    service = FakeService(gate=asyncio.Semaphore(0))
    async with client_of(service, locked.model_copy(update={"max_streams_per_key": 1})) as client:

        async def speak(key: str) -> httpx.Response:
            return await client.post(SPEECH, json=BODY, headers={"authorization": f"Bearer {key}"})

        first = asyncio.create_task(speak("alpha"))
        await service.until_open(1)
        refused = await speak("alpha")
        assert_error(refused, 429, "overloaded")
        assert int(refused.headers["retry-after"]) <= 30
        other = asyncio.create_task(speak("beta"))
        await service.until_open(2)
        assert service.gate is not None
        for _ in range(20):
            service.gate.release()
        assert [(await first).status_code, (await other).status_code] == [200, 200]
        assert (await speak("alpha")).status_code == 200


async def test_cors_is_off_by_default() -> None:
    async with client_of(FakeService()) as client:
        response = await client.get("/health", headers={"origin": "http://page.example"})
    assert "access-control-allow-origin" not in response.headers


async def test_cors_allows_the_listed_origins_also_for_errors(locked: ApiConfig) -> None:
    config = locked.model_copy(update={"cors_allow_origins": ("http://page.example",)})
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,x-stainless-os"}
    async with client_of(FakeService(), config) as client:
        origin = {"origin": "http://page.example"}
        preflight = await client.options(SPEECH, headers={**origin, **asks})
        failed = await client.post(SPEECH, json=BODY, headers=origin)
        foreign = await client.get("/health", headers={"origin": "http://other.example"})
    assert preflight.status_code == 200
    assert "x-stainless-os" in preflight.headers["access-control-allow-headers"]
    assert preflight.headers["x-request-id"]
    assert failed.status_code == 401
    assert failed.headers["access-control-allow-origin"] == "http://page.example"
    assert failed.headers["access-control-expose-headers"] == "x-request-id, x-sample-rate"
    assert "access-control-allow-origin" not in foreign.headers
