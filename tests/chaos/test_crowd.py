"""The cheap listener of the floods hears what a real HTTP client hears."""

from serve_app.api.routes import create_api
from serve_app.config import ApiConfig
from serve_app.errors import GenerationFailed, Overloaded
from tests.api.live import listening
from tests.chaos.crowd import overhear
from tests.chaos.listeners import client_for, listen, speech_body
from tests.fakes import FakeService, tone


async def test_it_hears_a_whole_body_a_refusal_and_a_broken_body_as_such() -> None:
    service = FakeService(samples=tone(24_000))
    async with listening(create_api(service, ApiConfig())) as port, client_for(f"http://127.0.0.1:{port}") as client:
        url = f"http://127.0.0.1:{port}"
        known, heard = await listen(client, speech_body()), await overhear(url, speech_body())
        assert heard.is_success and heard.is_gapless
        assert abs(heard.audio_s - known.audio_s) < 1e-6 and heard.audio_s > 0.5
        service.prepare_error = Overloaded("full")
        refused = await overhear(url, speech_body())
        assert (refused.status, refused.code, refused.is_success) == (429, "overloaded", False)
        assert refused.retry_after is not None and refused.answered_s > 0
        service.prepare_error = None
        service.speak_error, service.error_after = GenerationFailed("broke"), 1
        broken = await overhear(url, speech_body())
        assert broken.status == 200 and broken.arrivals and not broken.whole
