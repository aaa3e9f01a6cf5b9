"""What a chunk's queries attend to, for all streams of a batch: each one's own past, and the chunk itself.

`RaggedPast` goes from stream to stream and copies nothing of the past: the better one on a CPU. `PagedPast` is one
attention over pages of a common pool, padded to the longest: no shape and no address depends on the data, so that a
chunk can be captured as a CUDA graph. Both give the same result.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from serve_app.model.context import Context, ContextShape

PositionScores = Callable[[Tensor, int, int], Tensor]
"""(queries [B, heads, T, head_dim], keys before the first one, number of keys) -> [B, heads, T, keys], to be added."""


class Past(Protocol):
    def attend(self, layer: int, step: int, qkv: Tensor, score: PositionScores | None = None) -> Tensor:
        """Writes the chunk's keys and values and attends.

        qkv: [B * rows, T, 3, heads, head_dim], a stream's rows beside each other, or the first ones of each alone
            -> [B * rows, T, heads * head_dim].
        score: for attention with relative positions.
        """
        ...


@dataclass(frozen=True, slots=True)
class RaggedPast:
    """num_valid: real positions of each stream's chunk; the rest is padding. Contexts are extended, not committed."""

    contexts: Sequence[Context]
    num_valid: Sequence[int]

    def attend(self, layer: int, step: int, qkv: Tensor, score: PositionScores | None = None) -> Tensor:
        outputs = []
        for part, context, count in zip(qkv.chunk(len(self.contexts)), self.contexts, self.num_valid, strict=True):
            keys, values = context.extend(layer, step, part[:, :, 1:], count)
            queries = part.select(2, 0).transpose(1, 2)
            bias = None if score is None else score(queries, keys.shape[2] - count, keys.shape[2])
            outputs.append(F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias).transpose(1, 2))
        return (outputs[0] if len(outputs) == 1 else torch.cat(outputs)).flatten(2)


class PageMemory:
    """Keys and values of one network in pages of one chunk; who owns which page is `PagePool`'s matter.

    layers: for each, [steps, pages, chunk, rows, 2, heads, head_dim].
    """

    def __init__(self, shape: ContextShape, num_pages: int, like: Tensor) -> None:
        size = (shape.steps, num_pages, shape.chunk, shape.rows, 2, shape.heads, shape.head_dim)
        self.layers = [like.new_zeros(size) for _ in range(shape.layers)]
        self.shape = shape

    @staticmethod
    def page_bytes(shape: ContextShape, like: Tensor) -> int:
        """Of one page, all layers."""
        numbers = shape.layers * shape.steps * shape.chunk * shape.rows * 2 * shape.heads * shape.head_dim
        return numbers * like.element_size()

    def fill(self, page: int, value: float) -> None:
        for layer in self.layers:
            layer[:, page] = value


@dataclass(frozen=True, slots=True)
class PagedPast:
    """pages: int64 [B, P], each stream's pages in order, the chunk's own last, `NULL_PAGE` before the first.

    visible: bool [B, 1, 1, P * chunk], False where there is no position.
    """

    memory: PageMemory
    pages: Tensor
    visible: Tensor

    def attend(self, layer: int, step: int, qkv: Tensor, score: PositionScores | None = None) -> Tensor:
        shape, (num_streams, num_pages) = self.memory.shape, self.pages.shape
        num_rows = len(qkv) // num_streams
        stored = self.memory.layers[layer][step][:, :, :num_rows]
        # [B * rows, T, 3, heads, d] -> [B, T, rows, 3, heads, d]
        chunk = qkv.view(num_streams, num_rows, *qkv.shape[1:]).transpose(1, 2)
        stored.index_copy_(0, self.pages[:, -1], chunk[:, :, :, 1:].to(stored.dtype))
        past = stored.index_select(0, self.pages.flatten())
        # Each row of a stream is so many heads more: [B, rows * heads, positions, d].
        past = past.view(num_streams, num_pages * shape.chunk, num_rows, 2, shape.heads, shape.head_dim)
        keys, values = (past[:, :, :, i].flatten(2, 3).transpose(1, 2) for i in range(2))
        queries = chunk[:, :, :, 0].flatten(2, 3).transpose(1, 2)
        mask = self.visible
        if score is not None:
            # Pages end where the chunk ends, so distances are the same for every stream of the batch.
            scores = score(queries, keys.shape[2] - queries.shape[2], keys.shape[2])
            mask = scores.masked_fill(~self.visible, -torch.inf)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        # [B, rows * heads, T, d] -> [B * rows, T, heads * d]
        attended = attended.reshape(num_streams * num_rows, shape.heads, -1, shape.head_dim)
        return attended.transpose(1, 2).flatten(2)


NULL_PAGE, SPARE_PAGE = 0, 1
"""Two pages are nobody's: one of zeros stands for a past that a stream does not have, one takes what padding writes."""


class PagePool:
    """Counts who uses which page. A voice's pages serve all its streams at once.

    poison: fill a free page with NaN, so that a stale read fails loudly (tests).
    """

    def __init__(self, memories: Sequence[PageMemory], num_pages: int, *, poison: bool = False) -> None:
        """num_pages: as the memories have; two of them are not for use."""
        self.num_pages = num_pages - 2
        self._memories = memories
        self._poison = poison
        self._users = dict.fromkeys((NULL_PAGE, SPARE_PAGE), 1)
        self._free = list(reversed(range(2, num_pages)))
        if poison:
            for page in self._free:
                self._fill(page)

    @property
    def num_free(self) -> int:
        return len(self._free)

    def take(self) -> int:
        """A page with one user. Raises IndexError when none is free."""
        if not self._free:
            raise IndexError(f"all {self.num_pages} pages of the flow are taken")
        page = self._free.pop()
        self._users[page] = 1
        return page

    def share(self, pages: Sequence[int]) -> None:
        """Each page gets one more user."""
        for page in pages:
            self._users[page] += 1

    def give_back(self, pages: Sequence[int]) -> None:
        """Each page loses a user; without one it is free."""
        for page in pages:
            self._users[page] -= 1
            if self._users[page] == 0:
                del self._users[page]
                self._free.append(page)
                if self._poison:
                    self._fill(page)

    def _fill(self, page: int) -> None:
        for memory in self._memories:
            memory.fill(page, torch.nan)
