"""Listeners who take their speech in real time and stay until they are told to leave."""

import threading
import time
from dataclasses import dataclass, field

import httpx

SENTENCE = "The train leaves the station at half past seven every morning. "
SAMPLES_PER_S = 24_000


@dataclass
class Listener:
    """One long request. status: None until the server has answered; problem: what ended it other than its own wish.

    received: (seconds since it was sent, bytes) of each part of the body.
    """

    url: str
    text: str = SENTENCE * 60
    voice: str = "default"
    status: int | None = None
    problem: str = ""
    ended: bool = False
    received: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        body = {"input": self.text, "voice": self.voice, "response_format": "pcm", "seed": 7}
        started_s = time.monotonic()
        try:
            with httpx.stream("POST", self.url + "/v1/audio/speech", json=body, timeout=120) as reply:
                self.status = reply.status_code
                for part in reply.iter_raw():
                    self.received.append((time.monotonic() - started_s, len(part)))
                    if self._leave.is_set():
                        return
            self.ended = True
        except httpx.HTTPError as error:
            self.problem = f"{type(error).__name__}: {error}"

    @property
    def is_listening(self) -> bool:
        return self._thread.is_alive() and bool(self.received)

    def leave(self) -> None:
        """Goes away at the next part of the body."""
        self._leave.set()

    def wait(self) -> None:
        """Until it has ended, in whatever way."""
        self._thread.join()

    def stalled_s(self) -> float:
        """Seconds that a player without a prebuffer stood still for want of sound."""
        if not self.received:
            return 0.0
        stalled_s, dry_s = 0.0, self.received[0][0]
        for at_s, size in self.received:
            stalled_s += max(0.0, at_s - dry_s)
            dry_s = max(dry_s, at_s) + size / 2 / SAMPLES_PER_S
        return stalled_s
