"""LiveKit's OpenAI TTS class against a running service. Runs in an environment of its own: `python -m tests.clients`.

Usage: livekit_client.py URL
"""

import asyncio
import json
import sys

import numpy as np
from livekit.agents import APIStatusError
from livekit.plugins import openai

SENTENCE = "The train leaves the station at half past seven every morning."


async def spoken_s(tts: openai.TTS) -> float:
    """Seconds of sound for the sentence. Raises AssertionError if it is silent."""
    num_samples = peak = 0
    async with tts.synthesize(SENTENCE) as stream:
        async for part in stream:
            samples = np.frombuffer(part.frame.data, np.int16)
            num_samples += len(samples)
            peak = max(peak, int(np.abs(samples.astype(np.int32)).max(initial=0)))
            assert part.frame.sample_rate == 24_000
    assert peak > 100, "silence"
    return num_samples / 24_000


async def main(url: str) -> None:
    seconds = {}
    for response_format, model in (
        ("mp3", "gpt-4o-mini-tts"),  # the defaults: server-sent events
        ("mp3", "tts-1"),  # audio
        ("opus", "tts-1"),
        ("wav", "tts-1"),
        ("pcm", "gpt-4o-mini-tts"),
    ):
        tts = openai.TTS(base_url=f"{url}/v1", api_key="any", model=model, response_format=response_format)
        seconds[f"{response_format} {model}"] = round(await spoken_s(tts), 2)
        await tts.aclose()
    assert min(seconds.values()) > 0.5, seconds
    tts = openai.TTS(base_url=f"{url}/v1", api_key="any", voice="nobody")
    try:
        await spoken_s(tts)
    except APIStatusError as error:
        assert error.status_code == 400, error
    else:
        raise AssertionError("an unknown voice was spoken with")
    await tts.aclose()
    print(json.dumps({"client": "livekit", "seconds": seconds}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
