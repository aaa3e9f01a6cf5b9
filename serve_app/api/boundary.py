"""The two middlewares around every request, pure ASGI: `BaseHTTPMiddleware` would hide a client that leaves."""

import logging
import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api.error_table import INTERNAL, ClientLeft, error_response, row_of
from serve_app.errors import SpeechError

logger = logging.getLogger("serve_app.api")

SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def request_id(scope: Scope) -> str:
    """The id that `RequestIds` gave to this request."""
    identifier: str = scope["state"]["request_id"]
    return identifier


class RequestIds:
    """Gives every request an id, the client's own if it is sane, and every answer the header `x-request-id`.

    Every answer also forbids browsers to take it for another type than it says.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        offered = Headers(scope=scope).get("x-request-id", "")
        identifier = offered if SANE_ID.fullmatch(offered) else f"req_{uuid.uuid4().hex}"
        # A copy: a lifespan's state dict is shared by all requests.
        scope["state"] = {**scope.get("state", {}), "request_id": identifier}

        async def send_with_id(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept", "websocket.http.response.start"):
                message = {**message, "headers": list(message.get("headers", []))}
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = identifier
                headers["x-content-type-options"] = "nosniff"
            await send(message)

        await self.app(scope, receive, send_with_id)


class Boundary:
    """The one place where exceptions become answers.

    Before the first byte: the error's own status and body. After it: the request ends without the chunk that would
    close the body, so the server cuts the connection and no client takes half a sentence for the whole. No traceback
    goes further than our log.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        except ClientLeft:
            return
        except Exception as error:  # noqa: BLE001 - this is the boundary
            self.log(error, request_id(scope), started)
            if not started:
                await error_response(error)(scope, receive, send)

    @staticmethod
    def log(error: Exception, identifier: str, started: bool) -> None:
        """One line for a stream that broke, a traceback only for the unforeseen, nothing for a client's mistake."""
        foreseen = isinstance(error, SpeechError)
        if started and foreseen:
            logger.error("request %s broke after its first byte: %s: %s", identifier, type(error).__name__, error)
        elif row_of(error) is INTERNAL:
            logger.error("request %s failed: %s", identifier, error, exc_info=None if foreseen else error)
