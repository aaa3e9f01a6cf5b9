"""Refusals cross between replicas as values; everything else is raised."""

import pickle
from collections.abc import AsyncGenerator

import pytest

from serve_app.errors import GenerationFailed, Overloaded, SpeechError, VoiceNotFound
from serve_app.refusals import REFUSALS, answers_refusals, unless_refused, yields_refusals


class Deployment:
    """Raises what it is told to."""

    @answers_refusals
    async def answer(self, error: Exception | None = None) -> str:
        if error is not None:
            raise error
        return "fine"

    @yields_refusals
    async def items(self, error: Exception | None = None) -> AsyncGenerator[int, None]:
        yield 1
        if error is not None:
            raise error
        yield 2


async def test_a_refusal_is_returned_without_its_traceback_and_raised_by_the_caller() -> None:
    given = await Deployment().answer(VoiceNotFound("who?"))
    assert isinstance(given, VoiceNotFound) and given.__traceback__ is None
    with pytest.raises(VoiceNotFound, match=r"who\?"):
        unless_refused(pickle.loads(pickle.dumps(given)))
    assert unless_refused(await Deployment().answer()) == "fine"


async def test_a_refusal_is_the_last_item() -> None:
    *items, last = [item async for item in Deployment().items(Overloaded("full"))]
    assert items == [1] and isinstance(last, Overloaded)
    assert [item async for item in Deployment().items()] == [1, 2]


@pytest.mark.parametrize("fault", [GenerationFailed("lost"), ValueError("bug")])
async def test_faults_are_raised(fault: Exception) -> None:
    with pytest.raises(type(fault)):
        await Deployment().answer(fault)
    with pytest.raises(type(fault)):
        [item async for item in Deployment().items(fault)]


def test_every_refusal_is_an_error_of_ours() -> None:
    assert all(issubclass(refusal, SpeechError) for refusal in REFUSALS)
