"""Calls of fixed shapes, captured as CUDA graphs where there is a GPU: one launch instead of thousands.

On a CPU, and for shapes that no warm-up has shown, the same call runs eagerly. Nothing here was ever run on a GPU: what
tests check on a CPU is everything but `CudaRecorder`.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

log = logging.getLogger(__name__)

FixedCall = Callable[..., tuple[Tensor, ...]]
"""Tensors in, tensors out. No shape and no address depends on what a tensor holds; inputs may be written."""

Recorder = Callable[[FixedCall, tuple[Tensor, ...]], tuple[Callable[[], None], tuple[Tensor, ...]]]
"""(call, inputs at their fixed addresses) -> what replays it, and the outputs at theirs."""

_NUM_TRIAL_RUNS = 2
"""Before a capture: libraries allocate workspaces and load kernels on the first calls, which a capture forbids."""


class CudaRecorder:
    """Captures on a stream of its own. Graphs captured for one stream share a pool: they never run at the same time."""

    def __init__(self) -> None:
        # By the stream's address.
        self._pool = cache(lambda _stream: torch.cuda.graph_pool_handle())

    def __call__(self, call: FixedCall, inputs: tuple[Tensor, ...]) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        kept = [tensor.clone() for tensor in inputs]
        pool = self._pool(torch.cuda.current_stream().cuda_stream)
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_NUM_TRIAL_RUNS):
                call(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        for tensor, original in zip(inputs, kept, strict=True):
            tensor.copy_(original)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            outputs = call(*inputs)
        return graph.replay, outputs


class Graphs:
    """Every captured call of one engine, and the decision to capture.

    recorder: None where graphs do not exist; then every call is eager.
    """

    def __init__(self, recorder: Recorder | None) -> None:
        self._recorder = recorder
        self._capturing = False
        self.num_captured = 0

    @classmethod
    def on(cls, device: torch.device) -> "Graphs":
        return cls(CudaRecorder() if device.type == "cuda" else None)

    @property
    def can_capture(self) -> bool:
        return self._recorder is not None

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Shapes that are new are captured inside this (warm-up), and run eagerly outside it."""
        self._capturing = True
        try:
            yield
        finally:
            self._capturing = False

    def wrap(self, call: FixedCall) -> "GraphedCall":
        return GraphedCall(call, self)

    def record(self, call: FixedCall, inputs: tuple[Tensor, ...]) -> "Captured | None":
        """None outside a warm-up, and from the first failure on, which is logged."""
        if self._recorder is None or not self._capturing:
            return None
        fixed = tuple(tensor.clone() for tensor in inputs)
        try:
            replay, outputs = self._recorder(call, fixed)
        except RuntimeError as error:  # what torch raises for everything that a capture forbids, and for memory
            log.warning("no CUDA graphs from here on, every call runs eagerly: %s", error)
            self._recorder = None
            return None
        self.num_captured += 1
        return Captured(fixed, replay, outputs)


class GraphedCall:
    """One call, and its graphs by the shapes of its inputs."""

    def __init__(self, call: FixedCall, graphs: Graphs) -> None:
        self._call = call
        self._graphs = graphs
        self._captured: dict[tuple[torch.Size, ...], Captured] = {}

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What the call returns, in memory that belongs to the caller. Its writes to inputs may be lost."""
        key = tuple(tensor.shape for tensor in inputs)
        captured = self._captured.get(key)
        if captured is None:
            captured = self._graphs.record(self._call, inputs)
            if captured is None:
                return self._call(*inputs)
            self._captured[key] = captured
        return captured.run(inputs)


class Captured:
    """inputs, outputs: at the addresses that the graph reads and writes."""

    def __init__(self, inputs: tuple[Tensor, ...], replay: Callable[[], None], outputs: tuple[Tensor, ...]) -> None:
        self._inputs = inputs
        self._replay = replay
        self._outputs = outputs

    def run(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for fixed, tensor in zip(self._inputs, inputs, strict=True):
            fixed.copy_(tensor, non_blocking=True)
        self._replay()
        return tuple(output.clone() for output in self._outputs)
