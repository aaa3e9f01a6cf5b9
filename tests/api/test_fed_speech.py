"""Speech of a sentence that is still being written, over a service in memory: one chunk of sound for each word."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import pytest

from serve_app.api.audio_stream import Usage
from serve_app.api.fed_speech import fed_samples
from serve_app.api.text_feed import TextFeed
from serve_app.errors import GenerationFailed, NotReady, SpeechError, VoiceNotFound
from serve_app.messages import Float32Array, PreparedSpeech, SpeechRequest
from tests.fakes import FakeService

CHUNK = 4_800


class Speech:
    """One stretch: its text is written by the test, its chunks are counted."""

    def __init__(self, service: FakeService, patience_s: float = 5, voice: str = "default") -> None:
        self.feed = TextFeed(10_000, "token")
        self.usage = Usage()
        request = SpeechRequest("r", "", voice=voice)
        self.samples = fed_samples(service, request, self.feed, self.usage, patience_s)

    async def chunk(self) -> Float32Array:
        return await asyncio.wait_for(anext(self.samples), 5)

    async def rest(self) -> int:
        """How many chunks are still to come."""
        return len([chunk async for chunk in self.samples])


@pytest.fixture
async def service() -> AsyncIterator[FakeService]:
    made = FakeService()
    yield made
    await made.until_open(0)
    assert not made.fed_ids


async def test_words_are_heard_one_by_one_before_the_sentence_ends(service: FakeService) -> None:
    speech = Speech(service)
    async with aclosing(speech.samples):
        for number, word in enumerate(["Every", "single", "word", "is", "heard", "at", "once"], 1):
            speech.feed.write(word + " ")
            assert len(await speech.chunk()) == CHUNK
            assert len(service.fed_words) == number
        speech.feed.write("here.")
        speech.feed.finish()
        assert await speech.rest() == 1
    assert speech.usage.input_tokens == 8 and speech.feed.num_pending == 0
    assert service.opened_streams == 1


async def test_a_sentence_that_is_whole_goes_the_ordinary_way_and_the_next_is_begun(service: FakeService) -> None:
    speech = Speech(service)
    async with aclosing(speech.samples):
        speech.feed.write("This one is complete. But this ")
        chunks = [len(await speech.chunk()) for _ in range(3)]
        assert chunks == [4_800, 4_800, 2_400], "all that an ordinary request gives here"
        assert len(await speech.chunk()) == CHUNK
        assert service.fed_words == ["But", "this"]
        speech.feed.write("one")
        speech.feed.finish()
        assert await speech.rest() == 2
    assert [request.text for request in service.requests] == ["This one is complete.", " But this "]
    assert service.requests[0].request_id == "r" != service.requests[1].request_id


async def test_a_letter_alone_opens_nothing(service: FakeService) -> None:
    speech = Speech(service)
    async with aclosing(speech.samples):
        waiting = asyncio.create_task(speech.chunk())
        for text in ("I", " a", "m"):
            speech.feed.write(text)
            await asyncio.sleep(0.01)
        assert not service.requests
        speech.feed.write(" here now")
        await waiting
        assert service.fed_words[:3] == ["I", "am", "here"]


@pytest.mark.parametrize("end", ["flush", "line", "mark"])
async def test_every_end_of_a_sentence_is_declared(service: FakeService, end: str) -> None:
    speech = Speech(service)
    async with aclosing(speech.samples):
        speech.feed.write("Some words without")
        await speech.chunk()
        speech.feed.write({"flush": "", "line": "\n", "mark": "! "}[end])
        if end == "flush":
            speech.feed.flush()
        await service.until_open(1)
        assert len([await speech.chunk() for _ in range(2)]) == 2
        speech.feed.finish()
        assert await speech.rest() == 0
    assert service.fed_words[-1].startswith("without")


async def test_a_sentence_with_markup_is_fed_up_to_it_and_the_rest_spoken_whole(service: FakeService) -> None:
    speech = Speech(service)
    async with aclosing(speech.samples):
        speech.feed.write("Some words and [pau")
        for _ in range(3):
            await speech.chunk()
        speech.feed.write("se:1s] the rest")
        speech.feed.finish()
        assert await speech.rest() == 3
    assert service.fed_words == ["Some", "words", "and"]
    assert [request.text for request in service.requests] == ["Some words and ", "[pause:1s] the rest"]


async def test_a_long_sentence_is_cut_and_nothing_is_lost(service: FakeService) -> None:
    words = [f"word{number}" for number in range(100)]
    speech = Speech(service)
    async with aclosing(speech.samples):
        reading = asyncio.create_task(speech.rest())
        for word in words:
            speech.feed.write(word + " ")
            await asyncio.sleep(0)
        speech.feed.finish()
        num_chunks = await reading
    ordinary = [request.text.split() for request in service.requests if request.request_id == "r"]
    assert service.fed_words + [word for text in ordinary for word in text] == words
    assert num_chunks == len(service.fed_words) + 3 * len(ordinary)
    assert service.opened_streams > 1 and speech.feed.num_pending == 0


async def test_who_stops_writing_does_not_hold_a_stream(service: FakeService) -> None:
    speech = Speech(service, patience_s=0.05)
    async with aclosing(speech.samples):
        speech.feed.write("Some words wi")
        for _ in range(3):
            await speech.chunk()
        waiting = asyncio.create_task(speech.chunk())
        await service.until_open(0)
        assert not waiting.done()
        speech.feed.write("thout end here")
        await waiting
        speech.feed.finish()
        assert await speech.rest() == 2
    assert service.fed_words == ["Some", "words", "wi", "thout", "end", "here"]


async def test_fifty_abandoned_requests_leave_nothing(service: FakeService) -> None:
    async def abandon(number: int) -> None:
        speech = Speech(service)
        speech.feed.write("Some words of a sentence ")
        for _ in range(number % 4):
            await speech.chunk()
        await speech.samples.aclose()

    await asyncio.gather(*(abandon(number) for number in range(50)))
    await service.until_open(0)
    assert not service.fed_ids


async def test_one_that_is_cancelled_while_it_waits_leaves_nothing(service: FakeService) -> None:
    speech = Speech(service)
    speech.feed.write("Some words ")
    reading = asyncio.create_task(speech.rest())
    await service.until_open(1)
    await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await service.until_open(0)


@pytest.mark.parametrize("error", [GenerationFailed("x"), ValueError("x")])
async def test_a_stream_that_fails_is_reported(service: FakeService, error: Exception) -> None:
    service.speak_error = error
    speech = Speech(service)
    speech.feed.write("Some words ")
    with pytest.raises(type(error)):
        await speech.chunk()


async def test_text_that_cannot_be_fed_ends_the_stream_that_waits_for_it(service: FakeService) -> None:
    speech = Speech(service)
    async with aclosing(speech.samples):
        speech.feed.write("Some words ")
        for _ in range(2):
            await speech.chunk()
        service.feed_error = NotReady("gone")
        speech.feed.write("and more ")
        with pytest.raises(NotReady):
            await speech.chunk()


class SecondFails(FakeService):
    """Nothing but the first request can be prepared."""

    async def prepare(self, request: SpeechRequest) -> PreparedSpeech:
        if self.requests:
            raise VoiceNotFound("deleted meanwhile")
        return await super().prepare(request)


async def test_a_mistake_in_the_next_sentence_does_not_cut_this_one_short() -> None:
    speech = Speech(SecondFails())
    speech.feed.write("This one is complete. And another")
    speech.feed.finish()
    num_chunks, error = await collected(speech.samples)
    assert (num_chunks, type(error)) == (3, VoiceNotFound)


async def collected(samples: AsyncGenerator[Float32Array, None]) -> tuple[int, SpeechError | None]:
    """How many chunks came, and what ended them."""
    num_chunks = 0
    try:
        async for _ in samples:
            num_chunks += 1
    except SpeechError as error:
        return num_chunks, error
    return num_chunks, None
