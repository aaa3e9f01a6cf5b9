"""`engine: reference` gives what upstream's own code gives, and keeps streams apart."""

import copy
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from serve_app.config import SynthesisConfig
from serve_app.errors import CheckpointError, InputTooLong, InvalidRequest, Overloaded
from serve_app.messages import Float32Array, PreparedSpeech, PreparedUtterance, VoicePrompt
from serve_app.model.kv_cache import KVCache
from serve_app.model.language_model import LanguageModel
from serve_app.model.rates import SAMPLES_PER_TOKEN
from serve_app.model.toy_checkpoint import write_networks
from serve_app.synthesis.reference import ReferenceEngine, load_reference_engine
from serve_app.synthesis.scheduler import Playback
from serve_app.synthesis.stream import StreamEvent
from serve_app.synthesis.upstream import Upstream, load_upstream

OVERLAP_SAMPLES = 8 * 480
NO_IDS = np.zeros(0, dtype=np.int32)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference")
    write_networks(path, "toy")
    return path


@pytest.fixture(scope="module")
def upstream(directory: Path) -> Upstream:
    return load_upstream(directory)


def make_engine(
    upstream: Upstream, tokens_per_text_token: float | None = None, max_streams: int = 4
) -> ReferenceEngine:
    """tokens_per_text_token: fixes the length of utterances."""
    config = SynthesisConfig(max_streams=max_streams)
    if tokens_per_text_token is not None:
        ratio = tokens_per_text_token
        config = config.model_copy(update={"min_token_text_ratio": ratio, "max_token_text_ratio": ratio})
    return ReferenceEngine(upstream, config)


def make_voice(num_tokens: int, seed: int = 0) -> VoicePrompt:
    random = np.random.default_rng(seed)
    return VoicePrompt(
        key=f"voice-{seed}",
        transcript_ids=random.integers(0, 1024, 3).astype(np.int32),
        speech_ids=random.integers(0, 6561, num_tokens).astype(np.int32),
        mel=(random.normal(size=(2 * num_tokens, 80)) - 5).astype(np.float32),
        speaker=random.normal(size=192).astype(np.float32),
    )


def make_utterance(voice: VoicePrompt, num_text_tokens: int = 4, zero_shot: bool = True) -> PreparedUtterance:
    text = np.arange(7, 7 + num_text_tokens, dtype=np.int32)
    prefix = (voice.transcript_ids, voice.speech_ids) if zero_shot else (NO_IDS, NO_IDS)
    return PreparedUtterance(text, *prefix, 0, num_text_tokens)


def make_speech(voice: VoicePrompt, utterance: PreparedUtterance, seed: int = 0, speed: float = 1.0) -> PreparedSpeech:
    return PreparedSpeech("request", voice, (utterance,), seed, speed)


def open_stream(engine: ReferenceEngine, stream_id: int, voice: VoicePrompt, seed: int = 5) -> Playback:
    playback = Playback(0.0)
    engine.open(stream_id, make_speech(voice, make_utterance(voice), seed), 0, playback)
    return playback


def run(engine: ReferenceEngine) -> dict[int, list[StreamEvent]]:
    events: dict[int, list[StreamEvent]] = {}
    while engine.wait_s() is not None:
        for event in engine.step():
            events.setdefault(event.stream_id, []).append(event)
    engine.check()
    return events


def samples(events: Sequence[StreamEvent]) -> Float32Array:
    return np.concatenate([event.samples for event in events])


def lengths(events: Sequence[StreamEvent]) -> list[int]:
    return [len(event.samples) for event in events if len(event.samples)]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # upstream's autocast
@pytest.mark.parametrize("num_prompt_tokens", [0, 30])
def test_samples_are_those_of_upstreams_own_code(upstream: Upstream, num_prompt_tokens: int) -> None:
    """Chunk by chunk against `CosyVoice2Model.token2wav` with the same tokens and random state, to the last bit."""
    from cosyvoice.cli.model import CosyVoice2Model

    theirs = CosyVoice2Model(None, upstream.flow, upstream.vocoder)
    theirs.hift_cache_dict["request"] = None
    theirs.speech_window = torch.from_numpy(theirs.speech_window)  # numpy 2 warns about tensor times array
    voice = make_voice(num_prompt_tokens)
    engine = make_engine(upstream, tokens_per_text_token=28)
    open_stream(engine, 1, voice)
    chunks = 0
    while engine.wait_s() is not None:
        stream = engine._streams[1]
        tokens, offset, hop, state = list(stream.tokens), stream.offset, stream.next_hop, stream.random_state
        for event in engine.step():
            if not len(event.samples):
                continue
            chunks += 1
            given = tokens if event.finished else tokens[: offset + hop + 3]
            torch.set_rng_state(state)
            with torch.inference_mode():
                expected: Tensor = theirs.token2wav(
                    token=torch.tensor([given]),
                    prompt_token=torch.from_numpy(voice.speech_ids)[None],
                    prompt_feat=torch.from_numpy(voice.mel)[None],
                    embedding=torch.from_numpy(voice.speaker)[None],
                    token_offset=offset,
                    uuid="request",
                    stream=not event.finished,
                    finalize=event.finished,
                )
            assert np.array_equal(event.samples, expected[0].float().numpy())
    assert chunks == 3


def test_hop_grows_within_a_stream_and_starts_anew_in_the_next(upstream: Upstream) -> None:
    """Upstream's 25, 50, 100, 100 tokens; the first chunk also fills the prompt up to the grid, less the overlap."""
    engine = make_engine(upstream, tokens_per_text_token=75)  # 300 tokens
    pad = 25 - 7
    first = (25 + pad) * SAMPLES_PER_TOKEN - OVERLAP_SAMPLES
    rest = 300 - (25 + pad) - 50 - 100 - 100
    open_stream(engine, 1, make_voice(7))
    events = run(engine)[1]
    assert lengths(events) == [
        first,
        50 * SAMPLES_PER_TOKEN,
        100 * SAMPLES_PER_TOKEN,
        100 * SAMPLES_PER_TOKEN,
        rest * SAMPLES_PER_TOKEN + OVERLAP_SAMPLES,
    ]
    assert sum(event.num_speech_tokens for event in events) == 300
    assert [event.finished for event in events] == [False] * (len(events) - 1) + [True]
    assert sum(event.generated for event in events) == 2  # when the last token is there, and at the end

    open_stream(engine, 2, make_voice(7))
    sounds: list[StreamEvent] = []
    while not sounds:
        sounds = [event for event in engine.step() if len(event.samples)]
    assert lengths(sounds) == [first]


def test_scores_equal_our_language_model(upstream: Upstream, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upstream's cached decoding reads the whole context; so the reference's tokens are drawn from the right scores."""
    from serve_app.model.checkpoint import load_checkpoint

    seen: list[Tensor] = []
    model = upstream.language_model
    draw = model.sampling

    def record(scores: Tensor, decoded: list[int], unused: int) -> Tensor:
        seen.append(scores.clone())
        drawn: Tensor = draw(scores, decoded, unused)
        return drawn

    monkeypatch.setattr(model, "sampling", record)
    voice = make_voice(6)
    engine = make_engine(upstream)
    open_stream(engine, 1, voice)
    tokens: list[int] = []
    while engine.wait_s() is not None:
        before = len(seen)
        stream = engine._streams[1]
        engine.step()
        tokens = stream.tokens
        del seen[before + 1 :]  # draws that came too early are repeated from the same scores

    ours = load_checkpoint(directory)
    language_model = LanguageModel.from_tensors(ours.dims.language_model, ours.language_model)
    cache = KVCache.allocate(ours.dims.language_model, 1, 512)
    slot, utterance = cache.take(), make_utterance(voice)
    text = torch.from_numpy(np.concatenate((utterance.prefix_ids, utterance.text_ids)))
    prefix = language_model.embed_prefix(text.long(), torch.from_numpy(voice.speech_ids).long())
    scores = [language_model.prefill(prefix, cache, slot, 0)]
    for step, token in enumerate(tokens):
        at = torch.tensor([len(prefix) + step])
        scores.append(language_model.decode(torch.tensor([token]), cache, torch.tensor([slot]), at)[0])
    assert len(tokens) >= 8
    for their_scores, our_scores in zip(seen, scores, strict=False):
        assert (their_scores - our_scores.log_softmax(-1)).abs().max() < 1e-4


def test_streams_do_not_touch_each_other(upstream: Upstream) -> None:
    voices = [make_voice(20, seed=1), make_voice(31, seed=2)]
    alone = []
    for stream_id, voice in enumerate(voices):
        engine = make_engine(upstream)
        open_stream(engine, stream_id, voice, seed=stream_id)
        alone.append(samples(run(engine)[stream_id]))
    engine = make_engine(upstream)
    for stream_id, voice in enumerate(voices):
        open_stream(engine, stream_id, voice, seed=stream_id)
    together = run(engine)
    for stream_id in range(2):
        assert np.array_equal(samples(together[stream_id]), alone[stream_id])


def test_seed_decides(upstream: Upstream) -> None:
    spoken: list[Float32Array] = []
    for seed in (1, 1, 2):
        engine = make_engine(upstream)
        torch.manual_seed(len(spoken))  # the process's own random state does not
        open_stream(engine, 0, make_voice(10), seed)
        spoken.append(samples(run(engine)[0]))
    assert np.array_equal(spoken[0], spoken[1])
    assert not np.array_equal(spoken[0], spoken[2])


def test_every_draw_is_a_new_one(upstream: Upstream) -> None:
    engine = make_engine(upstream)
    open_stream(engine, 0, make_voice(10))
    states = []
    for _ in range(3):
        states.append(engine._streams[0].random_state)
        engine.step()
    assert not torch.equal(states[0], states[1])
    assert not torch.equal(states[1], states[2])


def test_delivered_audio_is_counted(upstream: Upstream) -> None:
    engine = make_engine(upstream)
    playback = open_stream(engine, 0, make_voice(10))
    spoken = samples(run(engine)[0])
    assert playback.audio_s == pytest.approx(len(spoken) / 24_000)
    assert np.abs(spoken).max() > 0.01


def test_voice_without_a_clip_speaks(upstream: Upstream) -> None:
    """An sft voice: a speaker vector alone."""
    voice = make_voice(0)
    engine = make_engine(upstream)
    engine.open(0, make_speech(voice, make_utterance(voice, zero_shot=False)), 0, Playback(0.0))
    events = run(engine)[0]
    assert len(samples(events)) == sum(event.num_speech_tokens for event in events) * SAMPLES_PER_TOKEN


def test_closing_is_idempotent_and_stops_the_work(upstream: Upstream) -> None:
    engine = make_engine(upstream)
    open_stream(engine, 0, make_voice(10))
    engine.step()
    for stream_id in (0, 0, 99):
        engine.close(stream_id)
    assert engine.wait_s() is None
    assert engine.step() == []


def test_what_does_not_fit_is_refused(upstream: Upstream) -> None:
    engine = make_engine(upstream, max_streams=1)
    voice = make_voice(10)
    with pytest.raises(InputTooLong):
        engine.open(0, make_speech(voice, make_utterance(voice, num_text_tokens=200)), 0, Playback(0.0))
    assert engine.wait_s() is None
    for stream_id in range(2):
        open_stream(engine, stream_id, voice)
    with pytest.raises(Overloaded):
        open_stream(engine, 2, voice)


def test_another_speed_is_refused(upstream: Upstream) -> None:
    """Upstream cannot change it while streaming, so the yardstick cannot either."""
    engine, voice = make_engine(upstream), make_voice(10)
    with pytest.raises(InvalidRequest):
        engine.open(0, make_speech(voice, make_utterance(voice), speed=1.5), 0, Playback(0.0))
    assert engine.wait_s() is None


def test_broken_sound_is_an_error(upstream: Upstream) -> None:
    broken = copy.copy(make_voice(10))
    broken.speaker[:] = np.nan
    engine = make_engine(upstream)
    open_stream(engine, 0, broken)
    last = run(engine)[0][-1]
    assert last.finished
    assert last.error is not None
    assert len(last.samples) == 0


def test_bad_directory_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cosyvoice2\.yaml"):
        load_reference_engine(tmp_path, SynthesisConfig())


def test_missing_package_names_the_extra(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cosyvoice.llm.llm", None)
    with pytest.raises(ImportError, match="extra `reference`"):
        load_reference_engine(directory, SynthesisConfig())
