"""Clients that notice everything: when sound came, whether the body was whole, what a refusal said and how fast."""

import asyncio
import time
from dataclasses import dataclass, field

import httpx

from serve_app.loadtest.playback import Gap, SoundArrival, gaps

SENTENCE = "The train leaves the station at half past seven every morning, and nobody waits for it."
BYTES_PER_S = 48_000
"""Of s16le, mono, 24 kHz."""
PREBUFFER_S = 0.2
"""What a player has in hand before it starts."""
TIMEOUT = httpx.Timeout(120, connect=10)


@dataclass
class Heard:
    """What one client saw. status 0: no answer came. whole: the body ended as a whole body does.

    arrivals: when bytes came, in seconds since the request was sent. problem: what the transport reported.
    """

    status: int = 0
    code: str | None = None
    retry_after: str | None = None
    answered_s: float = 0.0
    ended_s: float = 0.0
    ended_at_s: float = 0.0
    whole: bool = False
    problem: str = ""
    arrivals: list[SoundArrival] = field(default_factory=list)

    @property
    def audio_s(self) -> float:
        return sum(arrival.audio_s for arrival in self.arrivals)

    @property
    def is_success(self) -> bool:
        return self.status == 200 and self.whole

    @property
    def began_at_s(self) -> float:
        return self.ended_at_s - self.ended_s

    @property
    def gaps(self) -> list[Gap]:
        """Where a player that starts with 200 ms in hand ran dry."""
        return gaps(self.arrivals, PREBUFFER_S) if self.arrivals else []

    @property
    def is_gapless(self) -> bool:
        return self.is_success and bool(self.arrivals) and not self.gaps

    def __str__(self) -> str:
        if self.status == 0:
            return f"no answer ({self.problem})"
        if self.status != 200:
            return f"{self.status} {self.code}"
        return f"200, {self.audio_s:.1f} s of sound, " + ("whole" if self.whole else f"broken ({self.problem})")


def speech_body(text: str = SENTENCE, **fields: object) -> dict[str, object]:
    """A request for PCM whose length depends on nothing but its seed."""
    return {"input": text, "response_format": "pcm", "seed": 7, **fields}


async def listen(
    client: httpx.AsyncClient,
    body: dict[str, object],
    *,
    begun: asyncio.Event | None = None,
    sent: asyncio.Event | None = None,
    parts: int | None = None,
) -> Heard:
    """One request for speech to its end, whatever that is; `parts`: leave abruptly after so many parts of sound.

    sent, begun: set when the request goes out, and when its first sound has come.
    """
    heard = Heard()
    started_s = time.monotonic()
    if sent is not None:
        sent.set()
    try:
        async with client.stream("POST", "/v1/audio/speech", json=body, timeout=TIMEOUT) as response:
            heard.status, heard.answered_s = response.status_code, time.monotonic() - started_s
            heard.retry_after = response.headers.get("retry-after")
            if response.status_code != 200:
                await response.aread()
                heard.code = error_code(response)
                heard.whole = True
                return heard
            async for part in response.aiter_raw():
                heard.arrivals.append(SoundArrival(time.monotonic() - started_s, len(part) / BYTES_PER_S))
                if begun is not None:
                    begun.set()
                if parts is not None and len(heard.arrivals) >= parts:
                    return heard
            heard.whole = True
    except httpx.HTTPError as error:
        heard.problem = type(error).__name__
    finally:
        heard.ended_at_s = time.monotonic()
        heard.ended_s = heard.ended_at_s - started_s
        if begun is not None:
            begun.set()
    return heard


def error_code(response: httpx.Response) -> str | None:
    """The code in an error's body; None where it is not our shape."""
    try:
        code: str | None = response.json()["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return None
    return code


def client_for(url: str, max_connections: int | None = None) -> httpx.AsyncClient:
    """For that service alone, whatever the environment's proxies are."""
    limits = httpx.Limits(max_connections=max_connections, max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=url, trust_env=False, limits=limits, timeout=TIMEOUT)


async def until_served(url: str, since_s: float, timeout_s: float = 120) -> tuple[float, list[str]]:
    """Asks ten times a second until a short request is whole. Seconds from `since_s` until its first sound came, and
    what was answered before.
    """
    refusals: list[str] = []
    async with client_for(url) as client:
        while time.monotonic() - since_s < timeout_s:
            asked_s = time.monotonic() - since_s
            heard = await listen(client, speech_body("Good morning."))
            if heard.is_success:
                return asked_s + heard.arrivals[0].at_s, refusals
            refusals.append(str(heard))
            await asyncio.sleep(0.1)
    raise AssertionError(f"the service did not come back in {timeout_s} s: {refusals[-3:]}")
