"""The server under test, and what is asked of it."""

import base64
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from serve_app.loadtest.faults import LoadTestError

DEFAULT_TEXTS = (
    "Hello, I am your voice assistant.",
    "The train to the coast leaves at half past seven, from platform two.",
    "Good morning! It will stay dry until noon, then a little rain may fall in the hills.",
    "Please call me back when you have read my message.",
)


@dataclass(frozen=True, slots=True)
class Target:
    """endpoint: the full URL of `/v1/audio/speech`. audio_format: "pcm" or "wav".

    pcm_rate_hz: assumed of a pcm answer that does not state its rate. reference: a clip to clone, as a file's bytes.
    timeout_s: for a whole request.
    """

    endpoint: str
    model: str = "tts-1"
    voice: str | None = None
    audio_format: str = "pcm"
    pcm_rate_hz: int = 24_000
    api_key: str = ""
    instructions: str = ""
    reference: bytes | None = None
    reference_text: str = ""
    timeout_s: float = 30.0

    def headers(self) -> dict[str, str]:
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if self.api_key:
            headers["authorization"] = f"Bearer {self.api_key}"
        return headers

    def body(self, text: str) -> bytes:
        """The JSON of one request. Only fields that were asked for are sent: not every server ignores the others."""
        fields: dict[str, Any] = {"model": self.model, "input": text, "response_format": self.audio_format}
        if self.voice is not None:
            fields["voice"] = self.voice
        if self.instructions:
            fields["instructions"] = self.instructions
        if self.reference is not None:
            fields["ref_audio"] = "data:audio/wav;base64," + base64.b64encode(self.reference).decode()
            if self.reference_text:
                fields["ref_text"] = self.reference_text
        return json.dumps(fields, ensure_ascii=False).encode()

    def public_endpoint(self) -> str:
        """The endpoint without a user, password or query, for reports."""
        parts = urlsplit(self.endpoint)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def endpoint_of(url: str) -> str:
    """The speech endpoint, of a server's root, of an OpenAI base URL (ending in /v1), or of the endpoint itself.

    Errors: `LoadTestError`.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it is what checks it
    except ValueError as error:
        raise LoadTestError(f"not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise LoadTestError(f"{url!r} is no URL of the form http://HOST:PORT")
    path = parts.path.rstrip("/")
    if not path.endswith("/audio/speech"):
        path += "/audio/speech" if path.endswith("/v1") else "/v1/audio/speech"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
