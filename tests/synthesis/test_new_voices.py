"""An unknown voice is taken in chunk by chunk between other work: the same speech, and nobody runs dry meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from serve_app.config import SynthesisConfig
from serve_app.messages import SAMPLE_RATE_HZ, PreparedUtterance, VoicePrompt
from serve_app.model.checkpoint import Checkpoint
from serve_app.model.chunks import ChunkInputs, Chunks, Kept
from serve_app.model.flow import Flow
from serve_app.synthesis.engine import StreamingEngine
from serve_app.synthesis.render_stage import FlowPrefixCache
from serve_app.synthesis.scheduler import Playback
from tests.synthesis.conftest import NO_IDS, make_utterance, make_voice, open_stream, run

CHUNK_COST_S = 0.1


@dataclass
class CostlyChunks:
    """Chunks of which each takes virtual time."""

    inner: Chunks
    now_s: float = 0.0
    num_calls: int = 0

    def open(self, left_context: int | None, *, poison: bool) -> Kept:
        return self.inner.open(left_context, poison=poison)

    def trim(self) -> None:
        self.inner.trim()

    def render(self, kept: Sequence[Kept], inputs: ChunkInputs) -> Tensor:
        self.now_s += CHUNK_COST_S * len(kept)
        self.num_calls += 1
        return self.inner.render(kept, inputs)


def spoken_by(voice: VoicePrompt, num_text_tokens: int) -> PreparedUtterance:
    """Without the clip in the language model's prompt, so that a long one fits."""
    return PreparedUtterance(make_utterance(voice, 1, num_text_tokens).text_ids, NO_IDS, NO_IDS, 0, num_text_tokens)


def costly(checkpoint: Checkpoint, config: SynthesisConfig) -> tuple[StreamingEngine, CostlyChunks]:
    """An engine whose time is spent on the flow's chunks alone."""
    engine = StreamingEngine(checkpoint, config, clock=lambda: chunks.now_s)
    flow = engine._render._flow
    chunks = CostlyChunks(flow.chunks)
    flow.chunks = chunks
    return engine, chunks


def test_nobody_runs_dry_while_a_long_clip_of_a_new_voice_is_taken_in(checkpoint: Checkpoint) -> None:
    config = SynthesisConfig(
        max_streams=2, max_positions=1024, max_lead_s=0.6, min_token_text_ratio=10, max_token_text_ratio=10
    )
    engine, chunks = costly(checkpoint, config)
    known, new = make_voice(1, 63), make_voice(2, 613)
    listener = Playback(0.0)
    open_stream(engine, 0, known, spoken_by(known, 30), 1)
    engine._streams[0].progress.playback = listener
    while listener.audio_s < 2:
        engine.step()
        wait_s = engine.wait_s()
        assert wait_s is not None
        chunks.now_s += wait_s
    in_hand_s, calls_before = listener.dry_at_s() - chunks.now_s, chunks.num_calls
    open_stream(engine, 1, new, spoken_by(new, 2), 2)
    newcomer = engine._streams[1]
    began_s, dry_s, latest_s = chunks.now_s, listener.dry_at_s(), -1.0
    while newcomer.progress.playback.started_at_s is None:
        for event in engine.step():
            if event.stream_id == 0 and len(event.samples):
                latest_s = max(latest_s, chunks.now_s - dry_s)
                dry_s += len(event.samples) / SAMPLE_RATE_HZ
    took_s = chunks.now_s - began_s
    assert chunks.num_calls - calls_before > 24, "24 chunks of the clip, and those of the speech"
    assert took_s > in_hand_s + 0.5, "in one step it would have left the listener without sound"
    assert -1 < latest_s <= 0, "sound came, and always before the listener had run dry"


@torch.inference_mode()
@pytest.mark.parametrize("num_tokens", [0, 27, 28, 53, 110])
def test_a_prefix_taken_in_by_chunks_is_that_of_one_call(checkpoint: Checkpoint, num_tokens: int) -> None:
    flow = Flow.from_tensors(checkpoint.dims.flow, checkpoint.flow)
    voice = make_voice(5, num_tokens)
    cache = FlowPrefixCache(flow, 2**30, first_hop_tokens=12)
    state, ids = cache.open(voice)
    speaker, mel = torch.from_numpy(voice.speaker), torch.from_numpy(voice.mel)[2 * (num_tokens - len(ids)) :]
    whole = flow.open(speaker, ids, mel)
    window = flow.dims.chunk_tokens + flow.dims.lookahead
    while state.num_tokens < flow.num_prefix_tokens(len(ids)):
        assert not list(cache.states), "not before it is complete"
        flow.render([state], [ids[state.num_tokens : state.num_tokens + window]])
    cache.keep(voice, state)
    again, _ = cache.open(voice)
    assert again.num_tokens == whole.num_tokens == max(0, len(ids) - 3) // 25 * 25
    rest = torch.cat((ids, torch.arange(60)))[whole.num_tokens :][:window]
    (expected,) = flow.render([whole], [rest])
    for other in (state, again):
        (mel,) = flow.render([other], [rest])
        np.testing.assert_array_equal(mel.numpy(), expected.numpy())


def test_streams_of_one_new_voice_share_its_prefix(checkpoint: Checkpoint) -> None:
    engine, chunks = costly(checkpoint, SynthesisConfig(max_streams=4, max_positions=1024, prefill_chunk=1000))
    voice = make_voice(3, 213)
    for stream_id in range(4):
        open_stream(engine, stream_id, voice, spoken_by(voice, 1), stream_id)
    while not list(engine.prefixes.states):
        engine.step()
    assert chunks.num_calls == 8, "of the first alone"
    run(engine)
    assert (engine.prefixes.hits, engine.prefixes.misses) == (3, 1)
    engine.check()


def test_a_stream_that_is_closed_while_its_voice_is_taken_in_leaves_nothing(checkpoint: Checkpoint) -> None:
    config = SynthesisConfig(max_streams=2, max_positions=512, fixed_shapes=True, memory_mib=256, flow_cache_mib=64)
    engine = StreamingEngine(checkpoint, config)
    voice = make_voice(4, 163)
    open_stream(engine, 0, voice, spoken_by(voice, 3), 1)
    for _ in range(3):
        engine.step()
    stream = engine._streams[0]
    assert stream.flow is not None and 0 < stream.flow.num_tokens < 100 and not stream.tokens[1:]
    engine.close(0)
    engine.check()
    assert not list(engine.prefixes.states)
    open_stream(engine, 1, voice, spoken_by(voice, 3), 1)
    assert run(engine)[1].events[-1].finished and list(engine.prefixes.states)
    engine.check()
