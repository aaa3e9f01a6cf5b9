"""A real server on a free port of 127.0.0.1, in a thread, for what has no event loop of its own: the commands."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The address at which `app` answers until the block ends."""
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    loop = asyncio.new_event_loop()
    started = threading.Event()
    ended = asyncio.Event()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))

        async def serve() -> None:
            await server.startup(sockets=[listener])
            started.set()
            await ended.wait()
            await server.shutdown(sockets=[listener])

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
        thread.start()
        assert started.wait(30)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            loop.call_soon_threadsafe(ended.set)
            thread.join()
            loop.close()


def unused_address() -> str:
    """Where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
