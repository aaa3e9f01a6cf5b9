"""Audio as server-sent events, as OpenAI sends it: base64 deltas, then one event with the usage."""

import base64
import json
from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import Any

from serve_app.api.audio_stream import Usage
from serve_app.api.error_table import error_body
from serve_app.api.timings import Timeline
from serve_app.errors import SpeechError


async def as_events(
    parts: AsyncGenerator[bytes, None], usage: Usage, timeline: Timeline | None = None
) -> AsyncGenerator[bytes, None]:
    """One event for every part; the deltas, joined, are the plain answer's bytes.

    timeline: of the parts; each of its timings is an event after the part that completed it.
    After an error an event that tells of it goes out, and the error on: the body then breaks off as any other does.
    """
    begun = False
    try:
        async for part in parts:
            begun = True
            # the first part may be empty, and must still pass on the news that there is sound
            yield event("speech.audio.delta", {"audio": base64.b64encode(part).decode()}) if part else b""
            for timing in timeline.take() if timeline is not None else ():
                yield event("speech.audio.timing", asdict(timing))
    except SpeechError as error:
        if begun:
            yield event("error", error_body(error))
        raise
    yield event("speech.audio.done", {"usage": usage.json()})


def event(name: str, fields: dict[str, Any]) -> bytes:
    """One event, with its name in the data too."""
    data = json.dumps({"type": name, **fields}, separators=(",", ":"))
    return f"event: {name}\ndata: {data}\n\n".encode()
