"""Between the page and the real service: hears all that the service says, and decides when the page gets to hear it.

So a test has a service that is always faster than a listener, or one that falls behind, whatever the machine is doing.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tests.web.server import TAP

SPEECH = "/v1/audio/speech"
NOT_PASSED_ON = {"connection", "content-length", "transfer-encoding"}


@dataclass
class Relay:
    """HTTP alone; WebSockets are not passed on. The worklet that listens is here too.

    hold_after: so many bytes of speech are passed on as soon as they are there, the rest after `released`. None: speech
    is passed on when it is complete. bodies: what the service answered to each request for speech, as far as it has.
    """

    client: httpx.AsyncClient
    hold_after: int | None = None
    released: asyncio.Event = field(default_factory=asyncio.Event)
    bodies: list[bytearray] = field(default_factory=list)

    def app(self) -> Starlette:
        methods = ["GET", "POST", "DELETE"]
        return Starlette(routes=[Route("/tap.js", self.tap), Route("/{path:path}", self.pass_on, methods=methods)])

    async def tap(self, request: Request) -> Response:
        return Response(TAP, media_type="text/javascript")

    async def pass_on(self, request: Request) -> Response:
        headers = [(name, value) for name, value in request.headers.items() if name not in NOT_PASSED_ON]
        content = await request.body()
        sent = self.client.build_request(request.method, request.url.path, headers=headers, content=content)
        answer = await self.client.send(sent, stream=True)
        kept = {name: value for name, value in answer.headers.items() if name not in NOT_PASSED_ON}
        parts = self.speech(answer) if request.url.path == SPEECH else untouched(answer)
        return StreamingResponse(parts, answer.status_code, kept)

    async def speech(self, answer: httpx.Response) -> AsyncGenerator[bytes, None]:
        body = bytearray()
        self.bodies.append(body)
        num_passed = 0
        async with aclosing(answer):
            async for part in answer.aiter_raw():
                body += part
                if self.hold_after is not None and num_passed == 0 and len(body) >= self.hold_after:
                    num_passed = self.hold_after
                    yield bytes(body[:num_passed])
        if num_passed:
            await self.released.wait()
        yield bytes(body[num_passed:])


async def untouched(answer: httpx.Response) -> AsyncGenerator[bytes, None]:
    async with aclosing(answer):
        async for part in answer.aiter_raw():
            yield part
