"""Samples of a batch in one copy: each stream its own, and none changed by the next batch."""

import numpy as np
import torch

from serve_app.synthesis.sample_copy import SampleCopy, on_cpu


def test_each_stream_gets_its_own_and_keeps_it() -> None:
    allocated: list[int] = []
    waits: list[int] = []

    def allocate(size: int) -> torch.Tensor:
        allocated.append(size)
        return torch.full((size,), torch.nan)

    copy = SampleCopy(allocate, lambda: waits.append(1))
    parts = [torch.arange(5.0), torch.empty(0), torch.arange(7.0) + 100]
    first = copy(parts)
    second = copy([-part for part in parts])
    for ours, part in zip(first, parts, strict=True):
        np.testing.assert_array_equal(ours, part.numpy())
    for ours, part in zip(second, parts, strict=True):
        np.testing.assert_array_equal(ours, -part.numpy())
    assert allocated == [0, 24], "memory is kept"
    assert len(waits) == 2, "once for each batch"
    np.testing.assert_array_equal(on_cpu(parts)[2], first[2])
