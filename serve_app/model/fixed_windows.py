"""The vocoder's windows in calls of fixed shape, one for each kind of window, batch bucket and number of frames.

The call looks at no data, so that it can be captured as a CUDA graph. Zeros around a window must not be heard, and
where an utterance begins or ends the convolutions must see exactly that edge. So a window that begins an utterance lies
at the left of its frame, with padding behind it that reaches nobody, since the newest frames are held back; every other
one lies at the right, with padding before it that its left context keeps away.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial

import torch
from torch import Tensor

from serve_app.model.paged_chunks import BATCH_BUCKETS, FixedCall, bucket
from serve_app.model.vocoder import Vocoder, VocoderState, Window, WindowsAlike
from serve_app.model.vocoder_source import PITCH_CONTEXT

_PARTS_OF_A_CHUNK = (0.5, 1, 1.5, 2)
"""New frames in a call, in chunks; beside them those that were held back."""


class Kind(Enum):
    FIRST = "first"
    MIDDLE = "middle"
    LAST = "last"


class FixedWindows:
    """The vocoder's own `windows` must be set to this.

    Two kinds of first window have both edges in one frame, or hear their padding: that of an utterance that ends in it,
    and one with a shortened lookahead. They are computed without padding, and so without a graph.
    """

    def __init__(self, vocoder: Vocoder, chunk_frames: int, wrap: Callable[[FixedCall], FixedCall]) -> None:
        """chunk_frames: what usually arrives at once. wrap: as for `PagedChunks`."""
        self._pitch, self._source, self._decoder = vocoder.pitch, vocoder.source, vocoder.decoder
        self._mel_bins, self._samples = vocoder.dims.in_channels, vocoder.dims.samples_per_frame
        self._left, self._held_back = vocoder.decoder.reach.left, vocoder.lookahead_frames
        self._sizes = [self._held_back + round(part * chunk_frames) for part in _PARTS_OF_A_CHUNK]
        self._unpadded = WindowsAlike(vocoder)
        self._calls = {kind: wrap(partial(self._render, kind)) for kind in Kind}

    def render(self, states: Sequence[VocoderState], windows: Sequence[Window]) -> list[tuple[Tensor, Tensor]]:
        kinds = [self._kind(window) for window in windows]
        outputs: dict[int, tuple[Tensor, Tensor]] = {}
        for kind in set(kinds):
            members = [index for index, other in enumerate(kinds) if other is kind]
            chosen = [states[index] for index in members], [windows[index] for index in members]
            rendered = self._unpadded.render(*chosen) if kind is None else self._render_padded(kind, *chosen)
            outputs |= zip(members, rendered, strict=True)
        return [outputs[index] for index in range(len(windows))]

    def rehearse(self, max_streams: int) -> None:
        """Runs every bucket once, with padding alone: what captures graphs captures them now."""
        for batch in (size for size in BATCH_BUCKETS if size <= bucket(max_streams, BATCH_BUCKETS)):
            for kind in Kind:
                for size in self._sizes:
                    self._call(kind, [], [], self._num_frames(kind, size), batch)

    def _kind(self, window: Window) -> Kind | None:
        """None for what is not padded."""
        if window.num_context:
            return Kind.LAST if window.final else Kind.MIDDLE
        is_heard = window.final or window.num_frames - window.wanted.stop < self._held_back
        return None if is_heard else Kind.FIRST

    def _num_frames(self, kind: Kind, size: int) -> int:
        """Of a window; size: without its left context."""
        return size if kind is Kind.FIRST else size + self._left

    def _render_padded(
        self, kind: Kind, states: Sequence[VocoderState], windows: Sequence[Window]
    ) -> list[tuple[Tensor, Tensor]]:
        longest = max(window.num_frames for window in windows)
        past = self._num_frames(kind, 0)
        num_frames = self._num_frames(kind, bucket(longest - past, self._sizes))
        starts = [0 if kind is Kind.FIRST else num_frames - window.num_frames for window in windows]
        samples, centres = self._call(kind, states, starts, num_frames, bucket(len(states), BATCH_BUCKETS))
        outputs = []
        for row, (state, window, start) in enumerate(zip(states, windows, starts, strict=True)):
            # What is computed begins behind the left context.
            first, end = (self._samples * (start + frame - past) for frame in (window.wanted.start, window.wanted.stop))
            phase = centres[row, start + window.num_past - 1] if window.num_past else state.phase
            outputs.append((samples[row, first:end], phase))
        return outputs

    def _call(
        self, kind: Kind, states: Sequence[VocoderState], starts: Sequence[int], num_frames: int, batch: int
    ) -> tuple[Tensor, ...]:
        """starts: where each window begins."""
        like, context = self._source.weight, 0 if kind is Kind.FIRST else PITCH_CONTEXT
        mel = like.new_zeros((batch, context + num_frames, self._mel_bins))
        noise = like.new_zeros((batch, num_frames, self._samples))
        phase = self._source.tones.new_zeros((batch, self._source.num_tones))
        first = torch.zeros(batch, dtype=torch.int64)
        for row, (state, start) in enumerate(zip(states, starts, strict=True)):
            mel[row, start : start + len(state.mel)] = state.mel
            noise[row, start : start + len(state.noise)] = state.noise
            phase[row] = state.phase
            first[row] = start
        return self._calls[kind](mel, phase, noise, first.to(like.device, non_blocking=True))

    def _render(self, kind: Kind, mel: Tensor, phase: Tensor, noise: Tensor, first: Tensor) -> tuple[Tensor, ...]:
        """The samples of all but the left context, and the phase at the centre of each frame, [B, F, tones].

        mel: [B, context + F, mel_bins]; phase: fp64 [B, tones], at the centre of the frame before `first`.
        noise: [B, F, samples_per_frame]; first: int64 [B]. Nothing here may depend on what a tensor holds.
        """
        num_frames = noise.shape[1]
        context = mel.shape[1] - num_frames
        # Before a window the phase stands still.
        is_padding = torch.arange(num_frames, device=first.device) < first[:, None]
        pitch = self._pitch(mel)[:, context:].masked_fill(is_padding, 0.0)
        excitation = self._source(pitch, phase, noise, at_start=kind is Kind.FIRST)
        end = num_frames - (self._held_back if kind is Kind.MIDDLE else 0)
        samples = self._decoder(mel[:, context:], excitation, range(self._num_frames(kind, 0), end))
        return samples, self._source.advance(phase, self._source.increments(pitch))
