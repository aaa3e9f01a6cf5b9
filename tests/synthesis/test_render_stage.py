"""How a prompt is cut for an early first sound, and what is kept of it."""

import pytest

from serve_app.model.checkpoint import Checkpoint
from serve_app.model.flow import Flow
from serve_app.model.ragged_chunks import RaggedChunks
from serve_app.synthesis.render_stage import MIN_PROMPT_TOKENS, FlowPrefixCache, cut_tokens
from tests.synthesis.conftest import make_voice


@pytest.mark.parametrize("first_hop", [1, 8, 12, 24, 25])
@pytest.mark.parametrize("num_tokens", [*range(74, 130), 750])
def test_a_cut_prompt_ends_the_first_hop_before_a_chunk_border(num_tokens: int, first_hop: int) -> None:
    cut = cut_tokens(num_tokens, 25, first_hop)
    assert 0 <= cut < 25
    assert (num_tokens - cut + first_hop) % 25 == 0


@pytest.mark.parametrize("num_tokens", range(MIN_PROMPT_TOKENS))
def test_a_short_prompt_is_kept_whole(num_tokens: int) -> None:
    assert cut_tokens(num_tokens, 25, 8) == 0


def test_forgetting_all_voices_leaves_no_memory_behind(checkpoint: Checkpoint) -> None:
    flow = Flow.from_tensors(checkpoint.dims.flow, checkpoint.flow)
    cache, voice = FlowPrefixCache(flow, 2**30, first_hop_tokens=12), make_voice(1, 110)
    state, ids = cache.open(voice)
    window = flow.dims.chunk_tokens + flow.dims.lookahead
    while state.num_tokens < flow.num_prefix_tokens(len(ids)):
        flow.render([state], [ids[state.num_tokens : state.num_tokens + window]])
    cache.keep(voice, state)
    state.close()
    assert isinstance(flow.chunks, RaggedChunks)
    assert cache.num_bytes > 0 and flow.chunks.spare.num_bytes > 0
    cache.clear()
    assert cache.num_bytes == 0 and flow.chunks.spare.num_bytes == 0
