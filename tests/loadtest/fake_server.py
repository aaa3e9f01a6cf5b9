"""A text-to-speech server whose every answer is known beforehand, behind a real uvicorn."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from starlette.types import Receive, Scope, Send

RATE_HZ = 24_000
WAV_HEADER = (
    b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0\xc0\x5d\0\0\x80\xbb\0\0\x02\0\x10\0data\xff\xff\xff\xff"
)


def tone(seconds: float) -> bytes:
    """Loud s16le."""
    return (10_000 * np.sin(np.arange(round(seconds * RATE_HZ)) / 10)).astype("<i2").tobytes()


def silence(seconds: float) -> bytes:
    return bytes(2 * round(seconds * RATE_HZ))


@dataclass(frozen=True)
class Answer:
    """parts: seconds to wait, and what to send then. breaks: end in the middle of the body."""

    parts: tuple[tuple[float, bytes], ...] = ((0.0, tone(0.2)),)
    status: int = 200
    content_type: str = "audio/pcm"
    breaks: bool = False
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass
class FakeServer:
    """An ASGI app. answer: by the text that is asked for. bodies, headers: of the requests so far."""

    answer: Callable[[str], Answer] = lambda text: Answer()
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[bytes, bytes]] = field(default_factory=list)
    open: int = 0
    most_open: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = b""
        more = True
        while more:
            message = await receive()
            raw += message.get("body", b"")
            more = message.get("more_body", False)
        body = json.loads(raw)
        self.bodies.append(body)
        self.headers.append(dict(scope["headers"]))
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            await self.send_answer(self.answer(body["input"]), send)
        finally:
            self.open -= 1

    async def send_answer(self, answer: Answer, send: Send) -> None:
        waits = list(answer.parts)
        if waits:
            await asyncio.sleep(waits[0][0])
        headers = [(b"content-type", answer.content_type.encode()), *answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        for index, (wait_s, data) in enumerate(waits):
            if index:
                await asyncio.sleep(wait_s)
            await send({"type": "http.response.body", "body": data, "more_body": True})
        if answer.breaks:
            # uvicorn closes the connection without the chunk that ends the body
            raise RuntimeError("broken on purpose")
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class AnnouncedServer(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()


@asynccontextmanager
async def listening(app: FakeServer) -> AsyncGenerator[str, None]:
    """The URL at which `app` is served until the block ends."""
    server = AnnouncedServer(
        uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=0, ws="none")
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await server.listens.wait()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task
