"""Counts HTTP requests: by route, format and status, with the bytes of their answers; failures also go to the log."""

from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app import metrics
from serve_app.api.boundary import request_id
from serve_app.api.error_table import ClientLeft, row_of
from serve_app.metrics import Recorder
from serve_app.stage_log import log_stage

FORMATS = {
    **{"audio/mpeg": "mp3", "audio/ogg": "opus", "audio/aac": "aac", "audio/flac": "flac", "audio/wav": "wav"},
    **{"audio/pcm": "pcm", "text/event-stream": "sse", "application/json": "json"},
}


class Observation:
    """Pure ASGI, inside `Boundary`, which answers what is raised through here."""

    def __init__(self, app: ASGIApp, recorder: Recorder) -> None:
        self.app = app
        self.recorder = recorder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, media, num_bytes, whole = "", "none", 0, False

        async def watched_send(message: Message) -> None:
            nonlocal status, media, num_bytes, whole
            if message["type"] == "http.response.start":
                status, media = str(message["status"]), media_format(message)
            elif message["type"] == "http.response.body":
                num_bytes += len(message.get("body", b""))
                whole = not message.get("more_body", False)
            await send(message)

        code = ""
        try:
            await self.app(scope, receive, watched_send)
        except ClientLeft:
            status = "left"
            raise
        except Exception as error:
            row = row_of(error)
            status, code = ("broken" if status else str(row.status)), row.code or str(row.status)
            raise
        finally:
            if not status or (status.isdigit() and media != "none" and not whole and not code):
                status = "left"
            self.count(scope, media, status, num_bytes)
            if code or status[0] in "45":
                code = code or f"status_{status}"
                self.recorder.add(metrics.ERRORS, code=code)
                if status != "broken":  # of those the ledger has told more
                    log_stage("http", request_id(scope), "failed" if status[0] == "5" else "invalid", code=code)

    def count(self, scope: Scope, media: str, status: str, num_bytes: int) -> None:
        # A path that no route has is not a label: anybody could make up any number of them.
        route: Any = scope.get("route")
        endpoint = getattr(route, "path", "unknown")
        self.recorder.add(metrics.REQUESTS, endpoint=endpoint, format=media, status=status)
        self.recorder.add(metrics.SENT_BYTES, num_bytes, format=media)


def media_format(start: Message) -> str:
    """The bounded name of an answer's media type."""
    for name, value in start.get("headers", ()):
        if name.lower() == b"content-type":
            return FORMATS.get(value.decode("latin-1").partition(";")[0], "other")
    return "none"
