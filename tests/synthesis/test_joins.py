"""What leaves the engine in chunks is what upstream's flow and one vocoder run make of the whole utterance."""

from pathlib import Path

import numpy as np
import pytest
import torch

from serve_app.config import SynthesisConfig
from serve_app.messages import SAMPLE_RATE_HZ, Float32Array
from serve_app.model.checkpoint import Checkpoint
from serve_app.model.flow import Flow
from serve_app.model.vocoder import Vocoder
from serve_app.synthesis.engine import StreamingEngine
from serve_app.synthesis.render_stage import cut_tokens
from serve_app.synthesis.stream import SpeechStream
from serve_app.synthesis.upstream import Upstream, load_upstream
from tests.synthesis.conftest import make_utterance, make_voice, open_stream, run

TOLERANCE = 1e-4
CONFIG = SynthesisConfig(max_streams=2, max_positions=1024, min_token_text_ratio=9, max_token_text_ratio=9)


@pytest.fixture(scope="module")
def upstream(toy_checkpoint: Path) -> Upstream:
    return load_upstream(toy_checkpoint)


@torch.inference_mode()
def spoken_whole(
    upstream: Upstream, checkpoint: Checkpoint, stream: SpeechStream, first_hop_tokens: int
) -> Float32Array:
    """Prompt and all tokens through the flow, whose mel must be upstream's of one call; then one run of the vocoder.

    The vocoder gets our mel of the two, since it adds up pitch over the whole utterance, and float noise with it: the
    mels differ by 5e-6, their pitches by 2e-4 Hz, after 4 s the phases of the ninth harmonic by 1.4e-3 cycles, and so
    the samples by 1e-3. With one pitch for both mels the samples differ by 3e-7.
    """
    voice, dims = stream.voice, checkpoint.dims
    cut = cut_tokens(len(voice.speech_ids), dims.flow.chunk_tokens, first_hop_tokens)
    prompt = torch.from_numpy(voice.speech_ids[cut:].astype(np.int64))
    prompt_mel = torch.from_numpy(voice.mel[dims.flow.token_mel_ratio * cut :])
    theirs, _ = upstream.flow.inference(
        token=torch.tensor([stream.tokens]),
        token_len=torch.tensor([len(stream.tokens)]),
        prompt_token=prompt[None],
        prompt_token_len=torch.tensor([len(prompt)]),
        prompt_feat=prompt_mel[None],
        prompt_feat_len=torch.tensor([len(prompt_mel)]),
        embedding=torch.from_numpy(voice.speaker)[None],
        streaming=True,
        finalize=True,
    )
    flow = Flow.from_tensors(dims.flow, checkpoint.flow)
    state = flow.begin(torch.from_numpy(voice.speaker), prompt, prompt_mel)
    ids = torch.cat((prompt, torch.tensor(stream.tokens)))
    chunk, window = dims.flow.chunk_tokens, dims.flow.chunk_tokens + dims.flow.lookahead
    parts = [flow.render([state], [ids[start : start + window]])[0] for start in range(0, len(ids), chunk)]
    mel = torch.cat(parts)[dims.flow.token_mel_ratio * len(prompt) :]
    np.testing.assert_allclose(mel.numpy(), theirs[0].T.numpy(), atol=TOLERANCE)
    vocoder = Vocoder.from_tensors(dims.vocoder, checkpoint.vocoder)
    (samples,) = vocoder.render([vocoder.open(stream.seed)], [mel], [True])
    return np.asarray(samples.numpy(), np.float32)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # upstream's autocast
@pytest.mark.parametrize(
    ("num_prompt", "num_text"),
    [(87, 12), (45, 10), (63, 1)],
    ids=["3.5 s clip", "short clip, not cut", "a single hop"],
)
def test_streamed_is_whole_at_every_edge_and_at_both_ends(
    upstream: Upstream, checkpoint: Checkpoint, num_prompt: int, num_text: int
) -> None:
    engine = StreamingEngine(checkpoint, CONFIG)
    voice = make_voice(num_prompt, num_prompt)
    open_stream(engine, 0, voice, make_utterance(voice, 3, num_text), 3)
    stream = engine._streams[0]
    spoken = run(engine)[0]
    assert len(stream.tokens) == 9 * num_text
    whole = spoken_whole(upstream, checkpoint, stream, engine.prefixes.first_hop_tokens)
    assert len(spoken.samples) == len(whole)
    deviation = np.abs(spoken.samples - whole)
    millisecond = SAMPLE_RATE_HZ // 1000
    assert deviation[: 20 * millisecond].max() <= TOLERANCE, "the first 20 ms"
    assert deviation[-40 * millisecond :].max() <= TOLERANCE, "the last 40 ms"
    edges = np.cumsum([len(chunk) for chunk in spoken.chunks])[:-1]
    assert len(edges) >= (9 * num_text) // 25 - 1
    for edge in edges:
        near = slice(max(0, int(edge) - 20 * millisecond), int(edge) + 20 * millisecond)
        assert deviation[near].max() <= TOLERANCE, f"at the edge {edge / SAMPLE_RATE_HZ:.2f} s"
    assert deviation.max() <= TOLERANCE
    assert np.abs(whole).max() > 100 * TOLERANCE, "there is something to deviate from"
