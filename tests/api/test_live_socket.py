"""The WebSocket for text that is still being written, through a real server and a real client."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from serve_app import errors
from serve_app.api.encoders import to_pcm16
from serve_app.api.routes import create_api
from serve_app.config import ApiConfig
from serve_app.messages import ReferenceClip
from tests.api.live import listening
from tests.fakes import FakeService, tone

ROUTE = "/v1/audio/speech/stream"
BY_SENTENCE = ApiConfig(text_streaming="sentence")


class Client:
    """One connection, with everything it has been sent, in order."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def until(self, kind: str) -> tuple[dict[str, Any], bytes]:
        """The next event of that kind, and the audio before it; other events must not come in between."""
        audio = b""
        while True:
            frame = await asyncio.wait_for(self.socket.recv(), 5)
            if isinstance(frame, bytes):
                audio += frame
                continue
            event = json.loads(frame)
            assert event["type"] == kind, event
            return event, audio

    async def until_closed(self) -> int:
        """The close code. Nothing but audio may come before it."""
        with pytest.raises(ConnectionClosed):
            while True:
                assert isinstance(await asyncio.wait_for(self.socket.recv(), 5), bytes)
        assert self.socket.close_code is not None
        return self.socket.close_code


@asynccontextmanager
async def connected(
    service: FakeService, config: ApiConfig | None = None, query: str = "", **options: Any
) -> AsyncGenerator[Client, None]:
    async with (
        listening(create_api(service, config or BY_SENTENCE)) as port,
        connect(f"ws://127.0.0.1:{port}{ROUTE}{query}", proxy=None, **options) as socket,
    ):
        yield Client(socket)


async def test_a_whole_session() -> None:
    service = FakeService()
    async with connected(service, additional_headers={"x-request-id": "mine"}) as client:
        await client.say("session.config", voice="voice_1", speed=1.5, seed=3)
        await client.say("input.text", text="First sentence here. Second ")
        await client.say("input.text", text="sentence.")
        await client.say("input.done")
        start, _ = await client.until("audio.start")
        done, audio = await client.until("audio.done")
        await client.until("session.done")
        assert await client.until_closed() == 1000
    assert start == {"type": "audio.start", "id": "mine-1", "response_format": "pcm", "sample_rate": 24_000}
    # 3 and 2 words; two pieces of three chunks of five tokens
    usage = {"input_tokens": 5, "output_tokens": 30, "total_tokens": 35}
    assert done == {"type": "audio.done", "id": "mine-1", "cancelled": False, "usage": usage}
    assert audio == to_pcm16(service.samples) * 2
    assert [request.text for request in service.requests] == ["First sentence here.", " Second sentence."]
    assert {(r.voice, r.speed, r.seed, r.request_id) for r in service.requests} == {("voice_1", 1.5, 3, "mine-1")}


async def test_the_first_sentence_is_heard_before_the_last_word_is_sent() -> None:
    service = FakeService()
    async with connected(service) as client:
        for word in ["The", "first", "sentence", "is", "here.", "And"]:
            await client.say("input.text", text=word + " ")
        await client.until("audio.start")
        first = await asyncio.wait_for(client.socket.recv(), 5)
        assert first == to_pcm16(service.samples[:4_800])
        for word in ["then", "comes", "another"]:
            await client.say("input.text", text=word + " ")
        await client.say("input.flush")
        _, rest = await client.until("audio.done")
    assert first + rest == to_pcm16(service.samples) * 2


async def test_each_flush_ends_one_file() -> None:
    service = FakeService()
    async with connected(service) as client:
        await client.say("session.config", response_format="wav")
        for _ in range(2):
            await client.say("input.text", text="Some words")
            await client.say("input.flush")
            await client.until("audio.start")
            _, audio = await client.until("audio.done")
            assert audio.count(b"RIFF") == 1
            assert audio[44:] == to_pcm16(service.samples)


async def test_text_without_a_word_is_done_at_once() -> None:
    async with connected(FakeService()) as client:
        await client.say("input.text", text=" ... ")
        await client.say("input.flush")
        await client.until("audio.start")
        done, audio = await client.until("audio.done")
    assert audio == b"" and done["usage"]["total_tokens"] == 0


async def test_barge_in_stops_the_sound_and_forgets_the_text() -> None:
    service = FakeService(samples=tone(240_000), stall_after=1)
    async with connected(service) as client:
        await client.say("input.text", text="A long story begins. It goes on.\nAnd on.\n")
        await client.until("audio.start")
        await asyncio.wait_for(client.socket.recv(), 5)
        await client.say("input.cancel")
        done, _ = await client.until("audio.done")
        assert done["cancelled"] is True
        assert service.open_streams == 0
        service.stall_after = None
        await client.say("input.text", text="Something else.")
        await client.say("input.flush")
        start, late = await client.until("audio.start")
        assert late == b""
        assert start["id"] != done["id"]
        _, audio = await client.until("audio.done")
        assert audio == to_pcm16(service.samples)
    said = [request.text for request in service.requests]
    assert (said[0], said[-1]) == ("A long story begins.", "Something else.")


async def test_cancel_after_done_still_says_goodbye() -> None:
    service = FakeService(stall_after=1)
    async with connected(service) as client:
        await client.say("input.text", text="A long story.")
        await client.say("input.done")
        await client.until("audio.start")
        await client.say("input.cancel")
        await client.until("audio.done")
        await client.until("session.done")
        assert await client.until_closed() == 1000


async def test_close_does_not_wait() -> None:
    service = FakeService(stall_after=1)
    async with connected(service) as client:
        await client.say("input.text", text="A long story.\n")
        await client.until("audio.start")
        await client.say("session.close")
        await client.until("session.done")
        assert await client.until_closed() == 1000
        assert service.open_streams == 0


@pytest.mark.parametrize(
    ("frame", "code", "param"),
    [
        ("{", "invalid_value", None),
        ("[]", "invalid_value", None),
        ('{"type":"input.shout"}', "invalid_value", "type"),
        ('{"type":"input.text","text":7}', "invalid_value", "text"),
        ('{"type":"input.text","text":"\\ud800"}', "invalid_value", None),
        ('{"type":"session.config","speed":9}', "invalid_value", "speed"),
        ('{"type":"session.config","model":"x"}', "model_not_found", "model"),
        ('{"type":"session.config","ref_audio":"http://x/y"}', "invalid_audio", "ref_audio"),
        (b"\x00", "invalid_value", None),
    ],
)
async def test_mistakes_are_told_and_forgiven(frame: str | bytes, code: str, param: str | None) -> None:
    async with connected(FakeService()) as client:
        await client.socket.send(frame)
        event, _ = await client.until("error")
        assert (event["error"]["code"], event["error"]["param"]) == (code, param)
        await client.say("input.text", text="Still here.")
        await client.say("input.flush")
        await client.until("audio.start")
        await client.until("audio.done")


async def test_an_unknown_voice_is_told_and_can_be_mended() -> None:
    async with connected(FakeService()) as client:
        await client.say("session.config", voice="nobody")
        await client.say("input.text", text="Hello there.\n")
        event, _ = await client.until("error")
        assert event["error"]["code"] == "voice_not_found"
        await client.say("session.config", voice="default")
        await client.say("input.text", text="Hello there.\n")
        await client.until("audio.start")


@pytest.mark.parametrize(
    ("error", "code", "close"),
    [
        (errors.Overloaded("Full."), "overloaded", 1013),
        (errors.NotReady("Not yet."), "not_ready", 1013),
        (errors.GenerationFailed("secret"), "internal_error", 1011),
        (ValueError("secret"), "internal_error", 1011),
    ],
)
async def test_failures_are_told_before_the_close(error: Exception, code: str, close: int) -> None:
    async with connected(FakeService(speak_error=error)) as client:
        await client.say("input.text", text="Hello there.\n")
        event, _ = await client.until("error")
        assert event["error"]["code"] == code
        assert "secret" not in json.dumps(event)
        assert await client.until_closed() == close


async def test_reference_clip_in_the_config() -> None:
    service = FakeService()
    clip = bytes(range(256)) * 2_000
    async with connected(service, max_size=None) as client:
        await client.say("session.config", ref_audio=base64.b64encode(clip).decode(), ref_text="Words.")
        await client.say("input.text", text="Hello there.\n")
        await client.until("audio.start")
    assert service.requests[0].reference == ReferenceClip(clip, "Words.")


async def test_frames_and_texts_have_limits() -> None:
    config = ApiConfig(max_body_bytes=1024, max_reference_bytes=1024, max_pending_characters=100)
    async with connected(FakeService(stall_after=0), config) as client:
        await client.say("input.text", text="a" * 101)
        event, _ = await client.until("error")
        assert event["error"]["code"] == "string_above_max_length"
        await client.say("input.text", text="a" * 5_000)
        assert await client.until_closed() == 1009


@pytest.mark.parametrize("stall_after", [0, 1])
async def test_fifty_dropped_sockets_leave_nothing(stall_after: int) -> None:
    service = FakeService(samples=np.zeros(240_000, np.float32), stall_after=stall_after)
    async with listening(create_api(service, ApiConfig())) as port:
        sockets = [await connect(f"ws://127.0.0.1:{port}{ROUTE}", proxy=None) for _ in range(50)]
        for socket in sockets:
            await Client(socket).say("input.text", text="Hello there.\n")
        await service.until_open(50)
        for socket in sockets:
            socket.transport.abort()
        await service.until_open(0)
        for socket in sockets:
            await socket.wait_closed()


async def test_a_socket_needs_a_key_in_any_of_three_places(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("alpha\n")
    config = ApiConfig(api_keys_file=keys)
    ways: list[dict[str, Any]] = [
        {"additional_headers": {"authorization": "Bearer alpha"}},
        {"query": "?token=alpha"},
        {"subprotocols": ["cosyserve", "bearer.alpha"]},
        {"subprotocols": ["openai-insecure-api-key.alpha"]},
    ]
    for options in ways:
        async with connected(FakeService(), config, **options) as client:
            await client.say("session.close")
            await client.until("session.done")
            if "subprotocols" in options:
                assert client.socket.subprotocol == options["subprotocols"][0]
    for query in ("", "?token=beta"):
        async with connected(FakeService(), config, query) as client:
            assert await client.until_closed() == 1008


async def test_a_foreign_page_may_not_connect() -> None:
    async with connected(FakeService(), origin="http://page.example") as client:
        assert await client.until_closed() == 1008
    allowed = ApiConfig(cors_allow_origins=("http://page.example",))
    async with connected(FakeService(), allowed, origin="http://page.example") as client:
        await client.say("session.close")
        await client.until("session.done")
