"""Working only for as long as the client is there."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive

from serve_app.api.error_table import ClientLeft
from serve_app.errors import GenerationFailed

NEWS_S = 1.0
"""How long after its work was cancelled a client may be heard of to have left."""


async def run_while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end; when the client disconnects or this task is cancelled, cancel it and await its cleanup.

    The request's body must have been read: whatever `receive` still gives is taken for nothing but the disconnect.
    `work` is cancelled at most once, so that the awaits in its `finally` blocks complete.

    Errors: what `work` raises; `ClientLeft`.
    """
    task = asyncio.create_task(work)
    watcher = asyncio.create_task(_disconnect(receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if task.done() and task.cancelled():
            # Ray cancels what a request has begun before it says that the client left.
            await asyncio.wait({watcher}, timeout=NEWS_S)
        gone = not task.done() or (task.cancelled() and watcher.done())
    finally:
        await finish(watcher)
        await finish(task)
    if gone:
        raise ClientLeft
    if task.cancelled():
        # Ray turns a stream cancelled by its replica into a CancelledError here, which nobody asked for.
        raise GenerationFailed("The stream was cancelled by the server.")
    task.result()


async def finish(task: asyncio.Task[Any]) -> None:
    """Cancel `task` unless it is done, and wait until it is, even if this task is cancelled meanwhile."""
    task.cancel()
    interrupted = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            interrupted = True
    if not task.cancelled():
        task.exception()  # or asyncio reports it as never retrieved
    if interrupted:
        raise asyncio.CancelledError


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
