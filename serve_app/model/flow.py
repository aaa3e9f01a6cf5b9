"""Speech tokens (25 Hz) to mel (50 Hz), chunk by chunk, equal to upstream's recompute of the whole sequence.

Flow matching (CosyVoice 2, arXiv 2412.10117, section 2.3; upstream `cosyvoice/flow/flow.py`, `flow_matching.py`:
`CausalMaskedDiffWithXvec`, `CausalConditionalCFM`) under the streaming mask: a frame sees its own chunk of 25 tokens
and all earlier ones, so a chunk that has been rendered never changes, and what it leaves behind can be kept.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serve_app.model import flow_encoder, flow_estimator
from serve_app.model.chunks import ChunkInputs, Chunks, Kept
from serve_app.model.dims import FlowDims
from serve_app.model.first_step import FirstStep
from serve_app.model.flow_encoder import FlowEncoder
from serve_app.model.flow_estimator import ChunkRun, Estimator
from serve_app.model.layers import Projection, frozen
from serve_app.model.ragged_chunks import RaggedChunks

MAX_FRAMES = 15_000
"""Upstream draws its noise once, for 300 s: prompt and speech together cannot be longer."""

_ESTIMATOR_PREFIX = "decoder.estimator."


def expected_tensors(dims: FlowDims) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of flow.pt."""
    estimator = flow_estimator.expected_tensors(dims.estimator)
    return {
        "spk_embed_affine_layer.weight": (dims.mel_bins, dims.speaker_dim),
        "spk_embed_affine_layer.bias": (dims.mel_bins,),
        **flow_encoder.expected_tensors(dims),
        **{f"{_ESTIMATOR_PREFIX}{name}": shape for name, shape in estimator.items()},
    }


def draw_noise(mel_bins: int) -> Tensor:
    """[MAX_FRAMES, mel_bins], the start of every trajectory, by position from the prompt's first frame.

    It is not in the checkpoint: upstream draws [1, mel_bins, MAX_FRAMES] on the CPU right after seeding with 0.
    """
    generator = torch.Generator().manual_seed(0)
    return torch.randn((mel_bins, MAX_FRAMES), generator=generator).T.contiguous()


@dataclass(eq=False, slots=True)
class FlowState:
    """One stream between two chunks.

    speaker: [mel_bins], projected. prompt_mel: [2 P, mel_bins].
    num_tokens: tokens committed, the prompt's included.
    num_left: tokens that may still come once the stream's end is known, else None.
    """

    speaker: Tensor
    prompt_mel: Tensor
    kept: Kept
    num_tokens: int = 0
    num_left: int | None = None

    @property
    def num_bytes(self) -> int:
        return self.kept.num_bytes + self.speaker.nbytes + self.prompt_mel.nbytes

    @torch.inference_mode()
    def clone(self, *, grows: bool = True) -> "FlowState":
        """An independent copy: one voice's prefix serves many streams. What never changes is shared.

        grows: as `Kept.clone` says.
        """
        kept = self.kept.clone(grows=grows)
        return FlowState(self.speaker, self.prompt_mel, kept, self.num_tokens, self.num_left)

    def close(self) -> None:
        """Frees what the stream keeps. Idempotent."""
        self.kept.close()


class Flow(nn.Module):
    """The flow's weights, and the noise. All state is in the `FlowState` that is passed in.

    noise: [MAX_FRAMES, mel_bins].
    left_context_chunks: a chunk sees so many before it; None: all of them, which alone is exact.
    """

    def __init__(self, dims: FlowDims, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.dims = dims
        times = _euler_times(dims.num_steps)
        self._step_sizes = [end - start for start, end in itertools.pairwise(times)]
        estimator = {
            name.removeprefix(_ESTIMATOR_PREFIX): tensor
            for name, tensor in tensors.items()
            if name.startswith(_ESTIMATOR_PREFIX)
        }
        self.encoder = FlowEncoder(dims, tensors)
        # Guidance evaluates each step twice, side by side; without it the second row would count for nothing.
        self._rows = 1 if dims.cfg_rate == 0 else 2
        self.estimator = Estimator(dims.estimator, estimator, times[:-1], self._rows, dims.chunk_frames)
        self.speaker_projection = Projection(
            tensors["spk_embed_affine_layer.weight"], tensors["spk_embed_affine_layer.bias"]
        )
        self.noise = frozen(draw_noise(dims.mel_bins).to(self.speaker_projection.weight))
        self.left_context_chunks: int | None = None
        self.chunks: Chunks = RaggedChunks(self)
        self._first_step: FirstStep | None = None

    @classmethod
    @torch.no_grad()
    def from_tensors(cls, dims: FlowDims, tensors: Mapping[str, Tensor]) -> "Flow":
        """tensors: as `expected_tensors` says."""
        return cls(dims, tensors).eval()

    @torch.inference_mode()
    def open(self, speaker: Tensor, prompt_ids: Tensor, prompt_mel: Tensor, *, poison: bool = False) -> FlowState:
        """A stream behind those chunks of its prompt that do not depend on what will be said; else as `begin`."""
        state = self.begin(speaker, prompt_ids, prompt_mel, poison=poison)
        window = self.dims.chunk_tokens + self.dims.lookahead
        while state.num_tokens < self.num_prefix_tokens(len(prompt_ids)):
            self.render([state], [prompt_ids[state.num_tokens : state.num_tokens + window]])
        return state

    def num_prefix_tokens(self, num_prompt_tokens: int) -> int:
        """Tokens of the prompt's chunks that do not depend on what will be said: those whose lookahead it holds."""
        chunks = max(0, num_prompt_tokens - self.dims.lookahead) // self.dims.chunk_tokens
        return chunks * self.dims.chunk_tokens

    @torch.inference_mode()
    def begin(self, speaker: Tensor, prompt_ids: Tensor, prompt_mel: Tensor, *, poison: bool = False) -> FlowState:
        """A stream at the start of its prompt, whose chunks are rendered first, like those of the speech.

        speaker: [speaker_dim]; prompt_ids: [P], P >= 0; prompt_mel: [token_mel_ratio * P, mel_bins].
        poison: fill spare memory with NaN (tests).
        Raises ValueError when the prompt's mel does not fit its tokens.
        """
        dims, like = self.dims, self.noise
        expected = (dims.token_mel_ratio * len(prompt_ids), dims.mel_bins)
        if prompt_mel.shape != expected:
            raise ValueError(f"{len(prompt_ids)} prompt tokens need a mel of {expected}, not {tuple(prompt_mel.shape)}")
        projected = self.speaker_projection(F.normalize(speaker.to(like), dim=0))
        return FlowState(projected, prompt_mel.to(like), self.chunks.open(self.left_context_chunks, poison=poison))

    @torch.inference_mode()
    def render(self, states: Sequence[FlowState], ids: Sequence[Tensor]) -> list[Tensor]:
        """The next chunk of each of B streams, at positions of their own. Commits it.

        ids: [n] of each, the tokens from `num_tokens` on, the rest of the prompt included: first the chunk
            (`dims.chunk_tokens`), then the lookahead (`dims.lookahead`). Fewer means that the stream ends there.
        Returns the mel of each, [token_mel_ratio * min(n, chunk_tokens), mel_bins], the prompt's frames included.
        Raises ValueError, with no state changed, for a stream that has ended, has no token, or is too long.
        """
        dims = self.dims
        num_tokens = [min(len(tokens), dims.chunk_tokens) for tokens in ids]
        for state, tokens, count in zip(states, ids, num_tokens, strict=True):
            self._check(state, len(tokens), count)
        window = dims.chunk_tokens + dims.lookahead
        inputs = ChunkInputs(
            [tokens[:window] for tokens in ids],
            num_tokens,
            torch.stack([state.speaker for state in states]),
            torch.stack([self._frames(self.noise, state) for state in states]),
            torch.stack([self._frames(state.prompt_mel, state) for state in states]),
            self._unguided([state.num_tokens // dims.chunk_tokens for state in states], num_tokens),
        )
        mel = self.chunks.render([state.kept for state in states], inputs)
        for state, tokens, count in zip(states, ids, num_tokens, strict=True):
            state.num_tokens += count
            if len(tokens) < window:
                state.num_left = len(tokens) - count
        return [frames[: dims.token_mel_ratio * count] for frames, count in zip(mel, num_tokens, strict=True)]

    @property
    def is_guided(self) -> bool:
        return self._rows > 1

    @property
    def first_step(self) -> FirstStep:
        """Made when it is first asked for: only then device, precision and left context are settled."""
        if self._first_step is None or self._first_step.left_context != self.left_context_chunks:
            self._first_step = FirstStep(self.estimator, self.noise, self.left_context_chunks)
        return self._first_step

    def _unguided(self, chunks: Sequence[int], num_tokens: Sequence[int]) -> Tensor | None:
        if not self.is_guided:
            return None
        return self.first_step(chunks, [self.dims.token_mel_ratio * count for count in num_tokens])

    def _check(self, state: FlowState, num_ids: int, num_tokens: int) -> None:
        if num_tokens == 0:
            raise ValueError("a chunk needs at least one token")
        if state.num_left is not None and num_ids != state.num_left:
            raise ValueError(f"the stream ends after {state.num_left} more tokens, and now has {num_ids}")
        if self.dims.token_mel_ratio * (state.num_tokens + num_tokens) > MAX_FRAMES:
            raise ValueError(f"prompt and speech are longer than {MAX_FRAMES} frames")

    def _frames(self, frames: Tensor, state: FlowState) -> Tensor:
        """[chunk_frames, mel_bins]: those of a stream's next chunk, zeros past the end."""
        start, length = self.dims.token_mel_ratio * state.num_tokens, self.dims.chunk_frames
        part = frames[start : start + length]
        return F.pad(part, (0, 0, 0, length - len(part)))

    def solve(
        self, mu: Tensor, speakers: Tensor, noise: Tensor, prompt: Tensor, unguided: Tensor | None, run: ChunkRun
    ) -> Tensor:
        """Euler's method with classifier-free guidance.

        mu, noise, prompt, unguided: [B, T, mel_bins]; speakers: [B, mel_bins] -> [B, T, mel_bins].
        unguided: the first step's velocity without the conditions; None: it is evaluated like that of every other step.
        """
        bins, guidance = self.dims.mel_bins, self.dims.cfg_rate
        # The estimator's input: the state of the solver, then the conditions; zeros for the row without them.
        rows = mu.new_zeros((len(mu), self._rows, mu.shape[1], 4 * bins), dtype=self.estimator.dtype)
        conditioned = rows[:, 0]
        conditioned[..., bins : 2 * bins] = mu
        conditioned[..., 2 * bins : 3 * bins] = speakers[:, None]
        conditioned[..., 3 * bins :] = prompt
        x = noise
        for step, size in enumerate(self._step_sizes):
            rows[..., :bins] = x[:, None]
            if step == 0 and unguided is not None:
                guided, others = self.estimator(conditioned, run, step), [unguided]
            else:
                velocities = self.estimator(rows.flatten(0, 1), run, step)
                guided, *others = velocities.view(-1, self._rows, *x.shape[1:]).unbind(1)
            x = x.add(guided, alpha=size * (1 + guidance))
            for velocity in others:
                x.sub_(velocity, alpha=size * guidance)
        return x


def _euler_times(num_steps: int) -> list[float]:
    """num_steps + 1 times from 0 to 1, dense at the start (upstream's cosine schedule)."""
    return [1 - math.cos(math.pi / 2 * step / num_steps) for step in range(num_steps + 1)]
