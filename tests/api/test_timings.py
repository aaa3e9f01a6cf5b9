"""Sentence timings: counted samples, in the request's own text positions, only for those who ask."""

import base64
import warnings
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import openai

from serve_app.api.timings import Said, Timeline
from serve_app.messages import SAMPLE_RATE_HZ, AudioChunk, PreparedSpeech, PreparedUtterance, SpeechRequest
from tests.api.live import assert_error, client_of
from tests.api.test_events import SPEECH, events_of
from tests.api.test_openai_sdk import sdk
from tests.fakes import NO_IDS, FakeService

TEXT = "😀 One. Two is e\u0301t longer. [pause:500ms] Three.[pause:1s]"
PLACES = ((2, 6), (7, 25), (40, 46))
SECONDS = (0.5, 1.25, 0.75)


@dataclass
class SentenceService(FakeService):
    """Says the three sentences of TEXT, each in chunks of 0.2 s, with the pauses that it asks for."""

    async def prepare(self, request: SpeechRequest) -> PreparedSpeech:
        prepared = await super().prepare(request)
        ids = np.ones(3, np.int32)
        pauses = (0.0, 0.0, 0.5)
        utterances = tuple(
            PreparedUtterance(ids, NO_IDS, NO_IDS, start, end, pause)
            for (start, end), pause in zip(PLACES, pauses, strict=True)
        )
        return replace(prepared, utterances=utterances, pause_after_s=1.0)

    async def speak(self, prepared: PreparedSpeech) -> AsyncGenerator[AudioChunk, None]:
        for index, utterance in enumerate(prepared.utterances):
            if utterance.pause_before_s:
                yield silence(utterance.pause_before_s, index)
            sound = np.full(round(SECONDS[index] * SAMPLE_RATE_HZ), 0.25, np.float32)
            for start in range(0, len(sound), 4800):
                yield AudioChunk(sound[start : start + 4800], index, 5)
            yield AudioChunk(np.zeros(0, np.float32), index, 1)
        yield silence(prepared.pause_after_s, len(prepared.utterances) - 1)


def silence(seconds: float, utterance: int) -> AudioChunk:
    return AudioChunk(np.zeros(round(seconds * SAMPLE_RATE_HZ), np.float32), utterance, 0)


def expected() -> list[dict[str, Any]]:
    spans = ((0.0, 0.5), (0.5, 1.75), (2.25, 3.0))
    return [
        {
            "index": index,
            "text_start": start,
            "text_end": end,
            "text": TEXT[start:end],
            "start_s": spans[index][0],
            "end_s": spans[index][1],
        }
        for index, (start, end) in enumerate(PLACES)
    ]


@pytest.mark.parametrize(
    ("audio_format", "rate_hz"), [("pcm", 24_000), ("pcm", 8_000), ("mp3", 24_000), ("flac", 24_000)]
)
async def test_events(audio_format: str, rate_hz: int) -> None:
    service = SentenceService()
    body = {"input": TEXT, "response_format": audio_format, "sample_rate": rate_hz, "stream_format": "sse"}
    async with client_of(service) as client:
        plain = await client.post(SPEECH, json=body)
        timed = await client.post(SPEECH, json={**body, "timings": True})
    events = events_of(timed.text)
    timings = [data for name, data in events if name == "speech.audio.timing"]
    assert [{key: value for key, value in data.items() if key != "type"} for data in timings] == expected()
    assert {data["type"] for data in timings} == {"speech.audio.timing"}
    assert [event for event in events if event[0] != "speech.audio.timing"] == events_of(plain.text)
    assert events[-1][0] == "speech.audio.done"
    assert [request.by_sentence for request in service.requests] == [False, True]


async def test_a_timing_comes_as_soon_as_its_sentence_has_ended() -> None:
    body = {"input": TEXT, "response_format": "pcm", "stream_format": "sse", "timings": True}
    async with client_of(SentenceService()) as client:
        events = events_of((await client.post(SPEECH, json=body)).text)
    heard_s = 0.0
    for name, data in events:
        if name == "speech.audio.delta":
            heard_s += len(base64.b64decode(data["audio"])) / 2 / SAMPLE_RATE_HZ
        elif name == "speech.audio.timing" and data["index"] < 2:
            assert data["end_s"] <= heard_s <= data["end_s"] + 0.5
    assert heard_s == pytest.approx(4.0)


async def test_plain_audio_has_no_place_for_them() -> None:
    service = SentenceService()
    async with client_of(service) as client:
        assert_error(await client.post(SPEECH, json={"input": TEXT, "timings": True}), 400, "invalid_value", "timings")
        answer = await client.post(SPEECH, json={"input": TEXT, "timings": False, "response_format": "pcm"})
    assert len(answer.content) == 4 * 2 * SAMPLE_RATE_HZ


async def test_the_openai_sdk_reads_past_them() -> None:
    async with sdk(SentenceService()) as client:
        ask: dict[str, Any] = {"model": "tts-1", "voice": "nova", "input": TEXT, "response_format": "pcm"}
        sse: dict[str, Any] = {"stream_format": "sse", "extra_body": {"timings": True}}
        async with client.audio.speech.with_streaming_response.create(**ask, **sse) as response:
            stream = openai.AsyncStream[Any](cast_to=object, response=response.http_response, client=client)
            events = [event async for event in stream]
    kinds = [event["type"] for event in events]
    assert kinds.count("speech.audio.timing") == 3
    assert kinds[-1] == "speech.audio.done"
    audio = b"".join(base64.b64decode(event["audio"]) for event in events if event["type"] == "speech.audio.delta")
    assert len(audio) == 4 * 2 * SAMPLE_RATE_HZ


def test_one_timeline_goes_on_over_several_prepared_texts() -> None:
    prepared = PreparedSpeech("r", None, (PreparedUtterance(NO_IDS, NO_IDS, NO_IDS, 0, 4),), 0)  # type: ignore[arg-type]
    timeline = Timeline()
    for offset, text in ((0, "One."), (4, " Two")):
        timeline.begin(Said(prepared, text, offset))
        timeline.add(AudioChunk(np.full(12_000, 0.1, np.float32), 0, 1))
        timeline.end()
    assert [(t.index, t.text, t.text_start, t.text_end, t.start_s, t.end_s) for t in timeline.take()] == [
        (0, "One.", 0, 4, 0.0, 0.5),
        (1, "Two", 5, 8, 0.5, 1.0),
    ]
    assert timeline.take() == []
