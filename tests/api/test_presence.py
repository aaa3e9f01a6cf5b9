"""Who ended a request: its client, or nobody that we know of."""

import asyncio
from collections.abc import Callable

import pytest

from serve_app.api import presence
from serve_app.api.error_table import ClientLeft
from serve_app.api.presence import run_while_connected
from serve_app.errors import GenerationFailed


def leaves_after(moment: asyncio.Event) -> Callable[[], object]:
    async def receive() -> dict[str, object]:
        await moment.wait()
        return {"type": "http.disconnect"}

    return receive


async def cancelled_work() -> None:
    raise asyncio.CancelledError


async def test_work_that_is_cancelled_just_before_the_disconnect_is_heard_of_was_left() -> None:
    left = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, left.set)
    with pytest.raises(ClientLeft):
        await run_while_connected(leaves_after(left), cancelled_work())  # type: ignore[arg-type]


async def test_work_that_is_cancelled_with_the_client_there_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "NEWS_S", 0.05)
    with pytest.raises(GenerationFailed):
        await run_while_connected(leaves_after(asyncio.Event()), cancelled_work())  # type: ignore[arg-type]


async def test_what_work_raises_is_told_even_if_the_client_leaves_at_once() -> None:
    left = asyncio.Event()

    async def failing() -> None:
        left.set()
        raise ValueError("told")

    with pytest.raises(ValueError, match="told"):
        await run_while_connected(leaves_after(left), failing())  # type: ignore[arg-type]
