"""A WebSocket as JSON text frames in, JSON and binary frames out."""

import json
from typing import Any

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from serve_app.api.access import TRY_AGAIN_LATER, accepted_subprotocol
from serve_app.api.error_table import ClientLeft, invalid_field, row_of

NORMAL = 1000
TOO_BIG = 1009
INTERNAL_ERROR = 1011


class Frames:
    """One accepted connection."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.socket = WebSocket(scope, receive, send)

    async def accept(self) -> None:
        await self.socket.accept(subprotocol=accepted_subprotocol(dict(self.socket.scope)))

    async def next(self, max_bytes: int) -> bytes:
        """The next text frame, encoded. Errors: `ClientLeft`; `ApiError` 400 for a binary frame.

        A frame over `max_bytes` closes the connection with 1009.
        """
        message = await self.socket.receive()
        if message["type"] == "websocket.disconnect":
            raise ClientLeft
        text = message.get("text")
        if text is None:
            raise invalid_field(None, "Only text frames with JSON are understood.")
        # a lone surrogate cannot be encoded, and fails as JSON later
        data = str(text).encode("utf-8", "replace")
        if len(data) > max_bytes:
            await self.close(TOO_BIG, "The frame is too big.")
            raise ClientLeft
        return data

    async def send(self, event: dict[str, Any]) -> None:
        """Errors: `ClientLeft`."""
        await self._sent({"type": "websocket.send", "text": json.dumps(event, separators=(",", ":"))})

    async def send_audio(self, data: bytes) -> None:
        """One binary frame; none for no bytes. Waits while the client reads slowly. Errors: `ClientLeft`."""
        if data:
            await self._sent({"type": "websocket.send", "bytes": data})

    async def close(self, code: int, reason: str = "") -> None:
        """Nothing if it is closed already."""
        if self.socket.application_state is WebSocketState.CONNECTED:
            try:
                await self.socket.close(code, reason)
            except (RuntimeError, WebSocketDisconnect):
                return  # the client was faster

    async def _sent(self, message: dict[str, Any]) -> None:
        if self.socket.application_state is not WebSocketState.CONNECTED:
            raise ClientLeft
        try:
            await self.socket.send(message)
        except (RuntimeError, WebSocketDisconnect):
            raise ClientLeft from None


def close_code(error: Exception) -> int | None:
    """The code that ends a connection after `error`; None for an error that the client can do something about."""
    status = row_of(error).status
    if status in (429, 503):
        return TRY_AGAIN_LATER
    return INTERNAL_ERROR if status >= 500 else None
