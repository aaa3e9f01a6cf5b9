"""Sentence timings over both WebSockets: of sentences that come whole, and of those spoken as they are written."""

import asyncio
import json
from typing import Any

import pytest

from serve_app.config import ApiConfig
from tests.api.test_dashscope import Collector, pcm_synthesizer, with_sdk
from tests.api.test_live_socket import Client, connected
from tests.fakes import FakeService

FIELDS = ("index", "text_start", "text_end", "text", "start_s", "end_s")


async def timings_until_done(client: Client) -> tuple[list[tuple[Any, ...]], int]:
    """The timings of one stretch, and the bytes of its audio."""
    timings: list[tuple[Any, ...]] = []
    num_bytes = 0
    await client.until("audio.start")
    while True:
        frame = await asyncio.wait_for(client.socket.recv(), 5)
        if isinstance(frame, bytes):
            num_bytes += len(frame)
            continue
        event = json.loads(frame)
        if event["type"] == "audio.done":
            return timings, num_bytes
        assert event["type"] == "audio.timing", event
        assert num_bytes >= 2 * 24_000 * event["end_s"]
        timings.append(tuple(event[field] for field in FIELDS))


async def test_whole_sentences() -> None:
    async with connected(FakeService()) as client:
        await client.say("session.config", timings=True)
        for text in ("First one here. ", "And a se\u0301cond", " one.", " (Third)"):
            await client.say("input.text", text=text)
        await client.say("input.flush")
        assert await timings_until_done(client) == (
            [
                (0, 0, 15, "First one here.", 0.0, 0.5),
                (1, 16, 34, "And a se\u0301cond one.", 0.5, 1.0),
                (2, 35, 42, "(Third)", 1.0, 1.5),
            ],
            3 * 24_000,
        )
        await client.say("input.text", text=" Again.")
        await client.say("input.flush")
        assert (await timings_until_done(client))[0] == [(0, 1, 7, "Again.", 0.0, 0.5)]


async def test_sentences_spoken_while_they_are_written() -> None:
    """The service in memory gives 0.2 s for each word of a sentence that is fed, and for its end none."""
    async with connected(FakeService(), ApiConfig(text_streaming="token")) as client:
        await client.say("session.config", timings=True)
        for text in ("Whole from the start. ", "This ", "one ", "comes ", "slowly. ", "And ", "so ", "on"):
            await client.say("input.text", text=text)
            await asyncio.sleep(0.02)
        await client.say("input.flush")
        timings, num_bytes = await timings_until_done(client)
    assert [timing[:4] for timing in timings] == [
        (0, 0, 21, "Whole from the start."),
        (1, 22, 44, "This one comes slowly."),
        (2, 45, 54, "And so on"),
    ]
    ends = [timing[5] for timing in timings]
    assert [timing[4] for timing in timings] == [0.0, *ends[:-1]]
    assert num_bytes == 2 * 24_000 * ends[-1]


async def test_without_asking_there_are_none() -> None:
    async with connected(FakeService()) as client:
        await client.say("input.text", text="One here. Two here.")
        await client.say("input.flush")
        await client.until("audio.start")
        await client.until("audio.done")


class EventCollector(Collector):
    def __init__(self) -> None:
        super().__init__()
        self.generated: list[dict[str, Any]] = []

    def on_event(self, message: str) -> None:
        self.generated.append(json.loads(message))


@pytest.mark.parametrize("streaming", ["sentence", "token"])
async def test_the_dashscope_sdk_is_told_of_each_sentence(streaming: Any) -> None:
    collector = EventCollector()

    def use(url: str) -> None:
        synthesizer = pcm_synthesizer(url, collector)
        synthesizer.streaming_call("One sentence here. Another")
        synthesizer.streaming_call(" one.")
        synthesizer.streaming_complete()

    await with_sdk(FakeService(), use, ApiConfig(text_streaming=streaming))
    assert collector.events == ["open", "complete", "close"]
    assert {message["header"]["event"] for message in collector.generated} == {"result-generated"}
    outputs = [message["payload"]["output"] for message in collector.generated]
    assert [(output["type"], output["original_text"]) for output in outputs] == [
        ("sentence-end", "One sentence here."),
        ("sentence-end", "Another one."),
    ]
    sentences = [output["sentence"] for output in outputs]
    assert [(s["index"], s["begin_index"], s["end_index"], s["words"]) for s in sentences] == [
        (0, 0, 18, []),
        (1, 19, 31, []),
    ]
    assert [s["begin_time"] for s in sentences] == [0, sentences[0]["end_time"]]
    assert len(collector.audio) == 48 * sentences[-1]["end_time"]
