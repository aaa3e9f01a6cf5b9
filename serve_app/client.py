"""A client of a running service: what the commands ask of it over HTTP. Every failure is one `ServiceFault`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

DEFAULT_URL = "http://127.0.0.1:8000"


class ServiceFault(Exception):
    """What the user should read: the service's own message, or why it could not be asked."""


@dataclass(frozen=True, slots=True)
class SpeechStream:
    """An answer that has begun. chunks: its bytes, as they arrive; raises ServiceFault when it breaks off."""

    sample_rate_hz: int
    chunks: Iterator[bytes]


class Client:
    """To be used in `with`. url: the service's root or its `/v1`."""

    def __init__(self, url: str, api_key: str = "", timeout_s: float = 60.0) -> None:
        """timeout_s: how long the service may send nothing at all."""
        self.url = url.rstrip("/").removesuffix("/v1")
        self._timeout_s = timeout_s
        if not api_key.isascii() or not api_key.isprintable():
            raise ServiceFault("the API key holds characters that no HTTP header can")
        self._http = httpx.Client(
            headers={"authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout_s, connect=10.0),
            trust_env=not _is_loopback(self.url),  # a proxy from the environment cannot reach this machine's loopback
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    @contextmanager
    def speak(self, body: Mapping[str, object]) -> Iterator[SpeechStream]:
        """`POST /v1/audio/speech`; yields once the answer has begun."""
        with (
            self._explained(),
            self._http.stream("POST", f"{self.url}/v1/audio/speech", json=dict(body)) as response,
        ):
            if response.status_code != 200:
                response.read()
                raise ServiceFault(self._refusal(response))
            kind = response.headers.get("content-type", "")
            if not kind.startswith("audio/"):
                raise ServiceFault(f"{self.url} answers with {kind or 'something'}, not with audio")
            rate = response.headers.get("x-sample-rate", "")
            yield SpeechStream(int(rate) if rate.isdecimal() else 24_000, response.iter_raw())

    def voices(self) -> list[dict[str, Any]]:
        """Every voice, as the listing has it."""
        listed = self._json("GET", "/v1/audio/voices").get("voices")
        if not isinstance(listed, list) or not all(isinstance(voice, dict) for voice in listed):
            raise ServiceFault(f"{self.url} answers with something that is no list of voices")
        return listed

    def add_voice(self, clip: Path, fields: Mapping[str, str]) -> dict[str, Any]:
        """Registers a clip; returns the voice with its `quality`. Raises OSError when the clip cannot be read."""
        files = {"audio_sample": (clip.name, clip.read_bytes(), "application/octet-stream")}
        return self._json("POST", "/v1/audio/voices", data=dict(fields), files=files)

    def remove_voice(self, voice: str) -> None:
        """Deletes a voice, by id or name."""
        self._json("DELETE", f"/v1/audio/voices/{quote(voice, safe='')}")

    def _json(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        with self._explained():
            response = self._http.request(method, self.url + path, **content)
        if not response.is_success:
            raise ServiceFault(self._refusal(response))
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ServiceFault(f"{self.url} answers with something that is not this service's JSON")
        return answer

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Every error of the connection, as a ServiceFault in plain words."""
        try:
            yield
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            raise ServiceFault(f"{self.url} is no address of a service; {DEFAULT_URL} would be one") from None
        except httpx.ConnectError as error:
            raise ServiceFault(f"nothing answers at {self.url} ({error}); is the service running?") from None
        except httpx.TimeoutException:
            raise ServiceFault(f"{self.url} has sent nothing for {self._timeout_s:g} s") from None
        except httpx.HTTPError as error:
            raise ServiceFault(f"the connection to {self.url} broke off: {error}") from None

    def _refusal(self, response: httpx.Response) -> str:
        """The service's one clear message, and what helps with it."""
        try:
            message = str(response.json()["error"]["message"])
        except (ValueError, KeyError, TypeError):
            return f"{self.url} answers with HTTP {response.status_code}, and not as this service does"
        if response.status_code == 401:
            return f"{message} Give --api-key, or set COSYSERVE_API_KEY."
        if "retry-after" in response.headers:
            return f"{message} Try again in {response.headers['retry-after']} s."
        if response.status_code >= 500 and "x-request-id" in response.headers:
            return f"{message} Its log has more under the request id {response.headers['x-request-id']}."
        return message


def _is_loopback(url: str) -> bool:
    try:
        return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
    except ValueError:  # no address at all, as the first request will say
        return False
