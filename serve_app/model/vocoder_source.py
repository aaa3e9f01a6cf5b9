"""The vocoder's excitation: mel to pitch to nine harmonics with noise, exact for any cut of the time axis.

Upstream: `cosyvoice/hifigan/f0_predictor.py` (`ConvRNNF0Predictor`) and `generator.py` (`SineGen2`,
`SourceModuleHnNSF2`; neural source-filter model, arXiv 1904.12088). The phase adds up over an utterance, so rounding
adds up too: after a minute an fp32 phase is off by a tenth of a radian. Here pitch and phase are fp64, and the phase is
wrapped.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serve_app.model.dims import VocoderDims
from serve_app.model.layers import CausalConv, Projection, frozen

_NUM_CONVS = 5
_KERNEL = 3

PITCH_CONTEXT = _NUM_CONVS * (_KERNEL // 2)
"""Frames on each side that the pitch of a frame depends on."""


def expected_tensors(dims: VocoderDims) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the pitch predictor and the source module."""
    C, num_tones = dims.f0_channels, dims.nb_harmonics + 1
    shapes: dict[str, tuple[int, ...]] = {
        "m_source.l_linear.weight": (1, num_tones),
        "m_source.l_linear.bias": (1,),
        "f0_predictor.classifier.weight": (1, C),
        "f0_predictor.classifier.bias": (1,),
    }
    for index in range(_NUM_CONVS):
        width = dims.in_channels if index == 0 else C
        shapes[f"f0_predictor.condnet.{2 * index}.weight"] = (C, width, _KERNEL)
        shapes[f"f0_predictor.condnet.{2 * index}.bias"] = (C,)
    return shapes


class PitchPredictor(nn.Module):
    """Mel to fundamental frequency. Computed in fp64, so that no cut of the mel changes the phase."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        weights = {name: tensor.double() for name, tensor in tensors.items() if name.startswith("f0_predictor.")}
        self.convs = nn.ModuleList(
            CausalConv(
                weights[f"f0_predictor.condnet.{2 * index}.weight"], weights[f"f0_predictor.condnet.{2 * index}.bias"]
            )
            for index in range(_NUM_CONVS)
        )
        self.classifier = Projection(weights["f0_predictor.classifier.weight"], weights["f0_predictor.classifier.bias"])

    def forward(self, mel: Tensor) -> Tensor:
        """mel: [B, T, mel_bins] -> fp64 [B, T], Hz; the outermost PITCH_CONTEXT frames see zeros beyond the edge."""
        x = mel.double()
        for conv in self.convs:
            assert isinstance(conv, CausalConv)
            x = F.elu(conv.valid(F.pad(x, (0, 0, _KERNEL // 2, _KERNEL // 2))))
        pitch: Tensor = self.classifier(x)[..., 0].abs()
        return pitch


class HarmonicSource(nn.Module):
    """Fundamental frequency to the excitation signal."""

    def __init__(self, dims: VocoderDims, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._dims = dims
        self._samples = dims.samples_per_frame
        weight = tensors["m_source.l_linear.weight"][0]
        self.weight = frozen(weight * dims.nsf_alpha)
        self.bias = frozen(tensors["m_source.l_linear.bias"])
        # Upstream adds equally strong noise to every tone before the linear map: in sum one noise, this much stronger.
        self.noise_gain = frozen(torch.linalg.vector_norm(weight))
        self.tones: Tensor
        self.register_buffer("tones", torch.arange(1, dims.nb_harmonics + 2, dtype=torch.float64), persistent=False)
        offsets = torch.arange(self._samples, dtype=torch.float64) + 0.5
        self.offsets: Tensor
        self.register_buffer("offsets", offsets, persistent=False)

    @property
    def num_tones(self) -> int:
        return len(self.tones)

    def increments(self, pitch: Tensor) -> Tensor:
        """pitch: fp64 [B, T], Hz -> [B, T, tones], cycles in one sample, wrapped as upstream wraps it."""
        return (pitch[..., None] * self.tones / self._dims.sample_rate_hz) % 1

    def advance(self, phase: Tensor, increments: Tensor) -> Tensor:
        """The phases at the centres of frames. phase: [B, tones], cycles, at the centre of the frame before the first.

        increments: [B, T, tones] -> [B, T, tones], in [0, 1).
        """
        return (phase[:, None] + (increments * self._samples % 1).cumsum(1)) % 1

    def forward(self, pitch: Tensor, phase: Tensor, noise: Tensor, *, at_start: bool) -> Tensor:
        """The excitation of T frames.

        pitch: fp64 [B, T], Hz; phase: fp64 [B, tones], at the centre of the frame before the first.
        noise: [B, T, samples_per_frame], unit variance. at_start: the first frame is the utterance's first.
        Returns [B, T * samples_per_frame]. The last half frame is right only at the utterance's end.
        """
        increments = self.increments(pitch)
        centres = self.advance(phase, increments)
        # Between two centres the phase is a straight line; before the first and after the last it stands still.
        starts = torch.cat((phase[:, None], centres), dim=1)
        slopes = F.pad(increments, (0, 0, 0, 1))
        if at_start:
            starts[:, 0], slopes[:, 0] = centres[:, 0], 0
        cycles = torch.addcmul(starts[:, :, None], slopes[:, :, None], self.offsets[:, None])
        cycles = cycles.flatten(1, 2)[:, self._samples // 2 : -(self._samples - self._samples // 2)]
        sines = torch.sin(cycles.frac().to(self.weight.dtype) * (2 * math.pi))
        voiced = (pitch > self._dims.nsf_voiced_threshold_hz)[..., None]
        strength = torch.where(voiced, self._dims.nsf_sigma, self._dims.nsf_alpha / 3).to(self.weight.dtype)
        tones = (sines @ self.weight).view_as(noise)
        mixed = torch.where(voiced, tones, 0) + noise * (strength * self.noise_gain)
        return torch.tanh(mixed + self.bias).flatten(1)
