"""Mel (50 Hz) to samples (24 kHz), piece by piece, equal to upstream's vocoder on the whole utterance (HiFT).

Of the past a stream keeps a few frames of mel, the noise of these frames, and the phase of each harmonic, the only
thing that reaches back without limit. It holds back the newest frames until what follows can no longer change them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor, nn

from serve_app.model import vocoder_decoder, vocoder_source
from serve_app.model.dims import VocoderDims
from serve_app.model.vocoder_decoder import Decoder
from serve_app.model.vocoder_source import PITCH_CONTEXT, HarmonicSource, PitchPredictor


def expected_tensors(dims: VocoderDims) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of hift.pt, without the prefix `generator.` and with weight norm folded."""
    return {**vocoder_source.expected_tensors(dims), **vocoder_decoder.expected_tensors(dims)}


@dataclass(eq=False, slots=True)
class VocoderState:
    """One stream between two pieces.

    generator: draws the noise, frame by frame.
    mel: [F, mel_bins], the newest frames, from the left context of the next output's left context on.
    noise: [N, samples_per_frame], from frame `window_start` on.
    phase: fp64 [tones], cycles, at the centre of the frame before `window_start`.
    first_lookahead_frames: held back at the first output.
    num_frames: received. num_emitted: of them turned into samples.
    """

    generator: torch.Generator
    mel: Tensor
    noise: Tensor
    phase: Tensor
    first_lookahead_frames: int
    num_frames: int = 0
    num_emitted: int = 0
    window_start: int = 0
    ended: bool = False

    @property
    def num_bytes(self) -> int:
        return self.mel.nbytes + self.noise.nbytes + self.phase.nbytes


@dataclass(frozen=True, slots=True)
class Window:
    """What one stream renders now, all in frames.

    num_context: frames of mel before the window, for the pitch; 0 only at the start of the utterance.
    num_past: from the window's start, those that are not needed again.
    final: the utterance ends where the window does.
    """

    num_context: int
    num_frames: int
    wanted: range
    num_past: int
    final: bool

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self.num_context, self.num_frames, self.wanted.start, self.wanted.stop)


class Windows(Protocol):
    """How the windows of a batch are computed."""

    def render(self, states: Sequence[VocoderState], windows: Sequence[Window]) -> list[tuple[Tensor, Tensor]]:
        """Of each stream the wanted samples, [S], and the phase, fp64 [tones], at the last frame that is past.

        Changes no state.
        """
        ...


class Vocoder(nn.Module):
    """The vocoder's weights. All state is in the `VocoderState` that is passed in.

    Move it with `.to(device)` only: the pitch predictor stays fp64.
    """

    def __init__(self, dims: VocoderDims, tensors: Mapping[str, Tensor], lookahead_frames: int | None) -> None:
        super().__init__()
        self.dims = dims
        self.pitch = PitchPredictor(tensors)
        self.source = HarmonicSource(dims, tensors)
        self.decoder = Decoder(dims, tensors)
        # The decoder's reach, and one frame because the phase is interpolated. The pitch reaches five frames further,
        # which changes samples by less than 2e-6 (random weights of gain 0.85; 2e-4 where the samples clip, gain 1).
        exact = self.decoder.reach.right + 1
        self.lookahead_frames = exact if lookahead_frames is None else lookahead_frames
        self.windows: Windows = WindowsAlike(self)

    @classmethod
    @torch.no_grad()
    def from_tensors(
        cls, dims: VocoderDims, tensors: Mapping[str, Tensor], *, lookahead_frames: int | None = None
    ) -> "Vocoder":
        """tensors: as `expected_tensors` says.

        lookahead_frames: held back; by default what makes a stream equal to the whole (16 for CosyVoice2).
        """
        return cls(dims, tensors, lookahead_frames).eval()

    def open(self, seed: int, *, first_lookahead_frames: int | None = None) -> VocoderState:
        """A stream whose noise depends on `seed` alone.

        first_lookahead_frames: hold back only so many frames at the first output, for an earlier first sound whose end
            is not exact. By how much depends on the weights: measure it before use.
        """
        like = self.source.weight
        return VocoderState(
            generator=torch.Generator().manual_seed(seed),
            mel=like.new_empty((0, self.dims.in_channels)),
            noise=like.new_empty((0, self.dims.samples_per_frame)),
            phase=torch.zeros(self.source.num_tones, dtype=torch.float64, device=like.device),
            first_lookahead_frames=self.lookahead_frames if first_lookahead_frames is None else first_lookahead_frames,
        )

    @torch.inference_mode()
    def render(self, states: Sequence[VocoderState], mels: Sequence[Tensor], final: Sequence[bool]) -> list[Tensor]:
        """The next samples of each of B streams.

        mels: [F, mel_bins] of each, F >= 0; final: whether these are its last frames.
        Returns [S] of each, float32, S >= 0, a multiple of samples_per_frame. Raises ValueError for a stream that has
        ended.
        """
        if any(state.ended for state in states):
            raise ValueError("a stream that has ended gets no more frames")
        windows = [self._receive(*arrival) for arrival in zip(states, mels, final, strict=True)]
        outputs = [self.source.weight.new_empty(0)] * len(states)
        busy = [index for index, window in enumerate(windows) if len(window.wanted)]
        rendered = self.windows.render([states[index] for index in busy], [windows[index] for index in busy])
        for index, (samples, phase) in zip(busy, rendered, strict=True):
            outputs[index] = samples
            self._move_on(states[index], windows[index], phase)
        return outputs

    def _receive(self, state: VocoderState, mel: Tensor, final: bool) -> Window:
        """Appends the frames and says what can be rendered."""
        state.mel = torch.cat((state.mel, mel.to(state.mel)))
        state.num_frames += len(mel)
        state.ended = final
        held_back = self.lookahead_frames if state.num_emitted else state.first_lookahead_frames
        end = max(state.num_emitted, state.num_frames - (0 if final else held_back))
        num_drawn = state.window_start + len(state.noise)
        shape = (state.num_frames - num_drawn, self.dims.samples_per_frame)
        # Frames of 480 samples are whole blocks of the generator, so that the cut into calls does not change the noise.
        # Pinned: the host need not wait for what a GPU is still at, as it may for so much other memory.
        fresh = torch.randn(shape, generator=state.generator, pin_memory=state.noise.is_cuda)
        state.noise = torch.cat((state.noise, fresh.to(state.noise, non_blocking=True)))
        num_past = max(0, end - state.window_start - self.decoder.reach.left)
        return Window(
            num_context=min(PITCH_CONTEXT, state.window_start),
            num_frames=state.num_frames - state.window_start,
            wanted=range(state.num_emitted - state.window_start, end - state.window_start),
            # A window is the utterance's first, or has all of the pitch's context before it.
            num_past=num_past if state.window_start + num_past >= PITCH_CONTEXT else 0,
            final=final,
        )

    def _move_on(self, state: VocoderState, window: Window, phase: Tensor) -> None:
        state.num_emitted = state.window_start + window.wanted.stop
        state.window_start += window.num_past
        state.phase = phase
        state.noise = state.noise[window.num_past :].clone()
        num_kept = state.num_frames - state.window_start + min(PITCH_CONTEXT, state.window_start)
        state.mel = state.mel[len(state.mel) - num_kept :].clone()


class WindowsAlike:
    """Windows of one shape run as one batch, nothing is padded: what a CPU does best."""

    def __init__(self, vocoder: Vocoder) -> None:
        self._pitch, self._source, self._decoder = vocoder.pitch, vocoder.source, vocoder.decoder

    def render(self, states: Sequence[VocoderState], windows: Sequence[Window]) -> list[tuple[Tensor, Tensor]]:
        outputs: dict[int, tuple[Tensor, Tensor]] = {}
        order = sorted(range(len(windows)), key=lambda index: windows[index].shape)
        for _, group in groupby(order, key=lambda index: windows[index].shape):
            members = list(group)
            samples, phases = self._render_alike([states[index] for index in members], windows[members[0]])
            outputs |= zip(members, zip(samples, phases, strict=True), strict=True)
        return [outputs[index] for index in range(len(windows))]

    def _render_alike(self, states: Sequence[VocoderState], window: Window) -> tuple[Tensor, Tensor]:
        """-> [B, S], and the phases [B, tones]."""
        mel = torch.stack([state.mel for state in states])
        phase = torch.stack([state.phase for state in states])
        noise = torch.stack([state.noise for state in states])
        pitch = self._pitch(mel)[:, window.num_context :]
        excitation = self._source(pitch, phase, noise, at_start=window.num_context == 0)
        samples: Tensor = self._decoder(mel[:, window.num_context :], excitation, window.wanted)
        if window.num_past:
            phase = self._source.advance(phase, self._source.increments(pitch[:, : window.num_past]))[:, -1]
        return samples, phase
