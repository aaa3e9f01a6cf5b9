"""Reading a request's body: bounded in bytes and in time."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from serve_app.api.error_table import HTTP_ROWS, ApiError, ClientLeft

TOO_LARGE = "The request body is too large."
TOO_SLOW = "The request body did not arrive in time."


async def read_body(scope: Scope, receive: Receive, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body.

    Errors: `ApiError` 413 over `max_bytes`, refused before it is read where the client declares its length; 408 when
    it is not complete after `timeout_s`; `ClientLeft`.
    """
    declared = Headers(scope=scope).get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise ApiError(HTTP_ROWS[413], TOO_LARGE)
    try:
        return await asyncio.wait_for(_read(receive, max_bytes), timeout_s)
    except asyncio.TimeoutError:
        raise ApiError(HTTP_ROWS[408], TOO_SLOW) from None


async def _read(receive: Receive, max_bytes: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        body += message.get("body", b"")
        if len(body) > max_bytes:
            raise ApiError(HTTP_ROWS[413], TOO_LARGE)
        if not message.get("more_body", False):
            return bytes(body)
