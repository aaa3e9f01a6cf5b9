"""The DashScope protocol: its own SDK, and by hand what the SDK does not do."""

import asyncio
import json
import threading
import warnings
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from serve_app import errors
from serve_app.api.encoders import encoder_for, to_pcm16
from serve_app.api.routes import create_api
from serve_app.config import ApiConfig
from tests.api.live import listening
from tests.fakes import FakeService, tone

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import dashscope
    from dashscope.audio import tts_v2
    from dashscope.common.error import InvalidTask, RequestFailure

ROUTE = "/api-ws/v1/inference"
BY_SENTENCE = ApiConfig(text_streaming="sentence")


async def with_sdk(service: FakeService, use: Callable[[str], Any], config: ApiConfig | None = None) -> Any:
    """Run `use(url)` in a thread: the SDK blocks."""
    dashscope.api_key = "any"
    async with listening(create_api(service, config or BY_SENTENCE)) as port:
        return await asyncio.to_thread(use, f"ws://127.0.0.1:{port}{ROUTE}")


async def test_sdk_call() -> None:
    service = FakeService()

    def use(url: str) -> Any:
        return tts_v2.SpeechSynthesizer(model="cosyvoice-v2", voice="voice_1", url=url).call("Hello there. And more.")

    audio = await with_sdk(service, use)
    encoder = encoder_for("mp3", 22_050)
    assert audio == encoder.begin() + b"".join(encoder.encode(service.samples) for _ in range(2)) + encoder.flush()
    assert [(request.text, request.voice) for request in service.requests] == [
        ("Hello there.", "voice_1"),
        (" And more.", "voice_1"),
    ]


class Collector(tts_v2.ResultCallback):
    """What the SDK reports."""

    def __init__(self) -> None:
        self.audio = b""
        self.events: list[str] = []
        self.closed = threading.Event()

    def on_open(self) -> None:
        self.events.append("open")

    def on_complete(self) -> None:
        self.events.append("complete")

    def on_error(self, message: Any) -> None:
        self.events.append(json.loads(message)["header"]["error_code"])

    def on_close(self) -> None:
        self.events.append("close")
        self.closed.set()

    def on_data(self, data: bytes) -> None:
        self.audio += data


def pcm_synthesizer(url: str, callback: Collector, **more: Any) -> Any:
    pcm = tts_v2.AudioFormat.PCM_24000HZ_MONO_16BIT
    settings = {"model": "cosyvoice-v2", "voice": "default", "format": pcm, **more}
    return tts_v2.SpeechSynthesizer(url=url, callback=callback, **settings)


async def test_sdk_streaming() -> None:
    service = FakeService()
    collector = Collector()

    def use(url: str) -> None:
        synthesizer = pcm_synthesizer(url, collector, speech_rate=1.5, instruction="softly", seed=4)
        for word in ["One ", "sentence ", "here. ", "Another"]:
            synthesizer.streaming_call(word)
        synthesizer.streaming_flush()
        synthesizer.streaming_call(" and a third")
        synthesizer.streaming_complete()

    await with_sdk(service, use)
    assert collector.audio == to_pcm16(service.samples) * 3
    assert collector.events == ["open", "complete", "close"]
    assert [request.text for request in service.requests] == ["One sentence here.", " Another", " and a third"]
    assert {(r.speed, r.instructions, r.seed) for r in service.requests} == {(1.5, "softly", 4)}


async def test_sdk_cancel() -> None:
    service = FakeService(samples=tone(240_000), stall_after=1)
    collector = Collector()

    def use(url: str) -> None:
        synthesizer = pcm_synthesizer(url, collector)
        synthesizer.streaming_call("A long story begins here.\n")
        synthesizer.streaming_cancel()

    await with_sdk(service, use)
    assert collector.events[-2:] == ["complete", "close"]
    assert service.open_streams == 0


@pytest.mark.parametrize(
    ("service", "more", "code"),
    [
        (FakeService(), {"voice": "nobody"}, "InvalidParameter"),
        (FakeService(), {"model": "cosyvoice-v9"}, "ModelNotFound"),
        (FakeService(), {"pitch_rate": 1.5}, "InvalidParameter"),
        (FakeService(speak_error=errors.Overloaded("Full.")), {}, "Throttling"),
        (FakeService(speak_error=errors.GenerationFailed("secret")), {}, "InternalError"),
    ],
)
async def test_sdk_hears_of_failures(service: FakeService, more: dict[str, Any], code: str) -> None:
    collector = Collector()

    def use(url: str) -> None:
        synthesizer = pcm_synthesizer(url, collector, **more)
        try:
            synthesizer.call("Hello there.\n")
        except (ConnectionError, RequestFailure, InvalidTask):
            return  # the failure came before the text was sent
        assert collector.closed.wait(5)
        synthesizer.close()

    await with_sdk(service, use)
    assert code in collector.events
    assert "secret" not in str(collector.events)


class Raw:
    """The protocol by hand."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def command(self, action: str, task_id: str = "t1", **payload: Any) -> None:
        await self.socket.send(json.dumps({"header": {"action": action, "task_id": task_id}, "payload": payload}))

    async def run_task(self, task_id: str = "t1", **parameters: Any) -> None:
        await self.command("run-task", task_id, parameters={"format": "pcm", "sample_rate": 24000, **parameters})

    async def until(self, name: str, task_id: str = "t1") -> tuple[dict[str, Any], bytes]:
        """The next event but those of sentences, which must be that one, and the audio before it."""
        audio = b""
        while True:
            frame = await asyncio.wait_for(self.socket.recv(), 5)
            if isinstance(frame, bytes):
                audio += frame
                continue
            event: dict[str, Any] = json.loads(frame)
            if event["header"]["event"] == "result-generated":
                continue
            assert (event["header"]["event"], event["header"]["task_id"]) == (name, task_id), event
            return event, audio


@asynccontextmanager
async def by_hand(service: FakeService, config: ApiConfig | None = None) -> AsyncGenerator[Raw, None]:
    async with (
        listening(create_api(service, config or BY_SENTENCE)) as port,
        connect(f"ws://127.0.0.1:{port}{ROUTE}", proxy=None) as socket,
    ):
        yield Raw(socket)


async def test_several_tasks_on_one_connection() -> None:
    service = FakeService()
    async with by_hand(service) as raw:
        for task_id in ("a", "b"):
            await raw.run_task(task_id)
            await raw.until("task-started", task_id)
            await raw.command("continue-task", task_id, input={"text": "Hello there."})
            await raw.command("finish-task", task_id, input={})
            event, audio = await raw.until("task-finished", task_id)
            assert audio == to_pcm16(service.samples)
            assert event["payload"]["usage"] == {"characters": 12}


async def test_volume_is_a_gain() -> None:
    service = FakeService()
    async with by_hand(service) as raw:
        await raw.run_task(volume=25)
        await raw.until("task-started")
        await raw.command("continue-task", input={"text": "Hello there."})
        await raw.command("finish-task", input={})
        _, audio = await raw.until("task-finished")
    assert audio == to_pcm16(service.samples * np.float32(0.5))


async def test_task_starts_before_any_model_work() -> None:
    service = FakeService(prepare_gate=asyncio.Semaphore(0))
    async with by_hand(service) as raw:
        await raw.run_task()
        await raw.until("task-started")
    assert not service.requests


async def test_silence_of_the_client_fails_the_task_and_then_ends_the_connection() -> None:
    async with by_hand(FakeService(), ApiConfig(socket_input_s=0.1, socket_idle_s=1.0)) as raw:
        await raw.run_task()
        await raw.until("task-started")
        event, _ = await raw.until("task-failed")
        assert event["header"]["error_code"] == "InputTimeout"
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(raw.socket.recv(), 5)
    assert raw.socket.close_code == 1000


async def test_a_task_that_only_speaks_on_is_not_hurried() -> None:
    service = FakeService(gate=asyncio.Semaphore(0))
    async with by_hand(service, ApiConfig(socket_input_s=1.5, text_streaming="sentence")) as raw:
        await raw.run_task()
        await raw.until("task-started")
        await raw.command("continue-task", input={"text": "Hello there."})
        await raw.command("finish-task", input={})
        await service.until_open(1)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(raw.socket.recv(), 1.8)
        assert service.gate is not None
        for _ in range(5):
            service.gate.release()
        _, audio = await raw.until("task-finished")
        assert audio == to_pcm16(service.samples)


@pytest.mark.parametrize(
    "frame",
    [
        "{",
        '{"header":{"action":"shout","task_id":"t1"}}',
        '{"header":{"action":"continue-task","task_id":"t1"},"payload":{"input":{"text":"x"}}}',
        '{"header":{"action":"run-task","task_id":"t1"},"payload":{"parameters":{"sample_rate":1}}}',
        '{"header":{"action":"run-task","task_id":"t1"},"payload":{"parameters":{"rate":"NaN"}}}',
        b"\x00",
    ],
)
async def test_mistakes_fail_and_the_connection_lives_on(frame: str | bytes) -> None:
    async with by_hand(FakeService()) as raw:
        await raw.socket.send(frame)
        event = json.loads(await asyncio.wait_for(raw.socket.recv(), 5))
        assert event["header"]["event"] == "task-failed"
        assert event["header"]["error_code"] == "InvalidParameter"
        await raw.run_task()
        await raw.until("task-started")


async def test_a_task_has_a_limit_of_characters() -> None:
    async with by_hand(FakeService(stall_after=0)) as raw:
        await raw.run_task()
        await raw.until("task-started")
        await raw.command("continue-task", input={"text": "a" * 20_001})
        event, _ = await raw.until("task-failed")
        assert event["header"]["error_code"] == "InvalidParameter"


async def test_a_dropped_socket_frees_its_stream() -> None:
    service = FakeService(stall_after=1)
    async with listening(create_api(service, ApiConfig())) as port:
        socket = await connect(f"ws://127.0.0.1:{port}{ROUTE}", proxy=None)
        raw = Raw(socket)
        await raw.run_task()
        await raw.command("continue-task", input={"text": "Hello there.\n"})
        await service.until_open(1)
        socket.transport.abort()
        await service.until_open(0)
        await socket.wait_closed()
