"""The engine's thread: messages in, steps, events out. It knows nothing of asyncio."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from serve_app.errors import GenerationFailed, NotReady, SpeechError
from serve_app.messages import Int32Array, PreparedSpeech
from serve_app.synthesis.scheduler import Playback
from serve_app.synthesis.seam import Engine
from serve_app.synthesis.stream import StreamEvent, failed

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Open:
    """post: takes the events, in the engine's thread. began: is told the time at which the engine opened it."""

    stream_id: int
    speech: PreparedSpeech
    index: int
    playback: Playback
    post: Callable[[StreamEvent], None]
    began: Callable[[float], None]


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    stream_id: int
    text_ids: Int32Array


@dataclass(frozen=True, slots=True)
class End:
    """No more text will be fed."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class Close:
    stream_id: int


@dataclass(frozen=True, slots=True)
class Ask:
    """A question to the engine, and who gets the answer: a value, or the exception it raised."""

    question: Callable[[Engine], object]
    answer: Callable[[object], None]


@dataclass(frozen=True, slots=True)
class Stop:
    pass


Message = Open | Feed | End | Close | Ask | Stop


class EngineLoop:
    """Runs an engine in a thread of its own.

    The thread blocks on its inbox while no stream is open: no sleeping, no polling. An exception that the engine did
    not turn into an error of one stream fails every open stream and makes `failure` say why.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._posts: dict[int, Callable[[StreamEvent], None]] = {}
        self._stopped = False
        self._busy_since_s: float | None = None
        self.failure: str | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def put(self, message: Message) -> None:
        """From any thread."""
        self._inbox.put(message)

    def admits(self, num_listeners: int) -> bool:
        """Whether the engine has time for one more beside so many. From any thread, at once."""
        return self._engine.admits(num_listeners)

    @property
    def busy_since_s(self) -> float | None:
        """When the engine began the step that it is at; None while it waits for messages."""
        return self._busy_since_s

    def stop(self, timeout_s: float) -> None:
        """Ends the thread; open streams fail. Idempotent. A thread whose step hangs ends with the process."""
        self.put(Stop())
        self._thread.join(timeout=min(timeout_s, threading.TIMEOUT_MAX))

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
                case Stop():
                    self._stopped = True
                    return False
                case Feed(stream_id, text_ids):
                    self._engine.feed(stream_id, text_ids)
                case End(stream_id):
                    self._engine.end(stream_id)
                case Close(stream_id):
                    self._posts.pop(stream_id, None)
                    self._engine.close(stream_id)
                    if self._engine.wait_s() is None:
                        self._engine.check()
                case Ask(question, answer):
                    answer(self._answer_to(question))
                case Open() as wanted:
                    self._start(wanted)

    def _start(self, wanted: Open) -> None:
        self._posts[wanted.stream_id] = wanted.post
        wanted.began(time.monotonic())
        try:
            self._engine.open(wanted.stream_id, wanted.speech, wanted.index, wanted.playback)
        except SpeechError as error:
            self._report(failed(wanted.stream_id, error))

    def _refuse(self, message: Message) -> None:
        """Answers what still arrives after the engine has failed."""
        match message:
            case Open(stream_id, post=post):
                post(failed(stream_id, NotReady("this replica's engine has failed and is being replaced")))
            case Ask(answer=answer):
                answer(NotReady(f"the engine failed: {self.failure}"))
            case Stop():
                self._stopped = True
            case Feed() | End() | Close():
                pass

    def _answer_to(self, question: Callable[[Engine], object]) -> object:
        try:
            return question(self._engine)
        except AssertionError as error:
            return error
