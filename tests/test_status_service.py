"""`GET /v1/status` of the real service."""

import threading
import time
from typing import Any

import httpx
import pytest

from serve_app.api.status import MAX_AGE_S
from tests.conftest import Service

pytestmark = pytest.mark.service

SENTENCE = "The train leaves the station at half past seven every morning. "


def body(text: str = SENTENCE, voice: str = "default") -> dict[str, Any]:
    return {"input": text, "voice": voice, "response_format": "pcm", "seed": 7}


def test_figures_come_from_every_stage_and_count_what_was_spoken(service: Service) -> None:
    with httpx.Client(base_url=service.url, timeout=120) as client:

        def status() -> Any:
            time.sleep(MAX_AGE_S)  # so that the answer is of now
            return client.get("/v1/status").json()

        before = status()
        assert before["ready"] is True
        replicas = {name: stage["replicas"] for name, stage in before["stages"].items()}
        assert replicas == {"ingress": 1, "preprocess": 1, "synthesis": 1}

        long_text = body(SENTENCE * 60)
        speaking = threading.Thread(target=lambda: client.post("/v1/audio/speech", json=long_text))
        speaking.start()
        during = []
        while speaking.is_alive():
            during.append(status())
        assert client.post("/v1/audio/speech", json=body(voice="nobody")).status_code == 400
        after = status()

    assert before["stages"]["synthesis"]["streams"] == 0
    busy = next(moment for moment in during if moment["stages"]["synthesis"]["streams"] == 1)
    assert busy["stages"]["ingress"]["requests"] == 1
    assert busy["replicas"][0]["streams"] == 1 and busy["replicas"][0]["spare"] >= 0
    idle = {"replicas": 1, "waiting_for_sound": 0, "streams": 0}
    assert after["stages"]["synthesis"] == idle | {"spare": after["replicas"][0]["spare"]}
    # At least this test's own: what others did before is in the window too, or has left it meanwhile.
    assert after["recent"]["spoken"] >= 1
    assert after["recent"]["invalid"] >= 1
    assert after["ttfa_ms"]["count"] >= 1
    assert 0 < after["ttfa_ms"]["p50"] <= after["ttfa_ms"]["p99"] < 60_000
