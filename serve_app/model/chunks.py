"""How the flow's chunks and what they leave behind are spoken of, wherever the pasts of the streams lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Kept(Protocol):
    """What the chunks of one stream leave behind for the next ones."""

    @property
    def num_bytes(self) -> int: ...

    def clone(self, *, grows: bool = True) -> "Kept":
        """An independent continuation of the same past. grows: it will go on; otherwise it takes no memory for that."""
        ...

    def close(self) -> None:
        """Frees it. Idempotent."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ChunkInputs:
    """The next chunk of B streams, C tokens or T frames long.

    ids: [n] of each, chunk and lookahead. num_tokens: of the chunk alone; the rest of C is padding.
    speakers: [B, mel_bins]. noise, prompt: [B, T, mel_bins], the prompt's mel with zeros behind it.
    unguided: [B, T, mel_bins], the first step's velocity without the conditions; None without guidance.
    """

    ids: Sequence[Tensor]
    num_tokens: Sequence[int]
    speakers: Tensor
    noise: Tensor
    prompt: Tensor
    unguided: Tensor | None


class Chunks(Protocol):
    """Where the pasts of the streams lie, and how a chunk is computed over them."""

    def open(self, left_context: int | None, *, poison: bool) -> Kept: ...

    def trim(self) -> None:
        """Gives back memory that no stream uses."""
        ...

    def render(self, kept: Sequence[Kept], inputs: ChunkInputs) -> Tensor:
        """-> [B, >= the longest chunk's frames, mel_bins]. Commits the chunk."""
        ...
