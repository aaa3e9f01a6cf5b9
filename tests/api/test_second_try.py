"""Requests whose replica dies: tried again while nothing was heard, and only then."""

from collections.abc import AsyncGenerator

import pytest

from serve_app.api import second_try
from serve_app.api.second_try import ReplicaGone, answer_again, items_again, items_elsewhere
from serve_app.errors import Overloaded


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_try, "PAUSES_S", (0.0, 0.0))


class Dying:
    """Dies so many times, after so many items."""

    def __init__(self, deaths: int, after: int = 0, error: Exception | None = None) -> None:
        self.deaths, self.after, self.error = deaths, after, error or ReplicaGone("gone")
        self.calls = self.closed = 0

    async def answer(self) -> int:
        self.calls += 1
        if self.calls <= self.deaths:
            raise self.error
        return self.calls

    async def items(self) -> AsyncGenerator[int, None]:
        self.calls += 1
        try:
            for number in range(3):
                if number == self.after and self.calls <= self.deaths:
                    raise self.error
                yield number
        finally:
            self.closed += 1


@pytest.mark.parametrize("deaths", [0, 1, 2])
async def test_another_replica_answers(deaths: int) -> None:
    replica = Dying(deaths)
    assert await answer_again(replica.answer) == deaths + 1
    replica = Dying(deaths)
    assert [item async for item in items_again(replica.items)] == [0, 1, 2]
    assert replica.calls == replica.closed == deaths + 1


async def test_it_does_not_go_on_forever() -> None:
    for call in (Dying(9), Dying(9)):
        with pytest.raises(ReplicaGone):
            await answer_again(call.answer)
        assert call.calls == 3
    replica = Dying(9)
    with pytest.raises(ReplicaGone):
        await anext(items_again(replica.items))
    assert replica.calls == replica.closed == 3


async def test_what_was_heard_is_not_said_twice() -> None:
    replica, heard = Dying(1, after=1), []
    with pytest.raises(ReplicaGone):
        async for item in items_again(replica.items):
            heard.append(item)
    assert (heard, replica.calls) == ([0], 1)


async def test_a_refusal_is_no_death() -> None:
    replica = Dying(1, error=Overloaded("full"))
    with pytest.raises(Overloaded):
        await answer_again(replica.answer)
    with pytest.raises(Overloaded):
        await anext(items_again(Dying(1, error=Overloaded("full")).items))
    assert replica.calls == 1


async def test_a_listener_who_leaves_ends_the_call() -> None:
    replica = Dying(0)
    items = items_again(replica.items)
    assert await anext(items) == 0
    await items.aclose()
    assert replica.closed == 1


async def test_who_is_refused_is_asked_elsewhere_once() -> None:
    full, free = Dying(1, error=Overloaded("full")), Dying(0)
    assert [item async for item in items_elsewhere(full.items, free.items)] == [0, 1, 2]
    assert (full.calls, full.closed, free.calls, free.closed) == (1, 1, 1, 1)
    full = Dying(9, error=Overloaded("full"))
    with pytest.raises(Overloaded):
        await anext(items_elsewhere(full.items, full.items))
    assert full.calls == full.closed == 2
    replica, unasked = Dying(0), Dying(0)
    assert [item async for item in items_elsewhere(replica.items, unasked.items)] == [0, 1, 2]
    assert unasked.calls == 0


@pytest.mark.parametrize(("error", "after"), [(Overloaded("full"), 1), (ReplicaGone("gone"), 0)])
async def test_only_a_refusal_before_the_first_item_goes_elsewhere(error: Exception, after: int) -> None:
    replica, other = Dying(1, after=after, error=error), Dying(0)
    with pytest.raises(type(error)):
        _ = [item async for item in items_elsewhere(replica.items, other.items)]
    assert other.calls == 0


async def test_a_listener_who_leaves_ends_the_call_elsewhere_too() -> None:
    full, free = Dying(1, error=Overloaded("full")), Dying(0)
    items = items_elsewhere(full.items, free.items)
    assert await anext(items) == 0
    await items.aclose()
    assert free.closed == 1
