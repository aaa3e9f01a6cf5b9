"""Samples and tokens on their way between host and device, in memory that the device can read and write by itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Arriving(Protocol):
    """A tensor on its way from the device. It waits for what was asked of the device before, and for nothing that was
    asked later."""

    def is_there(self) -> bool: ...

    def __call__(self) -> Tensor:
        """On the CPU; waits for it. Raises what the device says went wrong. May be called again."""
        ...


StartCopy = Callable[[Tensor], Arriving]


@dataclass(frozen=True, slots=True)
class Arrived:
    """What was on the CPU from the start."""

    tensor: Tensor

    def is_there(self) -> bool:
        return True

    def __call__(self) -> Tensor:
        return self.tensor


class CudaCopy:
    """Pinned memory and the event that says it is written. Never run on a GPU."""

    def __init__(self, tensor: Tensor) -> None:
        self._pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._pinned.copy_(tensor, non_blocking=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record()

    def is_there(self) -> bool:
        return bool(self._event.query())  # type: ignore[no-untyped-call]

    def __call__(self) -> Tensor:
        self._event.synchronize()
        # A listener may keep it for long, and pinned memory is for the next copy.
        return self._pinned.clone()


def start_copy(tensor: Tensor) -> Arriving:
    """Asks for a tensor without waiting for it, on the stream that is current."""
    return Arrived(tensor) if tensor.device.type == "cpu" else CudaCopy(tensor)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor, on the device, for what is asked of the current stream from here on; the host does not wait for
    what was asked of it before, as it may where the memory is not pinned and larger than 64 KiB."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
