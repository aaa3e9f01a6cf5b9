"""What a service can do at most: with as many listeners as it admits, and nobody beside them who is refused."""

import asyncio
import time
from dataclasses import dataclass

from tests.chaos.crowd import overhear
from tests.chaos.listeners import Heard, speech_body

NUM_ASKING = 8
"""As many as `configs/local.yaml` has places."""
WARM_UP_S = 5.0
CALIBRATION_S = 25.0
TRY_AGAIN_S = 0.1


@dataclass(frozen=True, slots=True)
class Rate:
    """What a service makes: seconds of sound per second, and requests of the flood's kind per second."""

    num_clients: int
    audio_s_per_s: float
    requests_per_s: float

    def __str__(self) -> str:
        return f"{self.audio_s_per_s:.1f} s of sound/s, {self.requests_per_s:.2f} requests/s by {self.num_clients}"


async def capacity(url: str) -> Rate:
    """Of this service. What is refused takes time, too: so the loop has no more clients than are admitted."""
    together = await asyncio.gather(*(overhear(url, speech_body(seed=number)) for number in range(NUM_ASKING)))
    num_clients = max(1, sum(heard.is_success for heard in together))
    begin_s = time.monotonic() + WARM_UP_S
    end_s = begin_s + CALIBRATION_S
    heard: list[Heard] = []

    async def ask_again(client_number: int) -> None:
        while time.monotonic() < end_s:
            heard.append(await overhear(url, speech_body(seed=client_number)))
            if not heard[-1].is_success:
                await asyncio.sleep(TRY_AGAIN_S)

    await asyncio.gather(*(ask_again(number) for number in range(num_clients)))
    return rate_within(heard, begin_s, end_s, num_clients)


def rate_within(heard: list[Heard], begin_s: float, end_s: float, num_clients: int) -> Rate:
    """Of the sound that came between two moments, whenever its request began or ended."""
    whole = [one for one in heard if one.is_success]
    assert whole, "no request was completed"
    came_s = 0.0
    for one in whole:
        came_s += sum(each.audio_s for each in one.arrivals if begin_s <= one.began_at_s + each.at_s < end_s)
    audio_s_per_s = came_s / (end_s - begin_s)
    return Rate(num_clients, audio_s_per_s, audio_s_per_s * len(whole) / sum(one.audio_s for one in whole))
