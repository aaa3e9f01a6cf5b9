"""The keys and values of one stream's past, as a CPU likes them best, and the memory that they lie in."""

import mmap
from dataclasses import dataclass

import torch
from torch import Tensor

SPARE_BYTES = 4 * 2**30
"""Of ended streams, kept for the next ones: one utterance of 15 s at CosyVoice2's size."""
RESERVED_CHUNKS = 32
"""Addresses that a context on a CPU gets at once, for which there is memory only where something was written: growing
costs no copy until then."""


@dataclass(frozen=True, slots=True)
class ContextShape:
    """What decides the size of a `Context`.

    steps, rows: evaluations of the network for one chunk, one after another and side by side.
    chunk: positions in a chunk.
    """

    layers: int
    steps: int
    rows: int
    heads: int
    head_dim: int
    chunk: int


class SpareMemory:
    """Memory of contexts that have ended, for the next ones.

    What is new to the process is cleared page by page when it is written first: on a virtual machine that took 1.3 s of
    the 3.3 s in which a core makes a second of speech at CosyVoice2's size.
    """

    def __init__(self, max_bytes: int = SPARE_BYTES) -> None:
        self.max_bytes = max_bytes
        self._sets: list[Memory] = []

    @property
    def num_bytes(self) -> int:
        return sum(memory.num_bytes for memory in self._sets)

    def take(self, like: list[Tensor], capacity: int) -> "Memory | None":
        """Layers like these with room for so many positions: those of which the most was written, or None."""
        fitting = [memory for memory in self._sets if memory.is_like(like) and memory.capacity >= capacity]
        if not fitting:
            return None
        found = max(fitting, key=lambda memory: (memory.written, memory.capacity))
        self._sets = [memory for memory in self._sets if memory is not found]
        return found

    def put(self, memory: "Memory") -> None:
        """The oldest go where there is not room for all."""
        if memory.num_bytes:
            self._sets.append(memory)
        while self.num_bytes > self.max_bytes:
            del self._sets[0]

    def clear(self) -> None:
        self._sets.clear()


@dataclass(frozen=True, slots=True)
class Memory:
    """What a context lies in. layers: as its own. written: positions, from the first on, that were ever written."""

    layers: list[Tensor]
    written: int

    @property
    def capacity(self) -> int:
        return self.layers[0].shape[4] if self.layers else 0

    @property
    def num_bytes(self) -> int:
        """Of memory, not of addresses."""
        return _num_bytes(self.layers, self.written)

    def is_like(self, layers: list[Tensor]) -> bool:
        return len(self.layers) == len(layers) and _kind(self.layers[0]) == _kind(layers[0])


def _num_bytes(layers: list[Tensor], num_positions: int) -> int:
    return sum(layer[..., :num_positions, :].numel() * layer.element_size() for layer in layers)


def _reserved(like: list[Tensor], capacity: int) -> Memory | None:
    """Addresses for layers like these. None where the system promises no memory that is not there (`ulimit -v`,
    `vm.overcommit_memory` 2)."""
    try:
        return Memory([_addresses((*layer.shape[:4], capacity, layer.shape[5]), layer.dtype) for layer in like], 0)
    except OSError:
        return None


def _addresses(size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Private memory of this size, all of it still untouched. In small pages, since a large one would hold a little of
    what many positions keep."""
    num_numbers = torch.Size(size).numel()
    area = mmap.mmap(-1, num_numbers * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        area.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(area, dtype=dtype).view(size)


def _kind(layer: Tensor) -> tuple[object, ...]:
    """What two layers must have in common to stand for each other."""
    return (*layer.shape[:4], layer.shape[5], layer.dtype, layer.device)


@dataclass(eq=False, slots=True)
class Context:
    """The keys and values that one stream has committed, of every attention layer of a network.

    layers: for each, [steps, 2, rows, heads, capacity, head_dim]: keys, then values. Positions from `length` on are
        spare; a chunk is written there in place, so that nothing of the past is copied for it.
        There may be no layer at all.
    length: committed positions that are held. capacity: positions that there is room for. written: positions that were
        ever written, by this stream or the one that had the memory before.
    max_chunks: so many committed chunks are seen, older ones forgotten; None: all.
    poison: fill the spare positions with NaN, so that a read of one fails loudly (tests).
    spare: where memory comes from and goes to.
    """

    layers: list[Tensor]
    chunk: int
    poison: bool
    spare: SpareMemory
    max_chunks: int | None = None
    length: int = 0
    capacity: int = 0
    written: int = 0

    @classmethod
    def empty(
        cls,
        shape: ContextShape,
        like: Tensor,
        *,
        poison: bool = False,
        spare: SpareMemory | None = None,
        max_chunks: int | None = None,
    ) -> "Context":
        """like: gives type and device. spare: None for one of its own."""
        size = (shape.steps, 2, shape.rows, shape.heads, 0, shape.head_dim)
        layers = [like.new_empty(size) for _ in range(shape.layers)]
        return cls(layers, shape.chunk, poison, spare or SpareMemory(), max_chunks)

    @property
    def num_bytes(self) -> int:
        """Of what is held."""
        return _num_bytes(self.layers, self.length)

    @property
    def _reserves(self) -> bool:
        """Where nothing is filled in beforehand, and nothing forgotten while it goes on."""
        on_cpu = bool(self.layers) and self.layers[0].device.type == "cpu"
        return on_cpu and not self.poison and self.max_chunks is None

    def clone(self, *, grows: bool = True) -> "Context":
        """An independent copy. grows: with room for two more chunks at least."""
        copy = Context(list(self.layers), self.chunk, self.poison, self.spare, self.max_chunks, self.length)
        if grows:
            copy._resize(self.length // self.chunk + 2)
        else:
            copy._move(None, self.length)
        return copy

    def close(self) -> None:
        """Gives the memory back. Idempotent; nothing else may be called after it."""
        self.spare.put(Memory(self.layers, self.written))
        self.layers, self.length, self.capacity, self.written = [], 0, 0, 0

    def reserve(self) -> None:
        """Makes room for one more chunk. Capacity grows by half, so a position is copied three times at most; what
        nobody will see again goes then."""
        if self.capacity < self.length + self.chunk:
            unseen = self._first_seen()
            num_chunks = (self.length - unseen) // self.chunk
            self._resize(num_chunks + 1 + num_chunks // 2, unseen)
        self.written = max(self.written, self.length + self.chunk)

    def _first_seen(self) -> int:
        return 0 if self.max_chunks is None else max(0, self.length - self.max_chunks * self.chunk)

    def extend(self, layer: int, step: int, fresh: Tensor, num_valid: int) -> tuple[Tensor, Tensor]:
        """Writes a chunk's keys and values, and returns those that its queries may see.

        fresh: [rows, T, 2, heads, head_dim], T <= chunk, of which the first num_valid positions are real; of the first
            rows alone where the step needs no more.
        Returns keys and values, each [rows, heads, positions seen + num_valid, head_dim]. `commit` makes them
        permanent.
        """
        buffer, first = self.layers[layer][step][:, : len(fresh)], self._first_seen()
        buffer.narrow(3, self.length, fresh.shape[1]).copy_(fresh.permute(2, 0, 3, 1, 4))
        keys, values = buffer.narrow(3, first, self.length - first + num_valid).unbind(0)
        return keys, values

    def commit(self, num_positions: int) -> None:
        self.length += num_positions

    def _resize(self, num_chunks: int, first: int = 0) -> None:
        """To so many chunks at least. first: positions before it are dropped."""
        capacity = num_chunks * self.chunk
        into = self.spare.take(self.layers, capacity) if self.layers else None
        if into is None and self._reserves:
            into = _reserved(self.layers, max(num_chunks, RESERVED_CHUNKS) * self.chunk)
        self._move(into, capacity, first)

    def _move(self, into: Memory | None, capacity: int, first: int = 0) -> None:
        """Copies what is committed, into other layers or into new ones of this capacity."""
        end, self.capacity = self.length, into.capacity if into else capacity
        self.length -= first
        self.written = max(self.length, into.written if into else 0)
        # One layer at a time: new memory peaks one layer above what is kept.
        for index, old in enumerate(self.layers):
            new = into.layers[index] if into else old.new_empty((*old.shape[:4], capacity, old.shape[5]))
            new[..., : self.length, :] = old[..., first:end, :]
            if self.poison:
                new[..., self.length :, :] = torch.nan
            self.layers[index] = new
