"""Settings of the edge that change while it serves: new requests have them, open streams go on."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from pydantic import ValidationError

from serve_app.api.ingress import Ingress, Replaceable
from serve_app.api.routes import create_api
from serve_app.config import ApiConfig
from tests.api.live import listening
from tests.fakes import FakeService

CONFIG = ApiConfig(default_voice="default", max_input_characters=100)


async def test_new_requests_have_the_new_settings_and_open_streams_go_on() -> None:
    service = FakeService(gate=asyncio.Semaphore(1))
    ingress = SimpleNamespace(newest_app=None)
    app = create_api(service, CONFIG)
    app.add_middleware(Replaceable, ingress=cast(Ingress, ingress))
    body: dict[str, Any] = {"model": "tts-1", "input": "Hello.", "response_format": "pcm"}
    async with listening(app) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        async with client.stream("POST", "/v1/audio/speech", json=body) as reply:
            parts = reply.aiter_raw()
            received = len(await anext(parts))
            ingress.newest_app = create_api(service, CONFIG.with_live({"default_voice": "voice_1"}))
            assert service.gate is not None
            for _ in range(100):
                service.gate.release()
            other = await client.post("/v1/audio/speech", json=body)
            received += sum([len(part) async for part in parts])
        too_long = await client.post("/v1/audio/speech", json=body | {"input": "a" * 101})
    assert [request.voice for request in service.requests] == ["default", "voice_1"]
    assert received == len(other.content) == 2 * len(service.samples)
    assert too_long.status_code == 400, "what was not given is as it was"


@pytest.mark.parametrize(
    "user_config", [{"default_voic": "x"}, {"max_input_characters": 5}, {"max_streams_per_key": 0}]
)
def test_what_cannot_change_is_refused(user_config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CONFIG.with_live(user_config)
