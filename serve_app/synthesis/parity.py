"""Our networks against upstream's on the same random weights: a table of the largest differences.

    python -m serve_app.synthesis.parity --size toy
    python -m serve_app.synthesis.parity --size real      (6 GB of memory, 5 GB of disk, minutes)

Needs the extra `reference`. Everything runs on the CPU: the language model against transformers' Qwen2 in fp32, the
flow against upstream's in fp32 recomputed from the prompt's first token at every hop, the vocoder against upstream's
offline in fp64 with our noise. The last line is JSON; the exit status is 1 when a bound does not hold.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parametrize

from serve_app.messages import PreparedUtterance, VoicePrompt
from serve_app.model.checkpoint import Checkpoint, load_checkpoint
from serve_app.model.flow import Flow
from serve_app.model.kv_cache import KVCache
from serve_app.model.language_model import LanguageModel
from serve_app.model.toy_checkpoint import write_networks
from serve_app.model.vocoder import Vocoder
from serve_app.synthesis.guards import LengthRule
from serve_app.synthesis.interleave import Interleave
from serve_app.synthesis.language_stage import LanguageStage
from serve_app.synthesis.scheduler import Playback, Progress
from serve_app.synthesis.stream import SpeechStream
from serve_app.synthesis.upstream import Upstream, fed_scores, load_upstream

BOUND = 1e-4
NUM_TEXT_TOKENS = 20
PROMPT_TOKENS = {"toy": (28, 0), "real": (87, 0)}
"""28: a whole chunk of the prompt and its lookahead. `tests/model/test_flow.py` has the lengths around the borders."""


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. maximum: largest |difference|; peak: largest |value| of upstream's."""

    quantity: str
    case: str
    maximum: float
    peak: float

    @classmethod
    def of(cls, quantity: str, case: str, ours: Tensor, theirs: Tensor) -> "Row":
        if ours.shape != theirs.shape:
            raise ValueError(f"{quantity}, {case}: shape {list(ours.shape)}, upstream's is {list(theirs.shape)}")
        difference = (ours.double() - theirs.double()).abs().max()
        return cls(quantity, case, float(difference), float(theirs.abs().max()))

    @property
    def holds(self) -> bool:
        return self.maximum < BOUND  # False for NaN


def compare_language_model(checkpoint: Checkpoint, upstream: Upstream, prompt_tokens: int, tokens: Tensor) -> list[Row]:
    """Logits of prefill, of chunked prefill, and of decoding alone and in a batch. tokens: [N] generated ones."""
    dims = checkpoint.dims.language_model
    model = LanguageModel.from_tensors(dims, checkpoint.language_model)
    generator = torch.Generator().manual_seed(1)
    text = torch.randint(0, dims.text_vocab, (NUM_TEXT_TOKENS,), generator=generator)
    prompt = torch.randint(0, dims.speech_vocab, (prompt_tokens,), generator=generator)
    prefix = model.embed_prefix(text, prompt)
    theirs = upstream.language_model
    sequence = torch.cat((prefix, model.embed_speech(tokens)))
    hidden = theirs.llm.model.model(inputs_embeds=sequence[None]).last_hidden_state[0, len(prefix) - 1 :]
    expected = theirs.llm_decoder(hidden)

    cache = KVCache.allocate(dims, num_slots=3, max_positions=len(sequence))
    slots = [cache.take() for _ in range(3)]
    whole = [model.prefill(prefix, cache, slot, 0) for slot in slots]
    parts = torch.empty(0)
    for start in range(0, len(prefix), 32):
        parts = model.prefill(prefix[start : start + 32], cache, slots[1], start)
    alone, batched = [], []
    for step, token in enumerate(tokens):
        at = torch.tensor([len(prefix) + step])
        alone.append(model.decode(token[None], cache, torch.tensor(slots[:1]), at)[0])
        batched.append(model.decode(token.expand(2), cache, torch.tensor(slots[1:]), at.expand(2))[1])
    return [
        Row.of("logits", "prefill", whole[0], expected[0]),
        Row.of("logits", "prefill in chunks of 32", parts, expected[0]),
        Row.of("logits", f"decode, {len(tokens)} steps", torch.stack(alone), expected[1:]),
        Row.of("logits", f"decode in a batch, {len(tokens)} steps", torch.stack(batched), expected[1:]),
    ]


@dataclass(frozen=True, slots=True)
class _Forced:
    """Draws given tokens instead of random ones, and keeps the logits they would have been drawn from."""

    script: Sequence[int]
    logits: list[Tensor] = field(default_factory=list)
    window: int = 1

    def __call__(self, logits: Tensor, recent: Tensor, stops_allowed: Tensor, random: Tensor) -> Tensor:
        self.logits.append(logits[0])
        return torch.tensor([self.script[len(self.logits) - 1]])


def compare_fed_text(checkpoint: Checkpoint, upstream: Upstream, prompt_tokens: int, tokens: Tensor) -> Row:
    """Log-probabilities of every draw while text arrives token by token, to the end token. tokens: [N] generated."""
    dims = checkpoint.dims.language_model
    generator = torch.Generator().manual_seed(5)
    # All blocks of text that the tokens leave room for, and part of one at the end.
    first_fill = dims.speech_block - prompt_tokens % dims.speech_block
    num_blocks = max(1, -(-prompt_tokens // dims.speech_block)) + (len(tokens) - 1 - first_fill) // dims.speech_block
    num_text = dims.text_block * num_blocks + dims.text_block // 2
    text = torch.randint(0, dims.text_vocab, (num_text,), generator=generator)
    prompt = torch.randint(0, dims.speech_vocab, (prompt_tokens,), generator=generator)
    transcript, fed = text[: num_text // 4], text[num_text // 4 :]
    script = [*tokens.tolist(), dims.eos_id]
    theirs = fed_scores(upstream, fed, transcript, prompt, script)

    cache = KVCache.allocate(dims, num_slots=1, max_positions=num_text + prompt_tokens + len(tokens) + 4)
    forced = _Forced(script)
    model = LanguageModel.from_tensors(dims, checkpoint.language_model)
    stage = LanguageStage(model, cache, forced, LengthRule(0, len(tokens) + 1))
    no_ids = np.zeros(0, np.int32)
    voice = VoicePrompt("parity", no_ids, no_ids, np.zeros((0, 0), np.float32), np.zeros(0, np.float32))
    utterance = PreparedUtterance(no_ids, no_ids, no_ids, 0, 0)
    interleave = Interleave(dims.text_block, dims.speech_block, transcript.tolist(), prompt.tolist())
    stream = SpeechStream(voice, utterance, 0, 1.0, Progress(0, Playback(0.0), 0), 0, 0, interleave)
    stage.open(stream)
    arriving = iter(fed.numpy().astype(np.int32))
    while not stream.progress.generated:
        if stream.progress.waiting:
            token = next(arriving, None)
            if token is None:
                stage.end(stream)
            else:
                stage.feed(stream, np.array([token]))
        elif stream.unread is not None:
            stage.prefill(stream, 32)
        else:
            stage.decode([stream])
    ours = torch.stack(forced.logits).log_softmax(dim=-1)
    return Row.of("logits", f"prompt {prompt_tokens}, text fed while speaking, {len(script)} draws", ours, theirs)


def compare_flow(checkpoint: Checkpoint, upstream: Upstream, prompt_tokens: int, tokens: Tensor) -> Iterator[Row]:
    """The mel of every hop. tokens: [N] generated ones."""
    dims = checkpoint.dims.flow
    flow = Flow.from_tensors(dims, checkpoint.flow)
    generator = torch.Generator().manual_seed(2)
    prompt = torch.randint(0, dims.vocab, (prompt_tokens,), generator=generator)
    prompt_mel = torch.randn((dims.token_mel_ratio * prompt_tokens, dims.mel_bins), generator=generator) * 2 - 5
    speaker = torch.randn(dims.speaker_dim, generator=generator)
    ids = torch.cat((prompt, tokens))
    state = flow.open(speaker, prompt, prompt_mel)
    voiced: list[Tensor] = []
    while state.num_tokens < len(ids):
        start, window = state.num_tokens, dims.chunk_tokens + dims.lookahead
        mel = flow.render([state], [ids[start : start + window]])[0]
        voiced.append(mel[max(0, dims.token_mel_ratio * (prompt_tokens - start)) :])
        end = state.num_tokens - prompt_tokens
        if end <= 0:
            continue
        final = end == len(tokens)
        given = tokens if final else tokens[: end + dims.lookahead]
        theirs, _ = upstream.flow.inference(
            given[None],
            torch.tensor([len(given)]),
            prompt[None],
            torch.tensor([prompt_tokens]),
            prompt_mel[None],
            torch.tensor([len(prompt_mel)]),
            speaker[None],
            streaming=True,
            finalize=final or end + dims.lookahead > len(tokens),
        )
        # All frames so far, so that a chunk that was right when new and changed later would show.
        ours = torch.cat(voiced)
        hop = "final" if final else "first" if len(ours) == len(voiced[-1]) else "next"
        yield Row.of("mel", f"prompt {prompt_tokens}, {hop} hop, to token {end}", ours, theirs[0].T[: len(ours)])


def compare_vocoder(checkpoint: Checkpoint, upstream: Upstream, num_frames: int) -> list[Row]:
    """Samples, whole and streamed in hops of 32, 50, 50 ... frames."""
    dims = checkpoint.dims.vocoder
    vocoder = Vocoder.from_tensors(dims, checkpoint.vocoder)
    mel = torch.randn((num_frames, dims.in_channels), generator=torch.Generator().manual_seed(3)) * 1.3
    seed = 4
    whole = vocoder.render([vocoder.open(seed)], [mel], [True])[0]
    state, streamed = vocoder.open(seed), []
    hops = torch.split(mel, [32, *[50] * ((num_frames - 32) // 50), (num_frames - 32) % 50])
    for index, hop in enumerate(hops):
        streamed.append(vocoder.render([state], [hop], [index == len(hops) - 1])[0])

    noise = torch.randn(num_frames, dims.samples_per_frame, generator=torch.Generator().manual_seed(seed)).flatten()
    theirs = upstream.vocoder
    for layer in list(theirs.modules()):
        if parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight")  # while it is fp32, so that the weights are the same
    theirs.double()
    theirs.stft_window = theirs.stft_window.double()
    weight = theirs.m_source.l_linear.weight[0]
    # Upstream adds noise of its own to each tone and then mixes the tones; this much on each gives ours in sum.
    per_tone = noise[None, :, None].double() * weight / weight.norm()

    def ours_as_theirs(like: Tensor) -> Tensor:
        return per_tone if like.shape == per_tone.shape else torch.zeros_like(like)

    with mock.patch.object(torch, "randn_like", ours_as_theirs):
        expected = theirs.inference(speech_feat=mel.T[None].double())[0][0]
    return [
        Row.of("samples", f"whole, {num_frames} frames", whole, expected),
        Row.of("samples", f"streamed in {len(hops)} hops", torch.cat(streamed), expected),
    ]


@torch.inference_mode()
def measure(directory: Path, prompt_tokens: Sequence[int], num_tokens: int) -> Iterator[Row]:
    """Every comparison, as it is made. The first prompt length serves the language model too."""
    checkpoint, upstream = load_checkpoint(directory), load_upstream(directory)
    tokens = torch.randint(0, checkpoint.dims.flow.vocab, (num_tokens,), generator=torch.Generator().manual_seed(0))
    yield from compare_language_model(checkpoint, upstream, prompt_tokens[0], tokens)
    for length in prompt_tokens:
        yield compare_fed_text(checkpoint, upstream, length, tokens)
    for length in prompt_tokens:
        yield from compare_flow(checkpoint, upstream, length, tokens)
    yield from compare_vocoder(checkpoint, upstream, 2 * num_tokens)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("toy", "real"), default="toy", help="random weights of this size")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint directory instead")
    parser.add_argument("--tokens", type=int, default=60, help="speech tokens to generate")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    worst: dict[str, float] = {}
    holds = True
    print(f"{'':8} {'largest difference':>18} {'peak':>8}")
    with tempfile.TemporaryDirectory() as scratch:
        directory = options.checkpoint or Path(scratch)
        if options.checkpoint is None:
            write_networks(directory, options.size)
        for row in measure(directory, PROMPT_TOKENS[options.size], options.tokens):
            verdict = "" if row.holds else f"  exceeds {BOUND:g}"
            print(f"{row.quantity:8} {row.maximum:18.2e} {row.peak:8.2f}  {row.case}{verdict}", flush=True)
            # A NaN must come out as the worst.
            worst[row.quantity] = max(
                worst.get(row.quantity, 0.0), row.maximum, key=lambda value: (value != value, value)
            )
            holds = holds and row.holds
    name = str(options.checkpoint) if options.checkpoint else options.size
    print(json.dumps({"checkpoint": name, "torch": torch.__version__, "bound": BOUND, "holds": holds, **worst}))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
