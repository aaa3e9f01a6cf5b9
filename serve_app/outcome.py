"""How a request for speech ended, in one word."""

from asyncio import CancelledError

from serve_app.errors import InvalidRequest, NotReady, Overloaded


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
