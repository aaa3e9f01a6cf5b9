"""What one ingress replica knows of the requests that pass through it: how many there are, and how they fare.

Every request for speech, over HTTP or a WebSocket, passes `prepared` and then `heard`.
"""

from asyncio import CancelledError
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from dataclasses import replace
from time import monotonic
from typing import TypeVar

from serve_app.errors import InvalidRequest, NotReady, Overloaded
from serve_app.figures import IngressFigures, Recent, RecentTimes
from serve_app.listener import Listener
from serve_app.messages import AudioChunk, PreparedSpeech

Item = TypeVar("Item")


class Ledger:
    """Counts of this moment and of the last minutes. One event loop owns it."""

    def __init__(self) -> None:
        self._preparing = 0
        self._unheard = 0
        self._speaking = 0
        self._recent = Recent()
        self._ttfa = RecentTimes()
        self._audible_ttfa = RecentTimes()

    def figures(self, replica: str) -> IngressFigures:
        """For an operator who asks. replica: the id of the process that this is the ledger of."""
        return IngressFigures(
            replica,
            self._preparing,
            self._unheard,
            self._speaking,
            self._recent.counts(),
            self._ttfa.counts(),
            self._audible_ttfa.counts(),
        )

    async def prepared(self, preparing: Awaitable[PreparedSpeech]) -> PreparedSpeech:
        """What `preparing` gives, and how long it took."""
        asked_at_s = monotonic()
        self._preparing += 1
        try:
            prepared = await preparing
        except BaseException as error:
            self._recent.add(outcome(error, heard=False))
            raise
        finally:
            self._preparing -= 1
        return replace(prepared, waited_s=monotonic() - asked_at_s)

    async def heard(self, prepared: PreparedSpeech, chunks: AsyncGenerator[Item, None]) -> AsyncGenerator[Item, None]:
        """The same chunks, and how a listener hears them who plays each as soon as it comes."""
        listener = Listener(asked_at_s=monotonic() - prepared.waited_s)
        self._unheard += 1
        ended = "spoken"
        try:
            async with aclosing(chunks):
                listener.wait(monotonic())
                async for chunk in chunks:
                    if isinstance(chunk, AudioChunk):
                        self._hear(listener, chunk)
                    yield chunk
                    listener.wait(monotonic())
        except BaseException as error:
            ended = outcome(error, heard=listener.ttfa_s is not None)
            raise
        finally:
            self._recent.add(ended)
            if listener.ttfa_s is None:
                self._unheard -= 1
            else:
                self._speaking -= 1

    def _hear(self, listener: Listener, chunk: AudioChunk) -> None:
        was_silent, was_unheard = listener.audible_ttfa_s is None, listener.ttfa_s is None
        if listener.hear(chunk.samples, monotonic()):
            self._recent.add("underruns")
        if was_unheard and listener.ttfa_s is not None:
            self._unheard -= 1
            self._speaking += 1
            self._ttfa.add(listener.ttfa_s)
        if was_silent and listener.audible_ttfa_s is not None:
            self._audible_ttfa.add(listener.audible_ttfa_s)


def outcome(error: BaseException, *, heard: bool) -> str:
    """How a request ended that did not reach its end. heard: some of it was.

    `left`: its client went away. `invalid`: it could never succeed. `refused`: it came at a bad time. `failed`: the
    rest, and everything that broke after its first sound.
    """
    if isinstance(error, GeneratorExit | CancelledError):
        return "left"
    if isinstance(error, InvalidRequest):
        return "invalid"
    if isinstance(error, Overloaded | NotReady) and not heard:
        return "refused"
    return "failed"
