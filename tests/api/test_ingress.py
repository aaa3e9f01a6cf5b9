"""Ray's side of the edge: its errors become ours, and a consumer that leaves is passed on. Stubs stand for handles."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, cast

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import JSONResponse

from serve_app.api.boundary import RequestIds
from serve_app.api.ingress import LARGE_ARGUMENT_BYTES, RayService, WithoutRequestId
from serve_app.api.ledger import Ledger
from serve_app.api.second_try import ReplicaGone
from serve_app.errors import GenerationFailed, Overloaded, SpeechError, VoiceNotFound
from serve_app.messages import (
    AudioChunk,
    PreparedSpeech,
    PreparedUtterance,
    ReferenceClip,
    SpeakingReplica,
    SpeechRequest,
    VoicePrompt,
)
from serve_app.metrics import SILENT
from tests.fakes import NO_IDS

REQUEST = SpeechRequest("r", "Hello.")
VOICE = VoicePrompt("k", NO_IDS, NO_IDS, np.zeros((0, 80), np.float32), np.zeros(192, np.float32))
PREPARED = PreparedSpeech("r", VOICE, (PreparedUtterance(np.ones(1, np.int32), NO_IDS, NO_IDS, 0, 6),), seed=0)


class Response:
    """A `DeploymentResponse`, or its generator: runs `work` when awaited or iterated."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def __await__(self) -> Any:
        return self.work().__await__()

    def __aiter__(self) -> Any:
        return self.work()


class Handle:
    """A `DeploymentHandle` whose every method gives the one response."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.response = Response(work)
        self.chosen: dict[str, Any] = {}
        self.calls: list[tuple[Any, ...]] = []

    def options(self, **chosen: Any) -> "Handle":
        self.chosen.update(chosen)
        return self

    def __getattr__(self, name: str) -> Any:
        return self

    def remote(self, *arguments: Any) -> Response:
        self.calls.append(arguments)
        return self.response


def service_over(work: Callable[[], Any]) -> tuple[RayService, Handle]:
    handle = Handle(work)
    stage = cast(DeploymentHandle, handle)
    return RayService(stage, stage, stage, Ledger(SILENT)), handle


def task_error(cause: Exception) -> Exception:
    """As a caller gets it: the cause's class mixed in, a remote traceback as its text."""
    wrapped = RayTaskError("speak", "Traceback (most recent call last): secret", cause, "title", 1, "127.0.0.1")
    error: Exception = wrapped.as_instanceof_cause()
    return error


DIED = ActorDiedError()
CASES = [
    (task_error(VoiceNotFound("No such voice.")), VoiceNotFound, "No such voice."),
    (task_error(task_error(GenerationFailed("Too long."))), GenerationFailed, "Too long."),
    (BackPressureError(3, 2), Overloaded, None),
    (task_error(BackPressureError(3, 2)), Overloaded, None),
    (DIED, ReplicaGone, None),
    (task_error(DIED), ReplicaGone, None),
]


@pytest.mark.parametrize(("raised", "expected", "text"), CASES)
async def test_errors_of_a_call_and_of_a_stream(
    raised: Exception, expected: type[SpeechError], text: str | None
) -> None:
    async def call() -> None:
        raise raised

    async def stream() -> AsyncGenerator[AudioChunk, None]:
        yield AudioChunk(np.zeros(1, np.float32), 0, 1)
        raise raised

    with pytest.raises(expected) as of_call:
        await service_over(call)[0].prepare(REQUEST)
    with pytest.raises(expected) as of_stream:
        async for _ in service_over(stream)[0].speak(PREPARED):
            pass
    for caught in (of_call.value, of_stream.value):
        assert type(caught) is expected
        assert "secret" not in str(caught)
        assert text is None or caught.message == text


async def test_a_refusal_that_comes_as_a_value_is_raised() -> None:
    refusal = VoiceNotFound("No such voice.")

    async def call() -> SpeechError:
        return refusal

    async def stream() -> AsyncGenerator[AudioChunk | SpeechError, None]:
        yield refusal

    with pytest.raises(VoiceNotFound):
        await service_over(call)[0].prepare(REQUEST)
    service, handle = service_over(stream)
    with pytest.raises(VoiceNotFound):
        async for _ in service.speak(PREPARED):
            pass
    assert not handle.response.cancelled, "it had ended"


async def test_an_error_of_no_ray_kind_keeps_its_class() -> None:
    async def call() -> None:
        raise task_error(KeyError("x"))

    with pytest.raises(KeyError):
        await service_over(call)[0].prepare(REQUEST)


async def test_a_consumer_that_leaves_cancels_the_stream_and_one_that_stays_does_not() -> None:
    async def stream() -> AsyncGenerator[AudioChunk, None]:
        for _ in range(3):
            yield AudioChunk(np.zeros(1, np.float32), 0, 1)

    service, handle = service_over(stream)
    assert len([chunk async for chunk in service.speak(PREPARED)]) == 3
    assert handle.chosen["stream"] is True
    assert not handle.response.cancelled
    async with aclosing(service.speak(PREPARED)) as chunks:
        await anext(chunks)
    assert handle.response.cancelled


async def test_a_call_is_cancelled_with_its_caller() -> None:
    started = asyncio.Event()

    async def call() -> None:
        started.set()
        await asyncio.Event().wait()

    service, handle = service_over(call)
    task = asyncio.create_task(service.prepare(REQUEST))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert handle.response.cancelled


@pytest.mark.parametrize(("num_bytes", "by_reference"), [(1000, False), (LARGE_ARGUMENT_BYTES + 1, True)])
async def test_large_clips_go_through_the_object_store(num_bytes: int, by_reference: bool) -> None:
    async def call() -> object:
        return PREPARED

    service, handle = service_over(call)
    await service.prepare(SpeechRequest("r", "Hello.", reference=ReferenceClip(bytes(num_bytes))))
    assert ("_by_reference" in handle.chosen) is by_reference


async def test_readiness_does_not_wait_for_a_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    async def dead() -> None:
        raise DIED

    async def warm() -> bool:
        return True

    monkeypatch.setattr("serve_app.api.ingress.READY_TIMEOUT_S", 0.01)
    service, handle = service_over(never)
    assert await service.ready() is False
    assert handle.response.cancelled
    assert await service_over(dead)[0].ready() is False
    assert await service_over(warm)[0].ready() is True


async def test_rays_own_request_id_stays_alone() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await JSONResponse({"id": Request(scope).state.request_id})(scope, receive, send)

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"x-request-id", b"mine")]}
    await WithoutRequestId(RequestIds(app))(scope, cast(Any, None), send)
    assert b"x-request-id" not in dict(sent[0]["headers"])
    assert b"mine" in sent[1]["body"]


async def test_a_voice_goes_where_it_is_known_and_text_where_it_is_spoken() -> None:
    async def stream() -> AsyncGenerator[AudioChunk | SpeakingReplica, None]:
        yield SpeakingReplica("abc")
        yield AudioChunk(np.zeros(1, np.float32), 0, 1)

    async def nothing() -> None:
        return None

    service, handle = service_over(stream)
    items = [item async for item in service.speak_fed(PREPARED)]
    assert items[0] == SpeakingReplica("abc") and isinstance(items[1], AudioChunk)
    assert handle.chosen["session_id"] == f"voice:{PREPARED.voice.key}"
    service, handle = service_over(nothing)
    await service.feed("abc", "request", np.zeros(1, np.int32))
    assert handle.chosen["session_id"] == "replica:abc"
    service, handle = service_over(nothing)
    await service.end_text("xyz", "request")
    assert handle.chosen["session_id"] == "replica:xyz"


async def test_whom_the_voices_own_replica_refuses_is_sent_to_the_least_loaded() -> None:
    asked: list[str] = []

    async def stream() -> AsyncGenerator[AudioChunk, None]:
        asked.append(handle.chosen["session_id"])
        if len(asked) == 1:
            raise task_error(Overloaded("every stream of this replica is taken"))
        yield AudioChunk(np.zeros(1, np.float32), 0, 1)

    service, handle = service_over(stream)
    assert len([chunk async for chunk in service.speak(PREPARED)]) == 1
    assert asked == [f"voice:{PREPARED.voice.key}", ""]


async def test_after_a_refusal_the_next_are_refused_without_a_call_and_told_of_with_the_next_one() -> None:
    async def full() -> AsyncGenerator[SpeechError, None]:
        yield Overloaded("every stream of this replica is taken")

    service, handle = service_over(full)
    with pytest.raises(Overloaded):
        await anext(service.speak(PREPARED))
    assert handle.calls == [(PREPARED, 0)] * 2, "the voice's own replica, and the least loaded"
    for prepare in (service.prepare, service.prepare_fed):
        with pytest.raises(Overloaded):
            await prepare(REQUEST)
    assert len(handle.calls) == 2
    assert service.ledger.figures("id").recent["refused"] == 3
    with pytest.raises(Overloaded):
        await anext(service.speak(PREPARED))
    assert handle.calls[2:] == [(PREPARED, 2), (PREPARED, 0)]
