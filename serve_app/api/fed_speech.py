"""Speech of text that is still arriving, as one stream of one format.

One task, the writer, turns sentences into requests: a sentence that is complete becomes an ordinary one; one that is
still being written is opened as a fed request, gets each further word as it comes, and its end. It works one request
ahead of the other task, which speaks them in order and is the one that whoever wants the sound drives.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from serve_app.api.audio_stream import Usage, samples_of, spoken_samples
from serve_app.api.encoders import Encoder
from serve_app.api.presence import finish
from serve_app.api.schema import clean_text, is_speakable
from serve_app.api.service import SpeechService
from serve_app.api.text_feed import MIN_PIECE_LETTERS, Sentence, TextFeed
from serve_app.api.timings import Said, Timeline
from serve_app.messages import AudioChunk, FedText, Float32Array, PreparedSpeech, SpeakingReplica, SpeechRequest

WINDOW_CHARACTERS = 600
"""More than any utterance takes; of a longer text only so much is looked at."""

_MARKUP = re.compile(r"[<\[]")
"""A tag or a pause is read in one go: a sentence is fed up to the first, and the rest of it is spoken when complete."""

_WORD_BEGUN = re.compile(r"\S\s|[\u3040-\u30ff\u3400-\u9fff]{6}")
"""There is a word that may be complete."""

Item = TypeVar("Item")


async def fed_parts(
    service: SpeechService,
    request: SpeechRequest,
    feed: TextFeed,
    encoder: Encoder,
    usage: Usage,
    patience_s: float,
    gain: float = 1.0,
    timeline: Timeline | None = None,
) -> AsyncGenerator[bytes, None]:
    """The parts of one file that says all sentences in order; nothing at all if none of them can be spoken.

    request: all but the text. patience_s: how long a sentence that is being spoken waits for its next word. gain:
    factor on the samples; encoders saturate what gets too loud. timeline: knows of each sentence once its last part is
    out; places are those in all the text of `feed`. Errors: those of the service, for any sentence.
    """
    begun = False
    async with aclosing(fed_samples(service, request, feed, usage, patience_s, timeline)) as spoken:
        async for samples in spoken:
            if not begun:
                begun = True
                yield encoder.begin()
            yield encoder.encode(samples * np.float32(gain))
    if begun:
        yield encoder.flush()


class Turn:
    """One request, from the writer to the speaker.

    said: what it says; of a fed one more as it comes. replica: who speaks a fed one, known once it does. fault: why the
    writer cannot feed it any more.
    """

    def __init__(self, said: Said) -> None:
        self.said = said
        self.replica: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.fault: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()


Turns = asyncio.Queue[Turn | Exception | None]
"""In speaking order; an exception where the writer could not go on, None at the end."""


async def fed_samples(
    service: SpeechService,
    request: SpeechRequest,
    feed: TextFeed,
    usage: Usage,
    patience_s: float,
    timeline: Timeline | None = None,
) -> AsyncGenerator[Float32Array, None]:
    """Chunks of float32 [S], S > 0. Closing it at any moment ends the writer and frees the stream."""
    turns: Turns = asyncio.Queue(maxsize=1)
    writer = asyncio.create_task(Writer(service, request, feed, usage, patience_s, turns).write_all())
    try:
        while (turn := await turns.get()) is not None:
            if isinstance(turn, Exception):
                raise turn
            if timeline is not None:
                timeline.begin(turn.said)
            if turn.said.prepared.fed:
                spoken = samples_of(fed_chunks(service, turn), usage, timeline)
            else:
                spoken = spoken_samples(service, turn.said.prepared, usage, timeline)
            async with aclosing(spoken):
                async for samples in spoken:
                    yield samples
            if timeline is not None and turn.said.prepared.fed:
                timeline.end()
    finally:
        await finish(writer)


async def fed_chunks(service: SpeechService, turn: Turn) -> AsyncGenerator[AudioChunk, None]:
    """What a fed request gives. It ends with its writer's fault: without text it would wait for ever."""
    async with aclosing(service.speak_fed(turn.said.prepared)) as items:
        while (item := await next_item(items, turn.fault)) is not None:
            if isinstance(item, SpeakingReplica):
                turn.replica.set_result(item.replica_id)
            else:
                yield item


async def next_item(items: AsyncGenerator[Item, None], fault: asyncio.Future[Exception]) -> Item | None:
    """The next of them; None after the last. Errors: theirs, and the fault as soon as there is one."""

    async def one() -> Item | None:
        async for item in items:
            return item
        return None

    task = asyncio.create_task(one())
    try:
        either: set[asyncio.Future[Any]] = {task, fault}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise fault.result()
        return task.result()
    finally:
        await finish(task)


class Writer:
    """Turns sentences into requests, and feeds those that were begun before their sentence was complete."""

    def __init__(
        self,
        service: SpeechService,
        request: SpeechRequest,
        feed: TextFeed,
        usage: Usage,
        patience_s: float,
        turns: Turns,
    ) -> None:
        self.service = service
        self.request = request
        self.feed = feed
        self.usage = usage
        self.patience_s = patience_s
        self.turns = turns
        self.num_written = 0

    async def write_all(self) -> None:
        """Raises nothing: the speaker does, when it has said everything before."""
        try:
            async for sentence in self.feed:
                start = 0
                while not sentence.whole or start < len(sentence.text):
                    start += await self.write(sentence, start)
                self.num_written += len(sentence.text)
        except Exception as error:  # noqa: BLE001
            await self.turns.put(error)
        else:
            await self.turns.put(None)

    async def write(self, sentence: Sentence, start: int) -> int:
        """One request, or one step towards it, from `start` in a sentence -> how many characters it says."""
        if sentence.whole:
            return await self.say(sentence, start)
        text, final = window(sentence, start)
        if final and not is_speakable(text):
            await sentence.until(float("inf"))
            return await self.say(sentence, start)
        if final or (_WORD_BEGUN.search(text) and sum(map(str.isalpha, text)) >= MIN_PIECE_LETTERS):
            # another connection may have chosen the same id
            identifier = f"{self.request.request_id}-{secrets.token_hex(4)}"
            prepared = await self.service.prepare_fed(replace(self.request, request_id=identifier, text=text))
            if final or len(prepared.utterances[0].text_ids):
                return await self.say_as_it_comes(prepared, sentence, start)
        await sentence.until(start + len(text) + 1)
        return 0

    async def say(self, sentence: Sentence, start: int) -> int:
        """The rest of a whole sentence, if there is anything to say in it."""
        text = sentence.text[start:]
        if is_speakable(clean_text(text)):
            prepared = await self.service.prepare(replace(self.request, text=text))
            await self.turns.put(Turn(Said(prepared, text, self.num_written + start)))
        self.feed.taken(len(text))
        return len(text)

    async def say_as_it_comes(self, prepared: PreparedSpeech, sentence: Sentence, start: int) -> int:
        """The sentence from `start`, as far as it fits into one utterance."""
        turn = Turn(Said(prepared, sentence.text[start:], self.num_written + start))
        await self.turns.put(turn)
        try:
            return await self.feed_turn(turn, sentence, start)
        except Exception as error:
            turn.fault.set_result(error)
            raise

    async def feed_turn(self, turn: Turn, sentence: Sentence, start: int) -> int:
        prepared = turn.said.prepared
        (utterance,) = prepared.utterances
        request_id = prepared.request_id
        fed = FedText("", utterance.text_end, utterance.text_ids, normalize=self.request.normalize)
        self.feed.taken(fed.text_end)
        replica_id = await turn.replica
        full = late = False
        while not (full or fed.final):
            text, final = window(sentence, start)
            if text == fed.text and not (final or late):
                late = not await self.grows(sentence, start + len(text))
                continue
            fed = replace(fed, text=text, final=final or late)
            given = await self.service.next_text(fed)
            if len(given.ids):
                await self.service.feed(replica_id, request_id, given.ids)
            self.feed.taken(given.text_end - fed.text_end)
            fed = replace(fed, text_end=given.text_end, ids=np.concatenate((fed.ids, given.ids)))
            turn.said.prepared = replace(prepared, utterances=(replace(utterance, text_end=fed.text_end),))
            turn.said.text = text
            full = given.full
        await self.service.end_text(replica_id, request_id)
        self.usage.input_tokens += len(fed.ids)
        return fed.text_end

    async def grows(self, sentence: Sentence, num_characters: int) -> bool:
        """Wait for more of a sentence; False if none comes in time."""
        try:
            await asyncio.wait_for(sentence.until(num_characters + 1), self.patience_s)
        except asyncio.TimeoutError:
            return False
        return True


def window(sentence: Sentence, start: int) -> tuple[str, bool]:
    """What can be fed of a sentence from `start`, as far as it is written, and whether that is all that ever will."""
    text = sentence.text[start : start + WINDOW_CHARACTERS]
    markup = _MARKUP.search(text)
    if markup is not None:
        return text[: markup.start()], True
    return text, sentence.whole or len(text) == WINDOW_CHARACTERS
