"""What a preprocessing replica tells of its work."""

import asyncio
import logging
from typing import cast

import numpy as np
import pytest

from serve_app.errors import EmptyInput
from serve_app.messages import PreparedSpeech, PreparedUtterance, VoicePrompt
from serve_app.preprocess.meter import Meter
from tests.recorded import Recorded

NO_IDS = np.zeros(0, np.int32)
PREPARED = PreparedSpeech(
    "id-1", cast(VoicePrompt, None), (PreparedUtterance(np.arange(7, dtype=np.int32), NO_IDS, NO_IDS, 0, 9),), seed=0
)


async def test_a_request_is_counted_timed_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ray.serve.cosyserve")
    recorded, lookups, gate = Recorded(), (5, 2), asyncio.Event()
    meter = Meter(recorded, lambda: lookups)

    async def prepare() -> PreparedSpeech:
        nonlocal lookups
        await gate.wait()
        lookups = (6, 3)
        return PREPARED

    preparing = asyncio.create_task(meter.prepared("id-1", prepare()))
    await asyncio.sleep(0)
    assert meter.num_preparing == 1
    gate.set()
    assert await preparing is PREPARED and meter.num_preparing == 0
    assert recorded.sums["cosyserve_voice_cache", "hit"] == recorded.sums["cosyserve_voice_cache", "miss"] == 1
    assert len(recorded.observed["cosyserve_stage_seconds", "prepare_work"]) == 1
    [line] = caplog.records
    told = line.__dict__
    assert (told["stage"], told["speech_id"], told["end"]) == ("preprocess", "id-1", "prepared")
    assert (told["utterances"], told["text_tokens"]) == (1, 7)


async def test_what_cannot_be_spoken_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ray.serve.cosyserve")

    async def prepare() -> PreparedSpeech:
        raise EmptyInput("nothing to speak")

    meter = Meter(Recorded(), lambda: (0, 0))
    with pytest.raises(EmptyInput):
        await meter.prepared("id-2", prepare())
    [line] = caplog.records
    assert (line.__dict__["end"], line.__dict__["reason"], meter.num_preparing) == ("invalid", "EmptyInput", 0)
