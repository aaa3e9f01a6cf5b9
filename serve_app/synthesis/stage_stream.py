"""A CUDA stream of its own for one stage, so that its work and that of the other stage overlap on the device."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

StageStream = Callable[[], AbstractContextManager[object]]
"""Within what it returns, the device's work is asked for on the stage's stream; may be entered again and again."""


def stage_stream(device: torch.device) -> StageStream:
    """On a CPU one that changes nothing. Never run on a GPU.

    What the stage reads must have been there before, or come through the host: nothing else orders two streams. What it
    allocates within belongs to its stream, and may be freed anywhere.
    """
    if device.type == "cpu":
        return nullcontext
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    # Weights, and whatever else was asked for until now.
    stream.wait_stream(torch.cuda.current_stream(device))
    return lambda: torch.cuda.stream(stream)
