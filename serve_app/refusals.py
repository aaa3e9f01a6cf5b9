"""Refusals travel between replicas as values.

Ray logs what a replica's method raises, with its traceback, as an error of the deployment, and counts it as one. That a
voice is unknown or an engine full is neither: it is the answer.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from serve_app.errors import BuiltinVoice, InvalidRequest, Overloaded, SpeechError, StorageFull, VoiceExists

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")

REFUSALS = (InvalidRequest, VoiceExists, BuiltinVoice, Overloaded, StorageFull)
"""What the client is told and may act on; everything else that goes wrong is worth its traceback."""


def answers_refusals(
    method: Callable[Concatenate[S, P], Awaitable[T]],
) -> Callable[Concatenate[S, P], Awaitable[T | SpeechError]]:
    """The method of a deployment, returning a refusal instead of raising it."""

    @wraps(method)
    async def answering(itself: S, /, *args: P.args, **kwargs: P.kwargs) -> T | SpeechError:
        try:
            return await method(itself, *args, **kwargs)
        except REFUSALS as refusal:
            return refusal.with_traceback(None)

    return answering


def yields_refusals(
    method: Callable[Concatenate[S, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[S, P], AsyncGenerator[T | SpeechError, None]]:
    """The generator of a deployment, yielding a refusal as its last item instead of raising it."""

    @wraps(method)
    async def yielding(itself: S, /, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T | SpeechError, None]:
        try:
            async with aclosing(method(itself, *args, **kwargs)) as items:
                async for item in items:
                    yield item
        except REFUSALS as refusal:
            yield refusal.with_traceback(None)

    return yielding


def unless_refused(value: T | SpeechError) -> T:
    """The value that came from a replica. Raises the refusal if it is one."""
    if isinstance(value, SpeechError):
        raise value
    return value
