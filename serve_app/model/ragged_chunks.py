"""The flow's chunks over pasts of which each stream has its own; `paged_chunks.py` shares them out in pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from serve_app.model.chunks import ChunkInputs, Kept
from serve_app.model.context import SpareMemory
from serve_app.model.flow_encoder import EncoderState
from serve_app.model.flow_estimator import EstimatorState

if TYPE_CHECKING:
    from serve_app.model.flow import Flow


@dataclass(eq=False, slots=True)
class RaggedKept:
    """The past of one stream, in memory of its own."""

    encoder: EncoderState
    estimator: EstimatorState

    @property
    def num_bytes(self) -> int:
        return self.encoder.num_bytes + self.estimator.num_bytes

    def clone(self, *, grows: bool = True) -> "RaggedKept":
        return RaggedKept(self.encoder.clone(grows=grows), self.estimator.clone(grows=grows))

    def close(self) -> None:
        self.encoder.close()
        self.estimator.close()


class RaggedChunks:
    """Every stream at its own length, nothing padded but the newest chunk: what a CPU does best."""

    def __init__(self, flow: "Flow") -> None:
        self.spare = SpareMemory()
        self._encoder, self._estimator, self._solve = flow.encoder, flow.estimator, flow.solve
        self._ratio = flow.dims.token_mel_ratio

    def open(self, left_context: int | None, *, poison: bool) -> RaggedKept:
        encoder = self._encoder.open(poison, left_context, self.spare)
        return RaggedKept(encoder, self._estimator.open(poison, left_context, self.spare))

    def trim(self) -> None:
        self.spare.clear()

    def render(self, kept: Sequence[Kept], inputs: ChunkInputs) -> Tensor:
        own = [stream for stream in kept if isinstance(stream, RaggedKept)]
        num_frames = [self._ratio * count for count in inputs.num_tokens]
        length = max(num_frames)
        mu = self._encoder([stream.encoder for stream in own], inputs.ids, inputs.num_tokens)
        states = [stream.estimator for stream in own]
        run = self._estimator.begin(states, num_frames)
        unguided = None if inputs.unguided is None else inputs.unguided[:, :length]
        frames = inputs.noise[:, :length], inputs.prompt[:, :length]
        mel = self._solve(mu, inputs.speakers, *frames, unguided, run)
        self._estimator.commit(run, states, num_frames)
        return mel
