"""Mel and excitation to samples: HiFTNet (arXiv 2309.09493; upstream `cosyvoice/hifigan/generator.py`, `HiFTGenerator`)
on a window of an utterance, of which each stage computes only what the wanted frames need.

Time is counted from the window's start. At every edge of the window the convolutions see zeros, as upstream's do at the
edges of the utterance; where the window ends before the utterance does, what is wrong for that reason is cut away.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serve_app.model.dims import VocoderDims
from serve_app.model.layers import frozen

_EDGE_KERNEL = 7
_POST_SLOPE = 0.01
_MAX_MAGNITUDE = 100.0
_SNAKE_EPS = 1e-9


def expected_tensors(dims: VocoderDims) -> dict[str, tuple[int, ...]]:
    """Name -> shape of everything between the excitation and the samples, weight norm folded."""
    bins, C = dims.istft_n_fft + 2, dims.base_channels
    shapes: dict[str, tuple[int, ...]] = {
        "conv_pre.weight": (C, dims.in_channels, _EDGE_KERNEL),
        "conv_pre.bias": (C,),
        "conv_post.weight": (bins, _channels(dims, len(dims.upsample_rates) - 1), _EDGE_KERNEL),
        "conv_post.bias": (bins,),
    }
    for index, (kernel, down) in enumerate(zip(dims.upsample_kernel_sizes, _down_rates(dims), strict=True)):
        width = _channels(dims, index)
        shapes |= {f"ups.{index}.weight": (2 * width, width, kernel), f"ups.{index}.bias": (width,)}
        down_kernel = 1 if down == 1 else 2 * down
        shapes |= {f"source_downs.{index}.weight": (width, bins, down_kernel), f"source_downs.{index}.bias": (width,)}
    for prefix, width, kernel, dilations in _resblocks(dims):
        for number, _ in enumerate(dilations):
            for part in ("1", "2"):
                shapes[f"{prefix}convs{part}.{number}.weight"] = (width, width, kernel)
                shapes[f"{prefix}convs{part}.{number}.bias"] = (width,)
                shapes[f"{prefix}activations{part}.{number}.alpha"] = (width,)
    return shapes


def _channels(dims: VocoderDims, stage: int) -> int:
    return int(dims.base_channels // 2 ** (stage + 1))


def _down_rates(dims: VocoderDims) -> list[int]:
    """From the excitation's spectrogram to the rate of each stage."""
    return [math.prod(dims.upsample_rates[index + 1 :]) for index in range(len(dims.upsample_rates))]


def _resblocks(dims: VocoderDims) -> list[tuple[str, int, int, tuple[int, ...]]]:
    """Prefix, channels, kernel and dilations."""
    per_stage = list(zip(dims.resblock_kernel_sizes, dims.resblock_dilation_sizes, strict=True))
    source = zip(dims.source_resblock_kernel_sizes, dims.source_resblock_dilation_sizes, strict=True)
    blocks = [(f"source_resblocks.{i}.", _channels(dims, i), k, d) for i, (k, d) in enumerate(source)]
    for stage in range(len(dims.upsample_rates)):
        for index, (kernel, dilations) in enumerate(per_stage):
            number = stage * len(per_stage) + index
            blocks.append((f"resblocks.{number}.", _channels(dims, stage), kernel, dilations))
    return blocks


@dataclass(frozen=True, slots=True)
class Reach:
    """How far beyond the wanted frames something is needed, in its own samples: `left` before, `right` behind."""

    left: int
    right: int

    def widen(self, amount: int) -> "Reach":
        return Reach(self.left + amount, self.right + amount)

    def span(self, rate: int, frames: range, length: int) -> range:
        """The samples needed for `frames`, of `length` that there are. rate: samples in a frame."""
        return range(max(0, rate * frames.start - self.left), min(length, rate * frames.stop + self.right))


class _Snake(nn.Module):
    """x + sin(a x)^2 / a (arXiv 2006.08195). x: [B, C, T]."""

    def __init__(self, alpha: Tensor) -> None:
        super().__init__()
        self.alpha = frozen(alpha[:, None].contiguous())
        self.inverse = frozen(1 / (alpha[:, None] + _SNAKE_EPS))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(x, (x * self.alpha).sin_().square_(), self.inverse)


class _ResBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each behind Snake and added to its input. x: [B, C, T]."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self._dilations = dilations
        self._half = kernel // 2
        numbers = range(len(dilations))
        self.snakes = nn.ModuleList(
            _Snake(tensors[f"{prefix}activations{part}.{number}.alpha"]) for number in numbers for part in "12"
        )
        names = [f"{prefix}convs{part}.{number}." for number in numbers for part in "12"]
        self.weights = nn.ParameterList(frozen(tensors[f"{name}weight"]) for name in names)
        self.biases = nn.ParameterList(frozen(tensors[f"{name}bias"]) for name in names)
        self.reach = sum(self._half * (dilation + 1) for dilation in dilations)

    def forward(self, x: Tensor) -> Tensor:
        layers = list(zip(self.snakes, self.weights, self.biases, strict=True))
        for number, dilation in enumerate(self._dilations):
            y = x
            for (snake, weight, bias), step in zip(layers[2 * number : 2 * number + 2], (dilation, 1), strict=True):
                y = F.conv1d(snake(y), weight, bias, padding=step * self._half, dilation=step)
            x = y.add_(x)
        return x


class _Stage(nn.Module):
    """One upsampling, the excitation added at its rate, and the mean of parallel residual blocks."""

    def __init__(self, dims: VocoderDims, tensors: Mapping[str, Tensor], index: int, output: Reach) -> None:
        """output: what is needed of this stage's result."""
        super().__init__()
        self.rate = math.prod(dims.upsample_rates[: index + 1])
        self._slope = dims.lrelu_slope
        self._stride, self._kernel = dims.upsample_rates[index], dims.upsample_kernel_sizes[index]
        self._pad = (self._kernel - self._stride) // 2
        self._down = _down_rates(dims)[index]
        # The last stage gets one more sample in front, as a spectrogram of centred frames has one more frame.
        self.shift = int(index == len(dims.upsample_rates) - 1)
        self.up_weight, self.up_bias = frozen(tensors[f"ups.{index}.weight"]), frozen(tensors[f"ups.{index}.bias"])
        self.down_weight = frozen(tensors[f"source_downs.{index}.weight"])
        self.down_bias = frozen(tensors[f"source_downs.{index}.bias"])
        blocks = _resblocks(dims)
        num_kernels = len(dims.resblock_kernel_sizes)
        main = [block for block in blocks if block[0].startswith("resblocks.")][num_kernels * index :][:num_kernels]
        prefix, _, kernel, dilations = blocks[index]
        self.source_block = _ResBlock(tensors, prefix, kernel, dilations)
        self.blocks = nn.ModuleList(
            _ResBlock(tensors, prefix, kernel, dilations) for prefix, _, kernel, dilations in main
        )

        self.output = output
        self.middle = output.widen(max(sum(k // 2 * (d + 1) for d in ds) for _, _, k, ds in main))
        self.source = self.middle.widen(self.source_block.reach)
        self.input = Reach(
            (self.middle.left + self.shift - self._pad + self._kernel - 1) // self._stride,
            (self.middle.right - 1 + self._pad) // self._stride + 1,
        )
        self.spectrogram = Reach(
            self.source.left * self._down + self._down // 2,
            (self.source.right - 1) * self._down - self._down // 2 + self.down_weight.shape[2],
        )

    def forward(self, x: Tensor, start: int, spectrogram: Tensor, num_frames: int, wanted: range) -> tuple[Tensor, int]:
        """One stage of a window.

        x: [B, 2 * C, .], from `start` on at the rate of the stage before; spectrogram: [B, n_fft + 2, .], from 0 on.
        Returns [B, C, .] and where it starts.
        """
        length = self.rate * num_frames + self.shift
        middle = self.middle.span(self.rate, wanted, length)
        y = F.conv_transpose1d(
            F.leaky_relu(x, self._slope), self.up_weight, self.up_bias, stride=self._stride, padding=self._pad
        )
        start *= self._stride
        if self.shift and start == 0:
            y = F.pad(y, (1, 0), mode="reflect")
        else:
            start += self.shift
        y = y[..., middle.start - start : middle.stop - start] + self._excite(spectrogram, middle, wanted, length)
        total = self.blocks[0](y)
        for block in self.blocks[1:]:
            total += block(y)
        total /= len(self.blocks)
        output = self.output.span(self.rate, wanted, length)
        return total[..., output.start - middle.start : output.stop - middle.start], output.start

    def _excite(self, spectrogram: Tensor, middle: range, wanted: range, length: int) -> Tensor:
        """-> [B, C, len(middle)]."""
        source = self.source.span(self.rate, wanted, length)
        first = source.start * self._down - self._down // 2
        last = (source.stop - 1) * self._down - self._down // 2 + self.down_weight.shape[2]
        inside = spectrogram[..., max(0, first) : last]
        padded = F.pad(inside, (max(0, -first), max(0, last - spectrogram.shape[2])))
        y = self.source_block(F.conv1d(padded, self.down_weight, self.down_bias, stride=self._down))
        result: Tensor = y[..., middle.start - source.start : middle.stop - source.start]
        return result


class _Transform(nn.Module):
    """Short-time Fourier transform of centred frames and its inverse, as convolutions with a windowed basis.

    At 16 samples a frame that is cheaper than an FFT, and unlike `torch.istft` it never waits for a GPU.
    """

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self._n_fft, self._hop = n_fft, hop
        bins = n_fft // 2 + 1
        angles = torch.outer(torch.arange(bins), torch.arange(n_fft)).double() * (2 * math.pi / n_fft)
        basis = torch.cat((angles.cos(), -angles.sin()))[:, None]
        # Each bin but the first and the last stands for its mirror image too.
        mirrored = torch.full((bins,), 2.0, dtype=torch.float64)
        mirrored[0] = mirrored[-1] = 1.0
        window = torch.hann_window(n_fft, dtype=torch.float64)
        self.analysis, self.synthesis, self.envelope = (
            frozen(tensor.float())
            for tensor in (
                basis * window,
                basis * window * mirrored.repeat(2)[:, None, None] / n_fft,
                window[None, None] ** 2,
            )
        )

    def forward(self, samples: Tensor) -> Tensor:
        """[B, S] -> [B, n_fft + 2, S / hop + 1]: real parts, then imaginary parts."""
        half = self._n_fft // 2
        padded = F.pad(samples[:, None], (half, half), mode="reflect")
        return F.conv1d(padded, self.analysis, stride=self._hop)

    def inverse(self, spectrogram: Tensor) -> Tensor:
        """[B, n_fft + 2, T] -> [B, (T - 1) * hop]."""
        half = self._n_fft // 2
        overlapped = F.conv_transpose1d(spectrogram, self.synthesis, stride=self._hop)
        ones = spectrogram.new_ones((1, 1, spectrogram.shape[2]))
        weight = F.conv_transpose1d(ones, self.envelope, stride=self._hop)
        return overlapped[:, 0, half:-half] / weight[:, 0, half:-half]


class Decoder(nn.Module):
    """The convolutions and the inverse transform.

    reach: frames beyond the wanted ones that can change a sample, of mel or excitation.
    """

    def __init__(self, dims: VocoderDims, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._dims = dims
        self.transform = _Transform(dims.istft_n_fft, dims.istft_hop_len)
        self.pre_weight, self.pre_bias = frozen(tensors["conv_pre.weight"]), frozen(tensors["conv_pre.bias"])
        self.post_weight, self.post_bias = frozen(tensors["conv_post.weight"]), frozen(tensors["conv_post.bias"])
        overlap = math.ceil(dims.istft_n_fft / 2 / dims.istft_hop_len)
        reach = Reach(overlap, overlap + 1).widen(_EDGE_KERNEL // 2)
        stages: list[_Stage] = []
        for index in reversed(range(len(dims.upsample_rates))):
            stages.insert(0, _Stage(dims, tensors, index, reach))
            reach = stages[0].input
        self.stages = nn.ModuleList(stages)
        self._mel = reach.widen(_EDGE_KERNEL // 2)
        hop, half, samples = dims.istft_hop_len, dims.istft_n_fft // 2, dims.samples_per_frame
        left = max(stage.spectrogram.left for stage in stages) * hop + half
        right = max(stage.spectrogram.right for stage in stages) * hop + half
        self.reach = Reach(
            max(self._mel.left, math.ceil(left / samples)), max(self._mel.right, math.ceil(right / samples))
        )

    def forward(self, mel: Tensor, excitation: Tensor, wanted: range) -> Tensor:
        """mel: [B, T, in_channels]; excitation: [B, T * samples_per_frame]; wanted: of the T frames.

        Returns [B, len(wanted) * samples_per_frame].
        """
        dims, num_frames = self._dims, mel.shape[1]
        spectrogram = self.transform(excitation)
        needed = self._mel.span(1, wanted, num_frames)
        start = needed.start
        mel = mel[:, start : needed.stop].transpose(1, 2)
        x = F.conv1d(mel, self.pre_weight, self.pre_bias, padding=_EDGE_KERNEL // 2)
        for stage in self.stages:
            x, start = stage(x, start, spectrogram, num_frames, wanted)
        x = F.conv1d(F.leaky_relu(x, _POST_SLOPE), self.post_weight, self.post_bias, padding=_EDGE_KERNEL // 2)
        log_magnitude, angle = x.chunk(2, dim=1)
        magnitude = log_magnitude.exp().clamp_(max=_MAX_MAGNITUDE)
        phase = angle.sin()
        samples = self.transform.inverse(torch.cat((magnitude * phase.cos(), magnitude * phase.sin()), dim=1))
        offset, count = (
            dims.samples_per_frame * wanted.start - dims.istft_hop_len * start,
            dims.samples_per_frame * len(wanted),
        )
        return samples[:, offset : offset + count].clamp(-dims.audio_limit, dims.audio_limit)
