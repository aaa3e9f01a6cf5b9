"""Speed is a resampled time axis, the same however the mel arrives."""

import pytest
import torch
from torch import Tensor

from serve_app.synthesis.mel_stretch import StretchState, stretch

SPEEDS = [0.25, 0.5, 0.8, 0.9999, 1.0, 1.1, 1.5, 2.0, 3.7, 4.0]


def in_chunks(mel: Tensor, speed: float, sizes: list[int]) -> Tensor:
    state, parts, start = StretchState(speed), [], 0
    for size in sizes:
        parts.append(stretch(mel[start : start + size], state, final=start + size >= len(mel)))
        start += size
    return torch.cat(parts)


@pytest.mark.parametrize("speed", SPEEDS)
def test_any_chunking_gives_what_the_whole_gives(speed: float) -> None:
    mel = torch.randn(120, 80, generator=torch.Generator().manual_seed(0))
    whole = in_chunks(mel, speed, [120])
    for sizes in ([1] * 120, [24, 50, 46], [0, 50, 0, 70], [119, 1]):
        torch.testing.assert_close(in_chunks(mel, speed, sizes), whole, rtol=0, atol=0)


@pytest.mark.parametrize("speed", SPEEDS)
def test_the_length_follows_the_speed(speed: float) -> None:
    out = in_chunks(torch.zeros(1000, 80), speed, [1000])
    assert abs(len(out) - 1000 / speed) < 1


@pytest.mark.parametrize("speed", [s for s in SPEEDS if s != 1.0])
def test_a_straight_line_stays_a_straight_line(speed: float) -> None:
    ramp = torch.arange(200, dtype=torch.float32)[:, None].repeat(1, 80)
    out = in_chunks(ramp, speed, [70, 70, 60])
    expected = (torch.arange(len(out)) * speed).clamp(max=199).to(torch.float32)
    torch.testing.assert_close(out[:, 0], expected, rtol=0, atol=1e-3)


def test_normal_speed_touches_nothing() -> None:
    mel = torch.randn(10, 80)
    assert stretch(mel, StretchState(1.0), final=False) is mel
