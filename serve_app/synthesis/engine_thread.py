"""The one bridge between asyncio and the thread that owns the engine."""

import asyncio
import itertools
import logging
import math
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import cast

from serve_app.config import LiveSynthesisConfig
from serve_app.errors import GenerationFailed, InvalidRequest, NotReady, Overloaded, SpeechError
from serve_app.messages import AudioChunk, Int32Array, PreparedSpeech, SpeakingReplica
from serve_app.synthesis.engine import Engine
from serve_app.synthesis.scheduler import Playback
from serve_app.synthesis.stream import StreamEvent, failed, silence

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Open:
    stream_id: int
    speech: PreparedSpeech
    index: int
    playback: Playback
    post: Callable[[StreamEvent], None]
    listening: "_Listening"


@dataclass(frozen=True, slots=True, eq=False)
class _Feed:
    stream_id: int
    text_ids: Int32Array


@dataclass(frozen=True, slots=True)
class _End:
    """No more text will be fed."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class _Close:
    stream_id: int


@dataclass(frozen=True, slots=True)
class _Ask:
    """A question to the engine, and who gets the answer: a value, or the exception it raised."""

    question: Callable[[Engine], object]
    answer: Callable[[object], None]


@dataclass(frozen=True, slots=True)
class _Stop:
    pass


_Message = _Open | _Feed | _End | _Close | _Ask | _Stop


@dataclass(slots=True)
class _Listening:
    """One utterance as the asyncio side sees it. began_at_s: when the engine opened it."""

    stream_id: int
    began_at_s: float = 0.0
    events: asyncio.Queue[StreamEvent] = field(default_factory=asyncio.Queue)


class EngineThread:
    """Runs an engine in a thread of its own and turns requests into streams of `AudioChunk`.

    The thread blocks on its inbox while no stream is open: no sleeping, no polling. An exception that the engine did
    not turn into an error of one stream fails every open stream and makes `failure` say why, so that the replica is
    replaced.
    """

    def __init__(self, engine: Engine, max_streams: int, replica_id: str = "", *, max_step_s: float = math.inf) -> None:
        """max_streams: requests served at once; one more is refused with Overloaded.

        replica_id: where this is, for those who feed a request. max_step_s: a step that takes longer hangs.
        """
        self._engine = engine
        self._max_streams = max_streams
        self._replica_id = replica_id
        self._num_streams = 0
        self._fed: dict[str, int] = {}
        self._ids = itertools.count()
        self._inbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._posts: dict[int, Callable[[StreamEvent], None]] = {}
        self._stopped = False
        self._max_step_s = max_step_s
        self._busy_since_s: float | None = None
        self.failure: str | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def num_streams(self) -> int:
        """Requests being spoken now."""
        return self._num_streams

    def fault(self) -> str | None:
        """Why this engine must be replaced: it has failed, or one of its steps does not end. None if it works."""
        if self.failure is not None:
            return f"the engine failed: {self.failure}"
        began_at_s = self._busy_since_s
        if began_at_s is not None and time.monotonic() - began_at_s > self._max_step_s:
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
                self._inbox.put(_Close(stream_id))

    def feed(self, request_id: str, text_ids: Int32Array) -> None:
        """More text, int32 [T], for a fed request; ignored for one that is not being spoken (any more)."""
        if request_id in self._fed:
            self._inbox.put(_Feed(self._fed[request_id], text_ids))

    def end(self, request_id: str) -> None:
        """A fed request's text is complete; ignored for one that is not being spoken (any more)."""
        if request_id in self._fed:
            self._inbox.put(_End(self._fed[request_id]))

    async def check(self) -> None:
        """Raises AssertionError if the engine has lost track of a resource, NotReady if it has failed."""
        await self._ask(lambda engine: engine.check())

    async def adjust(self, settings: LiveSynthesisConfig) -> None:
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
        self._inbox.put(_Ask(question, lambda answer: _post(loop, lambda: _settle(future, answer))))
        answer = await future
        if isinstance(answer, Exception):
            raise answer
        return answer

    def stop(self) -> None:
        """Ends the thread; open streams fail. Idempotent. A thread whose step hangs ends with the process."""
        self._inbox.put(_Stop())
        self._thread.join(timeout=min(self._max_step_s, threading.TIMEOUT_MAX))

    def _open(self, speech: PreparedSpeech, index: int, playback: Playback) -> _Listening:
        loop = asyncio.get_running_loop()
        listening = _Listening(next(self._ids))

        def post(event: StreamEvent) -> None:
            _post(loop, lambda: listening.events.put_nowait(event))

        self._inbox.put(_Open(listening.stream_id, speech, index, playback, post, listening))
        return listening

    def _run(self) -> None:
        try:
            while self._drain_inbox():
                for event in self._engine.step():
                    self._report(event)
            self.failure = "stopped"
        except Exception as error:
            # The thread's last line of defence: every listener must hear of it.
            log.exception("the engine failed")
            self.failure = f"{type(error).__name__}: {error}"
        self._busy_since_s = None
        for stream_id in list(self._posts):
            self._report(failed(stream_id, GenerationFailed("the synthesis engine stopped")))
        while not (self._stopped and self._inbox.empty()):
            self._refuse(self._inbox.get())

    def _report(self, event: StreamEvent) -> None:
        post = self._posts.get(event.stream_id)
        if event.finished:
            self._posts.pop(event.stream_id, None)
        if post is not None:
            post(event)

    def _drain_inbox(self) -> bool:
        """Handles every waiting message; blocks for one while the engine has nothing to do. False ends the thread."""
        while True:
            wait_s = self._engine.wait_s()
            self._busy_since_s = None
            try:
                message = self._inbox.get(block=wait_s != 0, timeout=wait_s)
            except queue.Empty:
                return True
            finally:
                self._busy_since_s = time.monotonic()
            match message:
                case _Stop():
                    self._stopped = True
                    return False
                case _Feed(stream_id, text_ids):
                    self._engine.feed(stream_id, text_ids)
                case _End(stream_id):
                    self._engine.end(stream_id)
                case _Close(stream_id):
                    self._posts.pop(stream_id, None)
                    self._engine.close(stream_id)
                    if self._engine.wait_s() is None:
                        self._engine.check()
                case _Ask(question, answer):
                    answer(self._answer_to(question))
                case _Open() as wanted:
                    self._start(wanted)

    def _start(self, wanted: _Open) -> None:
        self._posts[wanted.stream_id] = wanted.post
        wanted.listening.began_at_s = time.monotonic()
        try:
            self._engine.open(wanted.stream_id, wanted.speech, wanted.index, wanted.playback)
        except SpeechError as error:
            self._report(failed(wanted.stream_id, error))

    def _refuse(self, message: _Message) -> None:
        """Answers what still arrives after the engine has failed."""
        match message:
            case _Open(stream_id, post=post):
                post(failed(stream_id, NotReady("this replica's engine has failed and is being replaced")))
            case _Ask(answer=answer):
                answer(NotReady(f"the engine failed: {self.failure}"))
            case _Stop():
                self._stopped = True
            case _Feed() | _End() | _Close():
                pass

    def _answer_to(self, question: Callable[[Engine], object]) -> object:
        try:
            return question(self._engine)
        except AssertionError as error:
            return error


def _settle(future: asyncio.Future[object], answer: object) -> None:
    if not future.done():  # whoever asked may have gone
        future.set_result(answer)


def _post(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Runs `callback` in the listener's event loop, which may already be gone when its process is ending."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        log.debug("a listener's event loop is closed")
