"""Decode with the host one step behind: the tokens of the plain way, and nothing for whom it no longer is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from serve_app.config import SynthesisConfig
from serve_app.messages import PreparedSpeech
from serve_app.model.checkpoint import Checkpoint
from serve_app.model.kv_cache import KVCache
from serve_app.model.language_model import LanguageModel
from serve_app.synthesis.cuda_graphs import FixedCall, Graphs
from serve_app.synthesis.device_figures import step_figures
from serve_app.synthesis.engine import StreamingEngine
from serve_app.synthesis.fixed_decode import FixedDecode, Turn
from serve_app.synthesis.made_up import BenchSettings, made_up_voice
from serve_app.synthesis.sampling import Sampler
from serve_app.synthesis.scheduler import Playback
from tests.synthesis.conftest import make_utterance, make_voice, open_stream, run
from tests.synthesis.test_cuda_graphs import record

ALL_STOPS = (True, True, True)
NO_STOPS = (False, False, False)


class CountedGraphs(Graphs):
    """Counts the launches of what it wraps."""

    def __init__(self) -> None:
        super().__init__(None)
        self.num_launches = 0

    def wrap(self, call: FixedCall) -> FixedCall:  # type: ignore[override]
        def counted(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            self.num_launches += 1
            return call(*inputs)

        return counted


@pytest.fixture(scope="module")
def model(checkpoint: Checkpoint) -> LanguageModel:
    return LanguageModel.from_tensors(checkpoint.dims.language_model, checkpoint.language_model)


def decoder(checkpoint: Checkpoint, model: LanguageModel, graphs: Graphs) -> tuple[FixedDecode, KVCache]:
    cache = KVCache.allocate(checkpoint.dims.language_model, 5, 256)
    return FixedDecode(model, cache, Sampler(checkpoint.dims.sampling), graphs), cache


def draw(decode: FixedDecode, slots: list[int], outputs: list[list[int]], *, ahead: bool) -> None:
    """One more token for each slot; position and step follow from the outputs, the seed from the slot."""
    now = [Turn(slot, len(said), len(said), slot, NO_STOPS) for slot, said in zip(slots, outputs, strict=True)]
    then = [replace(turn, position=turn.position + 1, step=turn.step + 1) if ahead else None for turn in now]
    for said, (token, is_valid) in zip(outputs, decode(now, then, outputs), strict=True):
        assert is_valid
        said.append(token)


@torch.inference_mode()
def test_the_next_step_is_launched_before_this_one_is_read(checkpoint: Checkpoint, model: LanguageModel) -> None:
    graphs = CountedGraphs()
    decode, cache = decoder(checkpoint, model, graphs)
    slots, outputs = [cache.take() for _ in range(3)], [[1], [2], [3]]
    draw(decode, slots, outputs, ahead=True)
    assert graphs.num_launches == 2, "this step, and the one after it"
    for step in range(3, 30):
        draw(decode, slots, outputs, ahead=True)
        assert graphs.num_launches == step
    draw(decode, slots, outputs, ahead=False)
    assert graphs.num_launches == 29, "there was one left to read"


@torch.inference_mode()
def test_tokens_are_those_of_one_step_at_a_time(checkpoint: Checkpoint, model: LanguageModel) -> None:
    """Whoever takes part, and whenever: streams join, pause and leave."""
    plain, plain_cache = decoder(checkpoint, model, Graphs(None))
    expected: list[list[int]] = [[7], [8], [9]]
    slots = [plain_cache.take() for _ in expected]
    for slot, said in zip(slots, expected, strict=True):
        for _ in range(60):
            draw(plain, [slot], [said], ahead=False)
    graphs = Graphs(record)
    decode, cache = decoder(checkpoint, model, graphs)
    with graphs.capturing():
        decode.rehearse()
    assert slots == [cache.take() for _ in slots]
    random, ours = np.random.default_rng(1), [[7], [8], [9]]
    while rows := [row for row in range(3) if len(ours[row]) < 61]:
        chosen = [row for row in rows if random.random() < 0.6]
        if chosen:
            draw(decode, [slots[row] for row in chosen], [ours[row] for row in chosen], ahead=random.random() < 0.8)
    assert ours == expected
    assert len(set(map(tuple, ours))) == 3


@torch.inference_mode()
def test_who_goes_another_way_gets_nothing_that_was_drawn_ahead(checkpoint: Checkpoint, model: LanguageModel) -> None:
    decode, cache = decoder(checkpoint, model, Graphs(None))
    slot, said = cache.take(), [5]
    for _ in range(12):
        draw(decode, [slot], [said], ahead=True)
    other_seed = Turn(slot, len(said), len(said), 99, NO_STOPS)
    ((token, _),) = decode([other_seed], [None], [said])
    alone, other_cache = decoder(checkpoint, model, Graphs(None))
    assert other_cache.take() == slot
    again = [5]
    for _ in range(12):
        draw(alone, [slot], [again], ahead=False)
    assert again == said
    assert alone([other_seed], [None], [said]) == [(token, 1)]


@torch.inference_mode()
def test_numbers_that_are_none_are_told(checkpoint: Checkpoint, model: LanguageModel) -> None:
    decode, cache = decoder(checkpoint, model, Graphs(None))
    healthy, broken = cache.take(), cache.take()
    cache.keys[:, broken] = torch.nan
    turns = [Turn(slot, 3, 3, slot, ALL_STOPS) for slot in (healthy, broken)]
    assert [is_valid for _, is_valid in decode(turns, [None, None], [[1, 2, 3], [1, 2, 3]])] == [1, 0]


def test_the_engine_says_the_same_tokens_when_streams_leave_and_slots_change_hands(checkpoint: Checkpoint) -> None:
    spoken = []
    for fixed in (False, True):
        settings = {"max_streams": 2, "max_positions": 512, "fixed_shapes": fixed, "memory_mib": 512}
        engine = StreamingEngine(checkpoint, SynthesisConfig.model_validate(settings | {"flow_cache_mib": 64}))
        voice = make_voice(1)
        for stream_id in (0, 1):
            open_stream(engine, stream_id, voice, make_utterance(voice, stream_id, num_text_tokens=8), 3)
        leaver, stayer = engine._streams[0], engine._streams[1]
        run(engine, until=lambda leaver=leaver: len(leaver.tokens) >= 5)  # type: ignore[misc]
        left_with = list(leaver.tokens)
        engine.close(0)
        events = [event for event in engine.step() if event.stream_id == 0]
        assert not events, "nothing for whom has left"
        assert leaver.tokens == left_with
        # Seed and slot of the one before it, another text; and one whose text comes while it speaks.
        open_stream(engine, 2, voice, make_utterance(voice, 20, num_text_tokens=8), 3)
        successor = engine._streams[2]
        fed = PreparedSpeech("fed", voice, (make_utterance(voice, 6, num_text_tokens=9),), seed=4, fed=True)
        engine.open(3, fed, 0, Playback(3.0))
        reader = engine._streams[3]
        engine.feed(3, np.arange(7, dtype=np.int32))
        engine.end(3)
        run(engine)
        engine.check()
        spoken.append([stream.tokens for stream in (stayer, successor, reader)])
    assert spoken[0] == spoken[1]
    assert all(spoken[0])


def test_the_benchmark_measures_it_where_shapes_are_fixed(checkpoint: Checkpoint) -> None:
    config = BenchSettings(device="cpu", fixed_shapes=True, memory_mib=128, flow_cache_mib=128)
    figures = step_figures(checkpoint, config, made_up_voice(0, 40), decode_batches=(1, 2), render_batches=(1,))
    assert all(figures[name] > 0 for name in ("decode_1_ms", "decode_2_ms", "chunk_1_ms"))


@pytest.mark.parametrize("ended", [False, True], ids=["text to come", "all text there"])
def test_fed_streams_are_decoded_ahead_but_where_text_is_read(checkpoint: Checkpoint, ended: bool) -> None:
    settings = {"max_streams": 1, "max_positions": 512, "fixed_shapes": True, "memory_mib": 256, "flow_cache_mib": 64}
    engine = StreamingEngine(checkpoint, SynthesisConfig.model_validate(settings))
    decode = engine._language._decode_fixed
    assert decode is not None
    voice = make_voice(1, num_tokens=30)
    fed = PreparedSpeech("fed", voice, (make_utterance(voice, 6, num_text_tokens=20),), seed=4, fed=True)
    engine.open(0, fed, 0, Playback(0.0))
    stream = engine._streams[0]
    if ended:
        engine.end(0)
    num_decodes = num_ahead = 0
    while engine.wait_s() is not None and len(stream.tokens) < 60:
        before, reads = len(stream.outputs), stream.progress.unread > 0
        engine.step()
        if len(stream.outputs) > before and not reads:
            num_decodes += 1
            num_ahead += stream.slot in decode._ahead
    assert num_decodes > 30
    assert num_ahead >= 0.9 * num_decodes if ended else 0.8 * num_decodes <= num_ahead < num_decodes
    engine.close(0)
