"""Text that is still being written, through the real service: a word at a time in, sound out before the last word."""

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.conftest import Service

pytestmark = pytest.mark.service

SENTENCE = (
    "When the sunlight strikes the raindrops in the air they act as a prism and form a rainbow of many beautiful "
    "colours over the hills"
)
WORDS = SENTENCE.split()
PATIENCE_S = 60


class Live:
    """Our own protocol."""

    path = "/v1/audio/speech/stream"

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def write(self, text: str) -> None:
        await self.say("input.text", text=text)

    async def end(self) -> None:
        await self.say("input.flush")

    async def frame(self) -> bytes | dict[str, Any]:
        frame = await asyncio.wait_for(self.socket.recv(), PATIENCE_S)
        event: dict[str, Any] = {} if isinstance(frame, bytes) else json.loads(frame)
        assert event.get("type") != "error", event
        return frame if isinstance(frame, bytes) else event

    async def sound(self) -> bytes | None:
        while not isinstance(frame := await self.frame(), bytes):
            if frame["type"] == "audio.done":
                return None
        return frame


class Dashscope:
    """DashScope's, with one task."""

    path = "/api-ws/v1/inference"

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.running = False

    async def command(self, action: str, **payload: Any) -> None:
        await self.socket.send(json.dumps({"header": {"action": action, "task_id": "t"}, "payload": payload}))

    async def write(self, text: str) -> None:
        if not self.running:
            self.running = True
            await self.command("run-task", parameters={"format": "pcm", "sample_rate": 24_000})
        await self.command("continue-task", input={"text": text})

    async def end(self) -> None:
        await self.command("finish-task", input={})

    async def sound(self) -> bytes | None:
        while True:
            frame = await asyncio.wait_for(self.socket.recv(), PATIENCE_S)
            if isinstance(frame, bytes):
                return frame
            event = json.loads(frame)["header"]
            assert event["event"] != "task-failed", event
            if event["event"] == "task-finished":
                return None


def connected(service: Service, path: str) -> connect:
    return connect(service.url.replace("http", "ws") + path, proxy=None, max_size=None)


@pytest.mark.parametrize("protocol", [Live, Dashscope])
async def test_the_first_sound_comes_before_the_last_word_is_sent(
    service: Service, protocol: type[Live | Dashscope]
) -> None:
    async with connected(service, protocol.path) as socket:
        client = protocol(socket)
        for word in WORDS[:-3]:
            await client.write(word + " ")
        # nothing else is sent until there is sound, however long that takes
        heard = [await client.sound()]
        assert heard[0]
        for word in WORDS[-3:]:
            await client.write(word + " ")
        await client.end()
        while (audio := await client.sound()) is not None:
            heard.append(audio)
    num_bytes = sum(len(audio or b"") for audio in heard)
    assert num_bytes > 3 * 48_000, "more than three seconds for twenty-four words"
    assert await asyncio.to_thread(service.num_open_streams) == 0


async def test_barge_in_while_the_sentence_is_still_being_written(service: Service) -> None:
    async with connected(service, Live.path) as socket:
        client = Live(socket)
        for word in WORDS[:-3]:
            await client.write(word + " ")
        assert await client.sound()
        await client.say("input.cancel")
        while isinstance(done := await client.frame(), bytes):
            pass  # what was under way
        assert (done["type"], done["cancelled"]) == ("audio.done", True)
        await client.write("Now for something else, and nothing of before. ")
        await client.end()
        start = await client.frame()
        assert isinstance(start, dict) and start["type"] == "audio.start", "no sound between the two"
        assert start["id"] != done["id"]
        while await client.sound():
            pass
    assert await asyncio.to_thread(service.num_open_streams) == 0


async def test_fifty_abandoned_sentences_leave_no_open_stream(service: Service) -> None:
    async def abandon(number: int) -> None:
        async with connected(service, Live.path) as socket:
            client = Live(socket)
            for word in WORDS[: 4 + number % len(WORDS)]:
                await client.write(word + " ")
            if number % 3 == 0:
                await asyncio.sleep(0.01 * (number % 7))
            elif number % 3 == 1 and number % len(WORDS) > 15:
                await client.sound()
            if number % 2:
                socket.transport.abort()

    for start in range(0, 50, 5):
        await asyncio.gather(*(abandon(start + offset) for offset in range(5)))
    for _ in range(100):
        if (num_open := await asyncio.to_thread(service.num_open_streams)) == 0:
            break
    assert num_open == 0
