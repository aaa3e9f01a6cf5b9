"""Pipecat's OpenAI TTS service, in a pipeline, against a running one; in an environment of its own (`__main__.py`).

Usage: pipecat_client.py URL
"""

import asyncio
import json
import sys

import numpy as np
from pipecat.frames.frames import ErrorFrame, TTSAudioRawFrame, TTSSpeakFrame
from pipecat.services.openai.tts import OpenAITTSService
from pipecat.tests.utils import run_test

SENTENCE = "The train leaves the station at half past seven every morning."


async def frames_of(url: str, instructions: str) -> tuple[list[object], list[object]]:
    """What the pipeline sent downstream and upstream for the sentence."""
    service = OpenAITTSService(
        api_key="any",
        base_url=f"{url}/v1",
        settings=OpenAITTSService.Settings(voice="alloy", instructions=instructions),
    )
    down, up = await run_test(service, frames_to_send=[TTSSpeakFrame(SENTENCE)])
    return list(down), list(up)


async def main(url: str) -> None:
    down, up = await frames_of(url, "Speak calmly.")
    sound = [frame for frame in down if isinstance(frame, TTSAudioRawFrame)]
    assert not [frame for frame in (*down, *up) if isinstance(frame, ErrorFrame)]
    samples = np.frombuffer(b"".join(frame.audio for frame in sound), np.int16)
    assert {frame.sample_rate for frame in sound} == {24_000}
    assert np.abs(samples.astype(np.int32)).max() > 100, "silence"
    seconds = len(samples) / 24_000
    assert seconds > 0.5
    down, up = await frames_of(url, "x" * 1001)  # more than the server takes
    errors = [frame.error for frame in (*down, *up) if isinstance(frame, ErrorFrame)]
    assert any("1000" in error for error in errors), errors
    assert not [frame for frame in down if isinstance(frame, TTSAudioRawFrame)]
    print(json.dumps({"client": "pipecat", "seconds": round(seconds, 2)}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
