"""The one bridge between asyncio and the thread that owns the engine."""

import asyncio
import itertools
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import cast

from serve_app.errors import InvalidRequest, NotReady, Overloaded
from serve_app.messages import AudioChunk, Int32Array, PreparedSpeech, SpeakingReplica
from serve_app.synthesis.engine_loop import Ask, Close, End, EngineLoop, Feed, Open
from serve_app.synthesis.scheduler import Playback
from serve_app.synthesis.seam import Engine
from serve_app.synthesis.settings import LiveSettings
from serve_app.synthesis.stream import StreamEvent, silence
from serve_app.synthesis.watchdog import Watchdog

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Listening:
    """One utterance as the asyncio side sees it. began_at_s: when the engine opened it."""

    stream_id: int
    began_at_s: float = 0.0
    events: asyncio.Queue[StreamEvent] = field(default_factory=asyncio.Queue)

    def begin(self, at_s: float) -> None:
        self.began_at_s = at_s


class EngineThread:
    """Turns requests into streams of `AudioChunk`; owns the engine's thread."""

    def __init__(self, engine: Engine, max_streams: int, replica_id: str = "", *, max_step_s: float = math.inf) -> None:
        """max_streams: requests served at once; one more is refused with Overloaded.

        replica_id: where this is, for those who feed a request. max_step_s: a step that takes longer hangs.
        """
        self._max_streams = max_streams
        self._replica_id = replica_id
        self._num_streams = 0
        self._fed: dict[str, int] = {}
        self._ids = itertools.count()
        self._max_step_s = max_step_s
        self._watchdog = Watchdog(max_step_s)
        self._loop = EngineLoop(engine)

    @property
    def num_streams(self) -> int:
        """Requests being spoken now."""
        return self._num_streams

    def fault(self) -> str | None:
        """Why this engine must be replaced: it has failed, or one of its steps does not end. None if it works."""
        if self._loop.failure is not None:
            return f"the engine failed: {self._loop.failure}"
        if self._watchdog.hangs(self._loop.busy_since_s):
            return f"a step of the engine has not ended for {self._max_step_s:.0f} s"
        return None

    async def speak(self, speech: PreparedSpeech) -> AsyncGenerator[AudioChunk | SpeakingReplica, None]:
        """The samples of a request, in order; leaving the generator early frees everything it held.

        A fed request's first item is a `SpeakingReplica`: from then on `feed` and `end` find it.
        Raises Overloaded before anything is held, NotReady after the engine has failed, InvalidRequest for the id of a
        fed request that is open, and what the engine reports of an utterance (GenerationFailed, InputTooLong).
        """
        if self.fault() is not None:
            raise NotReady("this replica's engine has failed and is being replaced")
        if self._num_streams >= self._max_streams:
            raise Overloaded("every stream of this replica is taken")
        if not self._loop.admits(self._num_streams):
            raise Overloaded("one more listener would make those that are playing run dry")
        if speech.fed and speech.request_id in self._fed:
            raise InvalidRequest("a request of that id is being spoken")
        self._num_streams += 1
        playback = Playback(opened_at_s=time.monotonic())
        open_ids: list[int] = []
        heard = False

        def start(index: int) -> _Listening:
            listening = self._open(speech, index, playback)
            open_ids.append(listening.stream_id)
            return listening

        try:
            ahead: _Listening | None = start(0)
            if speech.fed:
                self._fed[speech.request_id] = open_ids[0]
                yield SpeakingReplica(self._replica_id)
            for index in range(len(speech.utterances)):
                current = ahead if ahead is not None else start(index)
                ahead = None
                finished = False
                while not finished:
                    event = await current.events.get()
                    if event.error is not None:
                        raise event.error
                    # The next sentence is generated while this one is rendered and played.
                    if event.generated and ahead is None and index + 1 < len(speech.utterances):
                        ahead = start(index + 1)
                    if len(event.samples) or event.num_speech_tokens:
                        work_s = 0.0 if heard or not len(event.samples) else time.monotonic() - current.began_at_s
                        heard = heard or len(event.samples) > 0
                        yield AudioChunk(event.samples, index, event.num_speech_tokens, work_s)
                    finished = event.finished
            if speech.pause_after_s > 0:
                yield AudioChunk(silence(speech.pause_after_s), len(speech.utterances) - 1, 0)
        finally:
            self._num_streams -= 1
            if speech.fed:
                self._fed.pop(speech.request_id, None)
            for stream_id in open_ids:
                self._loop.put(Close(stream_id))

    def feed(self, request_id: str, text_ids: Int32Array) -> None:
        """More text, int32 [T], for a fed request; ignored for one that is not being spoken (any more)."""
        if request_id in self._fed:
            self._loop.put(Feed(self._fed[request_id], text_ids))

    def end(self, request_id: str) -> None:
        """A fed request's text is complete; ignored for one that is not being spoken (any more)."""
        if request_id in self._fed:
            self._loop.put(End(self._fed[request_id]))

    async def check(self) -> None:
        """Raises AssertionError if the engine has lost track of a resource, NotReady if it has failed."""
        await self._ask(lambda engine: engine.check())

    async def adjust(self, settings: LiveSettings) -> None:
        """Other settings from the next step on. Raises NotReady if the engine has failed."""
        await self._ask(lambda engine: engine.adjust(settings))

    async def num_spare(self) -> int:
        """Requests that could still be taken. Raises NotReady if the engine has failed."""
        spare = await self._ask(lambda engine: engine.num_spare())
        assert isinstance(spare, int)
        return min(spare, self._max_streams - self._num_streams)

    async def prefix_counts(self) -> tuple[int, int]:
        """Utterances that found their voice's flow prefix, and those that did not. Raises NotReady if it has failed."""
        hits, misses = cast(tuple[int, int], await self._ask(lambda engine: engine.prefix_counts()))
        return hits, misses

    async def _ask(self, question: Callable[[Engine], object]) -> object:
        """What the engine answers, between two of its steps."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[object] = loop.create_future()
        self._loop.put(Ask(question, lambda answer: _post(loop, lambda: _settle(future, answer))))
        answer = await future
        if isinstance(answer, Exception):
            raise answer
        return answer

    def stop(self) -> None:
        """Ends the thread; open streams fail. Idempotent. A thread whose step hangs ends with the process."""
        self._loop.stop(self._max_step_s)

    def _open(self, speech: PreparedSpeech, index: int, playback: Playback) -> _Listening:
        loop = asyncio.get_running_loop()
        listening = _Listening(next(self._ids))

        def post(event: StreamEvent) -> None:
            _post(loop, lambda: listening.events.put_nowait(event))

        self._loop.put(Open(listening.stream_id, speech, index, playback, post, listening.begin))
        return listening


def _settle(future: asyncio.Future[object], answer: object) -> None:
    if not future.done():  # whoever asked may have gone
        future.set_result(answer)


def _post(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Runs `callback` in the listener's event loop, which may already be gone when its process is ending."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        log.debug("a listener's event loop is closed")
