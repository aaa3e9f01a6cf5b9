"""Samples and tokens on their way from the device, into memory that the device can write by itself: one copy for a
whole batch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from serve_app.messages import Float32Array

Arriving = Callable[[], Tensor]
"""Waits for what has been asked of the device before, and for nothing that was asked later; the same on the CPU."""


def start_copy(tensor: Tensor) -> Arriving:
    """Asks for a tensor without waiting for it. Its way from a GPU was never run."""
    if tensor.device.type == "cpu":
        return lambda: tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()

    def wait() -> Tensor:
        event.synchronize()
        return host

    return wait


class SampleCopy:
    """Copies a batch into pinned memory that is kept, and waits once: no stream of a batch waits for another's copy.

    Never run on a GPU; tests run it on a CPU with plain memory.
    """

    def __init__(self, allocate: Callable[[int], Tensor], wait: Callable[[], None]) -> None:
        """allocate: memory for so many float32 samples. wait: until the device has done all that was asked of it."""
        self._allocate = allocate
        self._wait = wait
        self._memory = allocate(0)

    @classmethod
    def from_cuda(cls) -> "SampleCopy":
        return cls(lambda size: torch.empty(size, pin_memory=True), lambda: torch.cuda.current_stream().synchronize())

    def __call__(self, parts: Sequence[Tensor]) -> list[Float32Array]:
        """parts: float32 [S] of each stream, S >= 0, on the device -> the same, in memory of their own."""
        sizes = [len(part) for part in parts]
        total = sum(sizes)
        if total > len(self._memory):
            self._memory = self._allocate(2 * total)
        target = self._memory[:total]
        target.copy_(torch.cat(list(parts)), non_blocking=True)
        self._wait()
        # The memory is written again by the next batch.
        return [part.numpy() for part in torch.split(target.clone(), sizes)]


def on_cpu(parts: Sequence[Tensor]) -> list[Float32Array]:
    """What is on the CPU already needs no copy."""
    return [part.numpy() for part in parts]
