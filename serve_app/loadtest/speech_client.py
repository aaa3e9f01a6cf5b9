"""One request for speech over HTTP, and what became of it.

aiohttp, since the tester must not be what is measured: with 64 streams of 10 chunks a second each it took a third of
httpx's CPU time, and its p99 from the server's write to here was a sixth of httpx's.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass
from io import BytesIO
from types import TracebackType

import aiohttp

from serve_app.loadtest.faults import BadAudio
from serve_app.loadtest.measures import StreamFigures, measure
from serve_app.loadtest.playback import BodyEvent
from serve_app.loadtest.target import Target

MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_DETAIL_CHARACTERS = 200
IDLE_CONNECTION_S = 2.0
"""Shorter than any server's own limit, so that no request is lost on a connection that the server is just closing."""
AUDIO_TYPES = ("audio/", "application/octet-stream", "binary/octet-stream")


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """What became of one request. due_s and sent_s are in seconds since the run began; latencies count from due_s.

    ended_s: when it was over, in seconds since due_s. error: empty, or one of `connect` (no connection), `disconnect`
    (closed before an answer), `status_NNN`, `timeout`, `broken_body` (cut in the middle), `bad_audio` (whole, but not
    the sound that was asked for), `client_full` (not sent: too many open streams here). figures: None if it failed.
    """

    index: int
    text: str
    due_s: float
    sent_s: float
    ended_s: float
    status: int | None = None
    error: str = ""
    error_detail: str = ""
    figures: StreamFigures | None = None


class RequestFailed(Exception):
    """A request without whole sound. kind: as in `RequestRecord.error`."""

    def __init__(self, kind: str, detail: str, status: int | None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.status = status


class SpeechClient:
    """Sends requests to one target, any number at a time. To be used in `async with`."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._bodies: dict[str, bytes] = {}

    async def __aenter__(self) -> "SpeechClient":
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_CONNECTION_S),
            timeout=aiohttp.ClientTimeout(total=self.target.timeout_s),
            headers=self.target.headers(),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def speak(self, index: int, text: str, run_start_s: float, due_s: float) -> RequestRecord:
        """Ask for `text` and read the whole answer. It never fails: what went wrong is in the record.

        run_start_s: `time.monotonic()` when the run began. due_s: when this was to be sent, in seconds since then.
        """
        origin_s = run_start_s + due_s
        sent_s = time.monotonic() - run_start_s
        status: int | None = None
        error = detail = ""
        figures: StreamFigures | None = None
        try:
            status, figures = await self._stream(self._body(text), origin_s)
        except RequestFailed as failure:
            status, error, detail = failure.status, failure.kind, str(failure)
        ended_s = time.monotonic() - origin_s
        return RequestRecord(index, text, due_s, sent_s, ended_s, status, error, detail, figures)

    def _body(self, text: str) -> bytes:
        """Made once for each text: a reference clip is long."""
        if text not in self._bodies:
            self._bodies[text] = self.target.body(text)
        return self._bodies[text]

    async def _stream(self, body: bytes, origin_s: float) -> tuple[int, StreamFigures]:
        """Status and figures of one whole answer. Errors: `RequestFailed`."""
        status: int | None = None
        try:
            # a file, since aiohttp writes one piece by piece, and raw bytes at once, however many
            data = BytesIO(body)
            async with self._session.post(self.target.endpoint, data=data, allow_redirects=False) as response:
                status = response.status
                if status != 200:
                    raise RequestFailed(f"status_{status}", await error_text(response), status)
                if not response.content_type.startswith(AUDIO_TYPES):
                    raise RequestFailed("bad_audio", f"content type {shortened(response.content_type)}", status)
                events = await read_events(response, origin_s)
                end_s = time.monotonic() - origin_s
                rate_hz = stated_rate_hz(response, self.target.pcm_rate_hz)
            return status, measure(events, end_s, self.target.audio_format, rate_hz)
        except BadAudio as error:
            raise RequestFailed("bad_audio", str(error), status) from error
        except asyncio.TimeoutError as error:
            raise RequestFailed("timeout", f"after {self.target.timeout_s:g} s", status) from error
        except (aiohttp.ClientConnectorError, aiohttp.InvalidURL) as error:
            raise RequestFailed("connect", shortened(str(error)), status) from error
        except (aiohttp.ClientError, OSError) as error:
            kind = "disconnect" if status is None else "broken_body"
            raise RequestFailed(kind, shortened(str(error)), status) from error


async def read_events(response: aiohttp.ClientResponse, origin_s: float) -> list[BodyEvent]:
    """The body as it arrives. Errors: `BadAudio` if it does not seem to end, and aiohttp's own."""
    events: list[BodyEvent] = []
    num_bytes = 0
    async for data in response.content.iter_any():
        events.append(BodyEvent(time.monotonic() - origin_s, data))
        num_bytes += len(data)
        if num_bytes > MAX_BODY_BYTES:
            raise BadAudio(f"more than {MAX_BODY_BYTES} bytes")
    return events


async def error_text(response: aiohttp.ClientResponse) -> str:
    """The beginning of a refusal's body, as one line."""
    text = b""
    with contextlib.suppress(aiohttp.ClientError):
        text = await response.content.read(2048)
    return shortened(text.decode("utf-8", "replace"))


def stated_rate_hz(response: aiohttp.ClientResponse, otherwise: int) -> int:
    """The sample rate of a pcm answer, by its `x-sample-rate` or its media type's `rate`."""
    stated = response.headers.get("x-sample-rate", "")
    if not stated:
        for parameter in response.headers.get("content-type", "").split(";")[1:]:
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "rate":
                stated = value.strip()
    return int(stated) if stated.isascii() and stated.isdigit() and 0 < int(stated) <= 384_000 else otherwise


def shortened(text: str) -> str:
    """One printable line."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(line.split())[:MAX_DETAIL_CHARACTERS]
