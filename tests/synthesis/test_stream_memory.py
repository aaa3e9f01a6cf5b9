"""Pages of the flow: a voice's are set aside once for all its streams, and no stream lacks one it was promised."""

import pytest

from serve_app.config import SynthesisConfig
from serve_app.errors import Overloaded
from serve_app.messages import VoicePrompt
from serve_app.model.checkpoint import Checkpoint
from serve_app.model.paged_chunks import PagedChunks, page_bytes
from serve_app.synthesis.engine import StreamingEngine
from tests.synthesis.conftest import make_utterance, make_voice, open_stream, run

MAX_STREAMS, TEXT, RATIO = 24, 3, 20
MOST_TOKENS = TEXT * RATIO


def paged_engine(checkpoint: Checkpoint, left_context: int | None) -> StreamingEngine:
    config = SynthesisConfig(
        max_streams=MAX_STREAMS,
        max_positions=512,
        fixed_shapes=True,
        memory_mib=240,
        flow_cache_mib=80,
        max_token_text_ratio=RATIO,
        flow_left_context_chunks=left_context,
    )
    return StreamingEngine(checkpoint, config)


def pool_of(engine: StreamingEngine) -> PagedChunks:
    chunks = engine._render._flow.chunks
    assert isinstance(chunks, PagedChunks)
    return chunks


def open_many(engine: StreamingEngine, voice: VoicePrompt, first: int) -> int:
    """As many as are taken."""
    for index in range(MAX_STREAMS):
        utterance = make_utterance(voice, first + index, num_text_tokens=TEXT)
        try:
            open_stream(engine, first + index, voice, utterance, first + index)
        except Overloaded as refused:
            assert "memory" in str(refused)
            return index
    raise AssertionError("memory was not what limits")


@pytest.mark.parametrize("left_context", [None, 2])
def test_the_pages_of_a_known_voice_are_set_aside_once(checkpoint: Checkpoint, left_context: int | None) -> None:
    engine = paged_engine(checkpoint, left_context)
    voice = make_voice(1, num_tokens=130)
    unknown = open_many(engine, voice, 0)
    for stream_id in range(1, unknown):
        engine.close(stream_id)
    run(engine)
    engine.check()

    known = open_many(engine, voice, 100)
    assert known > unknown
    own = pool_of(engine).pool.num_pages // (MOST_TOKENS // checkpoint.dims.flow.chunk_tokens)
    assert known <= own, "more than there are pages even if the voice took none"
    # All of them speak to their end, each in company of the others.
    spoken = run(engine)
    engine.check()
    assert sorted(spoken)[-known:] == list(range(100, 100 + known))
    assert all(spoken[100 + index].events[-1].finished for index in range(known))
    assert all(event.error is None for heard in spoken.values() for event in heard.events)
    engine.prefixes.clear()
    engine.check()
    assert pool_of(engine).pool.num_free == pool_of(engine).pool.num_pages


def test_a_refused_stream_of_a_known_voice_holds_no_page(checkpoint: Checkpoint) -> None:
    engine = paged_engine(checkpoint, None)
    voice = make_voice(1, num_tokens=130)
    open_stream(engine, 0, voice, make_utterance(voice, 0, num_text_tokens=TEXT), 0)
    run(engine)
    opened = open_many(engine, voice, 1)
    for stream_id in range(1, 1 + opened):
        engine.close(stream_id)
    engine.prefixes.clear()
    engine.check()
    assert pool_of(engine).pool.num_free == pool_of(engine).pool.num_pages


def test_what_a_voice_keeps_after_its_last_stream_is_not_promised_again(checkpoint: Checkpoint) -> None:
    engine = paged_engine(checkpoint, None)
    first, second = make_voice(1, num_tokens=130), make_voice(2, num_tokens=130)
    open_stream(engine, 0, first, make_utterance(first, 0, num_text_tokens=TEXT), 0)
    run(engine)
    kept = pool_of(engine).pool.num_pages - pool_of(engine).pool.num_free
    assert kept * page_bytes(engine._render._flow) > 0
    opened = open_many(engine, second, 1)
    spoken = run(engine)
    engine.check()
    assert len(spoken) == opened
    assert all(event.error is None for heard in spoken.values() for event in heard.events)
