"""A real uvicorn on a free port of 127.0.0.1, in the test's own event loop."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from starlette.types import ASGIApp
from websockets.protocol import State

from serve_app.api.routes import create_api
from serve_app.api.service import SpeechService
from serve_app.config import ApiConfig


@asynccontextmanager
async def listening(app: ASGIApp) -> AsyncGenerator[int, None]:
    """The port on which `app` is served until the block ends."""
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="websockets-sansio")
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        # what `Server.serve` does, less its signal handlers and its tenth of a second between looks at the clock
        await server.startup(sockets=[listener])
        try:
            yield listener.getsockname()[1]
        finally:
            while any(map(is_closing, server.server_state.connections)):  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.005)
            await server.shutdown(sockets=[listener])


def is_closing(connection: Any) -> bool:
    """Whether it is a WebSocket between its two close frames, which uvicorn 0.54 fails to shut down."""
    return getattr(getattr(connection, "conn", None), "state", None) is State.CLOSING


@asynccontextmanager
async def client_of(service: SpeechService, config: ApiConfig | None = None) -> AsyncGenerator[httpx.AsyncClient, None]:
    """An HTTP client of the whole API over `service`, through a real server."""
    async with (
        listening(create_api(service, config or ApiConfig())) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False) as client,
    ):
        yield client


def raw_request(body: bytes, path: str = "/v1/audio/speech", method: str = "POST") -> bytes:
    """A whole HTTP/1.1 request, as bytes for a socket."""
    head = f"{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def assert_error(response: httpx.Response, status: int, code: str | None, param: str | None = None) -> dict[str, Any]:
    """Check the one shape of all errors, and return the inner object."""
    assert response.status_code == status, response.text
    assert response.headers["x-request-id"]
    body = response.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    assert isinstance(error["message"], str) and error["message"]
    assert "Traceback" not in response.text
    return error
