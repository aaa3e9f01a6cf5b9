"""Voices that belong to keys, over every way in; and that a key is asked for, and never written down."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route, WebSocketRoute
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from serve_app.api.access import POLICY_VIOLATION, load_keys
from serve_app.api.routes import create_api
from serve_app.config import ApiConfig
from tests.api.live import assert_error, listening
from tests.fakes import FakeService

VOICES, SPEECH = "/v1/audio/voices", "/v1/audio/speech"
LIVE, DASHSCOPE = "/v1/audio/speech/stream", "/api-ws/v1/inference"
ANN, BEN = "key-of-ann", "key-of-ben"
OPEN = {"/", "/studio/{name}", "/health", "/ready", "/docs", "/openapi.json"}
LISTINGS = {VOICES, VOICES + "/{voice}", "/v1/audio/models", "/v1/models", "/v1/models/{model:path}"}


@pytest.fixture
def config(tmp_path: Path) -> ApiConfig:
    file = tmp_path / "keys"
    file.write_text(f"{ANN}\n{BEN}\n")
    return ApiConfig(api_keys_file=file, voices_per_key=True)


@pytest.fixture
def readable(config: ApiConfig) -> ApiConfig:
    """Everybody may read the listings."""
    return config.model_copy(update={"listings_need_key": False})


@asynccontextmanager
async def tenants(config: ApiConfig) -> AsyncGenerator[tuple[FakeService, int, httpx.AsyncClient], None]:
    service = FakeService()
    async with (
        listening(create_api(service, config)) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        yield service, port, client


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


async def add_voice(client: httpx.AsyncClient, key: str) -> httpx.Response:
    files = {"audio_sample": ("clip.wav", b"RIFF", "audio/wav")}
    return await client.post(VOICES, data={"name": "Secret"}, files=files, headers=bearer(key))


async def names(client: httpx.AsyncClient, key: str) -> tuple[set[str], set[str]]:
    """The voices in both kinds of listing."""
    listed = (await client.get(VOICES, headers=bearer(key))).json()["voices"]
    [model] = (await client.get("/v1/models", headers=bearer(key))).json()["data"]
    return {voice["name"] for voice in listed}, {voice["name"] for voice in model["voices"]}


async def test_a_tenants_voice_is_nowhere_for_the_others(readable: ApiConfig) -> None:
    async with tenants(readable) as (_, _, client):
        voice = (await add_voice(client, ANN)).json()
        everybodys = {"default", "Ünal"}
        assert await names(client, ANN) == (everybodys | {"Secret"}, everybodys | {"Secret"})
        for key in (BEN, "", "wrong"):
            assert await names(client, key) == (everybodys, everybodys)
        for wanted in (voice["id"], "Secret"):
            path = f"{VOICES}/{wanted}"
            of_another = await client.delete(path, headers=bearer(BEN))
            of_nobody = await client.delete(f"{VOICES}/never-was", headers=bearer(BEN))
            assert_error(of_another, 404, "not_found")
            assert of_another.json() == of_nobody.json()
            assert_error(await client.get(path, headers=bearer(BEN)), 404, "not_found")
            assert_error(await client.get(path), 404, "not_found")
            assert_error(await client.delete(path), 401, "invalid_api_key")
            assert (await client.get(path, headers=bearer(ANN))).json()["id"] == voice["id"]
            body = {"input": "Hi.", "voice": wanted, "response_format": "pcm"}
            refused = await client.post(SPEECH, json=body, headers=bearer(BEN))
            unknown = await client.post(SPEECH, json=body | {"voice": "never-was"}, headers=bearer(BEN))
            assert_error(refused, 400, "voice_not_found", "voice")
            assert refused.json() == unknown.json()
            assert (await client.post(SPEECH, json=body, headers=bearer(ANN))).status_code == 200
            form = {"tts_text": "Hi.", "spk_id": wanted}
            assert (await client.post("/inference_sft", data=form, headers=bearer(ANN))).status_code == 200
            refused = await client.post("/inference_sft", data=form, headers=bearer(BEN))
            assert_error(refused, 400, "voice_not_found", "voice")


async def test_a_taken_name_says_nothing_to_another_tenant(config: ApiConfig) -> None:
    async with tenants(config) as (_, _, client):
        first, again, other = [await add_voice(client, key) for key in (ANN, ANN, BEN)]
    assert (first.status_code, other.status_code) == (200, 200)
    assert_error(again, 409, "voice_exists", "name")


async def test_sockets_use_the_voices_of_their_key(config: ApiConfig) -> None:
    async with tenants(config) as (service, port, client):
        await add_voice(client, ANN)
        for key in (ANN, BEN):
            async with connect(f"ws://127.0.0.1:{port}{LIVE}?token={key}", proxy=None) as socket:
                for frame in ({"type": "session.config", "voice": "Secret"}, {"type": "input.text", "text": "Hi."}):
                    await socket.send(json.dumps(frame))
                await socket.send(json.dumps({"type": "input.flush"}))
                event = json.loads(await asyncio.wait_for(socket.recv(), 5))
                assert event["type"] == ("audio.start" if key == ANN else "error"), event
            async with connect(
                f"ws://127.0.0.1:{port}{DASHSCOPE}", additional_headers=bearer(key), proxy=None
            ) as socket:
                for action in ("run-task", "continue-task", "finish-task"):
                    payload: dict[str, Any] = {"input": {"text": "Hi."}, "parameters": {"voice": "Secret"}}
                    await socket.send(json.dumps({"header": {"action": action, "task_id": "t"}, "payload": payload}))
                last = await asyncio.wait_for(last_event(socket), 5)
                assert last == ("task-finished" if key == ANN else "task-failed")
    assert len({request.owner for request in service.requests}) == 2


async def last_event(socket: Any) -> str:
    """The name of the DashScope event that ends a task."""
    while True:
        frame = await socket.recv()
        if isinstance(frame, str):
            name: str = json.loads(frame)["header"]["event"]
            if name in ("task-finished", "task-failed"):
                return name


async def test_ownership_without_keys_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="voices_per_key needs keys"):
        load_keys(ApiConfig(voices_per_key=True))


async def test_every_route_but_health_and_the_page_asks_for_a_key(config: ApiConfig) -> None:
    asked = set()
    async with tenants(config) as (service, port, client):
        for route in create_api(service, config).routes:
            if isinstance(route, WebSocketRoute):
                async with connect(f"ws://127.0.0.1:{port}{route.path}?token=wrong", proxy=None) as socket:
                    with pytest.raises(ConnectionClosed):
                        await asyncio.wait_for(socket.recv(), 5)
                assert socket.close_code == POLICY_VIOLATION
                asked.add(route.path)
                continue
            assert isinstance(route, Route)
            for method in route.methods or {"GET"}:
                path = route.path.replace("{name}", "studio.js").replace("{voice}", "v").replace("{model:path}", "m")
                response = await client.request(method, path)
                if route.path in OPEN:
                    assert response.status_code == 200, path
                else:
                    assert response.status_code == 401, (method, path)
                    asked.add(route.path)
    assert {LIVE, DASHSCOPE, SPEECH, VOICES, "/inference_sft"} | LISTINGS <= asked


async def test_no_key_reaches_a_log(config: ApiConfig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with tenants(config) as (service, port, client):
        service.prepare_error = RuntimeError("a bug, whose traceback is logged")
        body = {"input": "Hi."}
        for key in (ANN, "not-a-key-at-all"):
            await client.post(SPEECH, json=body, headers=bearer(key))
            await client.post(f"{SPEECH}?token={key}", json=body)
            async with connect(f"ws://127.0.0.1:{port}{LIVE}?token={key}", proxy=None) as socket:
                await socket.close()
    assert "a bug, whose traceback" in caplog.text
    for record in caplog.records:
        # What prints addresses here is the server of the tests, and the clients; Ray's server is silenced by Ray, and
        # the logs of the real service are searched in tests/chaos.
        if not record.name.startswith("serve_app"):
            continue
        text = logging.Formatter().format(record)
        assert ANN not in text, record.name
        assert "not-a-key-at-all" not in text, record.name
