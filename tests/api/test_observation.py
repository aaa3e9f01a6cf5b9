"""What is counted and logged of requests: over HTTP, and of speech whatever it came over."""

import logging
from typing import Any

import httpx
import pytest

from serve_app.api.ledger import Ledger
from serve_app.api.routes import create_api
from serve_app.config import ApiConfig
from serve_app.errors import Overloaded
from serve_app.messages import SpeechRequest
from tests.api.live import listening
from tests.fakes import FakeService
from tests.recorded import Recorded

SPEECH = "/v1/audio/speech"


async def counted(service: FakeService, *requests: tuple[str, str, Any]) -> Recorded:
    """What is recorded of requests: method, path, JSON body."""
    recorded = Recorded()
    async with (
        listening(create_api(service, ApiConfig(), recorded)) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        for method, path, body in requests:
            try:
                await client.request(method, path, json=body)
            except httpx.RemoteProtocolError:
                continue  # a stream that broke
    return recorded


async def test_requests_by_route_format_and_status() -> None:
    recorded = await counted(
        FakeService(),
        ("POST", SPEECH, {"input": "Hi.", "response_format": "pcm"}),
        ("POST", SPEECH, {"input": "Hi."}),
        ("POST", SPEECH, {"input": "Hi.", "response_format": "pcm", "stream_format": "sse"}),
        ("POST", SPEECH, {"input": "Hi.", "voice": "nobody"}),
        ("GET", "/v1/audio/voices/nobody", None),
        ("GET", "/v1/audio/voices/voice_1", None),
        ("GET", "/wp-admin/anything", None),
        ("GET", SPEECH, None),
    )
    requests = {key[1:]: amount for key, amount in recorded.sums.items() if key[0] == "cosyserve_requests"}
    voices = "/v1/audio/voices/{voice}"
    assert requests == {
        (SPEECH, "pcm", "200"): 1,
        (SPEECH, "mp3", "200"): 1,
        (SPEECH, "sse", "200"): 1,
        (SPEECH, "none", "400"): 1,
        (voices, "none", "404"): 1,
        (voices, "json", "200"): 1,
        ("unknown", "json", "404"): 1,
        (SPEECH, "json", "405"): 1,
    }
    errors = {key[1]: amount for key, amount in recorded.sums.items() if key[0] == "cosyserve_errors"}
    assert errors == {"voice_not_found": 1, "not_found": 1, "status_404": 1, "status_405": 1}
    assert recorded.sums["cosyserve_sent_bytes", "pcm"] == 24_000  # half a second


async def test_a_stream_that_breaks_is_no_success() -> None:
    service = FakeService(speak_error=Overloaded("full"), error_after=1)
    recorded = await counted(service, ("POST", SPEECH, {"input": "Hi.", "response_format": "pcm"}))
    assert recorded.sums["cosyserve_requests", SPEECH, "pcm", "broken"] == 1
    assert recorded.sums["cosyserve_errors", "overloaded"] == 1


async def test_speech_is_recorded_and_logged_with_its_id(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ray.serve.cosyserve")
    recorded, service = Recorded(), FakeService()
    ledger = Ledger(recorded)
    prepared = await ledger.prepared("id-1", service.prepare(SpeechRequest("id-1", "Do not log me.")))
    assert len([chunk async for chunk in ledger.heard(prepared, service.speak(prepared))]) == 3
    for name in ("ttfa_seconds", "audible_ttfa_seconds", "rtf", "underruns"):
        assert len(recorded.observed[(f"cosyserve_{name}",)]) == 1
    assert recorded.observed[("cosyserve_underruns",)] == [0]
    assert recorded.sums["cosyserve_speeches", "spoken"] == 1
    assert recorded.sums[("cosyserve_audio_seconds",)] == pytest.approx(0.5)
    assert recorded.values["cosyserve_in_flight", "speaking"] == 0
    [line] = caplog.records
    assert (line.__dict__["stage"], line.__dict__["speech_id"], line.__dict__["end"]) == ("ingress", "id-1", "spoken")
    assert line.__dict__["audio_s"] == 0.5 and line.__dict__["ttfa_s"] >= line.__dict__["prepare_s"]
    assert "Do not log me" not in line.getMessage()


async def test_refusals_have_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    recorded = Recorded()
    ledger = Ledger(recorded)
    with pytest.raises(Overloaded):
        await ledger.prepared("id-2", FakeService(prepare_error=Overloaded("full")).prepare(SpeechRequest("r", "Hi.")))
    assert recorded.sums["cosyserve_refusals", "Overloaded"] == 1
    assert recorded.sums["cosyserve_speeches", "refused"] == 1
    [line] = caplog.records
    assert line.levelno == logging.WARNING and line.__dict__["reason"] == "Overloaded"
