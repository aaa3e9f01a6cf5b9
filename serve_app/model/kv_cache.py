"""Keys and values of the language model's streams, in slots that are allocated once."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from serve_app.model.dims import LanguageModelDims

SPAN_STEP = 128
"""A decode reads this many positions, or a multiple, so that few shapes occur (they can be captured as CUDA graphs)."""


@dataclass(eq=False)
class KVCache:
    """One slot for each stream; a free slot belongs to nobody.

    keys, values: [layers, slots, kv_heads, max_positions, head_dim].
    poison: give slots back filled with NaN, so that a read of a free one fails loudly (tests).
    """

    keys: Tensor
    values: Tensor
    poison: bool = False
    _free: list[int] = field(init=False)

    def __post_init__(self) -> None:
        if self.keys.ndim != 5 or self.keys.shape != self.values.shape:
            raise ValueError(
                f"keys {tuple(self.keys.shape)} and values {tuple(self.values.shape)} must be 5-D and equal in shape"
            )
        self._free = list(reversed(range(self.num_slots)))
        if self.poison:
            self.keys.fill_(torch.nan)
            self.values.fill_(torch.nan)

    @classmethod
    def allocate(
        cls,
        dims: LanguageModelDims,
        num_slots: int,
        max_positions: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        poison: bool = False,
    ) -> "KVCache":
        shape = (dims.layers, num_slots, dims.kv_heads, max_positions, dims.head_dim)
        return cls(
            torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device), poison
        )

    @property
    def num_slots(self) -> int:
        return self.keys.shape[1]

    @property
    def max_positions(self) -> int:
        return self.keys.shape[3]

    @property
    def num_free(self) -> int:
        return len(self._free)

    def take(self) -> int:
        """A free slot, all zeros.

        Raises IndexError when none is free.
        """
        if not self._free:
            raise IndexError(f"all {self.num_slots} slots of the key/value cache are taken")
        slot = self._free.pop()
        if self.poison:
            self._fill(slot, 0.0)
        return slot

    def give_back(self, slot: int) -> None:
        """Frees a taken slot.

        Raises ValueError when it is not taken.
        """
        if not 0 <= slot < self.num_slots or slot in self._free:
            raise ValueError(f"slot {slot} is not taken")
        # Attention reads whole spans and masks what is not written yet; a NaN left there would come through. Cleared
        # here and not when it is taken: nobody waits for the end of a stream.
        self._fill(slot, torch.nan if self.poison else 0.0)
        self._free.append(slot)

    def _fill(self, slot: int, value: float) -> None:
        self.keys[:, slot].fill_(value)
        self.values[:, slot].fill_(value)

    def span(self, num_positions: int) -> int:
        """How many positions to read for a stream of `num_positions`: the next step, at most all of them.

        Raises ValueError when the slot does not hold so many.
        """
        if num_positions > self.max_positions:
            raise ValueError(f"{num_positions} positions do not fit a slot of {self.max_positions}")
        return min(-(-num_positions // SPAN_STEP) * SPAN_STEP, self.max_positions)
