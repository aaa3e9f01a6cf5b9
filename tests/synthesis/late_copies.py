"""Renders that end when a test says so, as on a device that does things on its own."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class LateCopy:
    """looks: so many more find nothing. error: what the device says went wrong. waited: somebody did not only look."""

    tensor: Tensor
    looks: int
    error: Exception | None = None
    waited: bool = False

    def is_there(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    def __call__(self) -> Tensor:
        self.waited = self.looks >= 0
        if self.error is not None:
            raise self.error
        return self.tensor


@dataclass
class LateCopies:
    """looks: after how many a copy is there. begun: every one, the newest last."""

    looks: Callable[[], int]
    begun: list[LateCopy] = field(default_factory=list)

    def __call__(self, tensor: Tensor) -> LateCopy:
        self.begun.append(LateCopy(tensor, self.looks()))
        return self.begun[-1]
