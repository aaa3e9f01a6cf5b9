"""Speaking speed: the mel's time axis is resampled between flow and vocoder, so that pitch and timbre stay.

Upstream does the same to a finished mel (`cosyvoice/cli/model.py`, `token2wav`: linear interpolation), and therefore
refuses speed while streaming. Here the position between two frames is carried from chunk to chunk.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(slots=True, eq=False)
class StretchState:
    """One stream between two chunks.

    speed: input frames per output frame. num_in, num_out: frames read and written so far.
    last: [1, bins], the newest input frame; None before the first.
    """

    speed: float
    num_in: int = 0
    num_out: int = 0
    last: Tensor | None = None


def stretch(mel: Tensor, state: StretchState, *, final: bool) -> Tensor:
    """The output frames that the input so far decides: mel [F, bins], F >= 0 -> [G, bins].

    Output frame j lies at input position j * speed, between the frames around it. Each chunking of the same input gives
    the same output; in the end there are ceil(frames / speed) of it.
    """
    if state.speed == 1.0:
        return mel
    known = mel if state.last is None else torch.cat((state.last, mel))
    first_known = state.num_in - (state.last is not None)
    state.num_in += len(mel)
    if len(known) == 0:
        return mel
    # A position needs the frame after it, too; at the end the last frame stands in for what would follow.
    end = state.num_in if final else state.num_in - 1
    num_total = _ceil_divide(end, state.speed)
    indices = torch.arange(state.num_out, num_total, dtype=torch.float64)
    positions = indices * state.speed - first_known
    left = positions.floor().long()
    weight = (positions - left).to(mel, non_blocking=True)[:, None]
    left = left.to(mel.device, non_blocking=True)
    right = (left + 1).clamp(max=len(known) - 1)
    state.num_out = max(state.num_out, num_total)
    state.last = known[-1:].clone()
    return torch.lerp(known[left], known[right], weight)


def _ceil_divide(frames: int, speed: float) -> int:
    """Outputs at positions below `frames`: the smallest n with n * speed >= frames."""
    count = int(frames / speed)
    while count * speed < frames:
        count += 1
    return count
