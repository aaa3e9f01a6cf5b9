"""Listeners of the benchmarks: so many at a time, and an engine that refuses some."""

import pytest

from serve_app.errors import Overloaded
from serve_app.model.checkpoint import Checkpoint
from serve_app.synthesis.engine import StreamingEngine
from serve_app.synthesis.listening import most_streams, serve_all
from serve_app.synthesis.made_up import BenchSettings, made_up_voice

VOICES = [made_up_voice(0, 60)]
SECONDS = 0.6


def bench_engine(checkpoint: Checkpoint) -> StreamingEngine:
    """Two slots."""
    return StreamingEngine(checkpoint, BenchSettings(device="cpu", max_streams=1, max_positions=256))


def test_so_many_at_a_time_and_no_more(checkpoint: Checkpoint) -> None:
    listeners, wall_s = serve_all(bench_engine(checkpoint), VOICES, SECONDS, [0.0] * 5, at_once=2)
    assert len(listeners) == 5
    for listener in listeners:
        assert 0 < listener.ttfa_s <= listener.finished_s <= wall_s, "counted from when it was its turn"
    begun = sorted(listener.opened_s for listener in listeners)
    assert begun[1] < begun[2] < wall_s


def test_so_many_that_the_engine_refuses_them_are_too_many(checkpoint: Checkpoint) -> None:
    engine = bench_engine(checkpoint)
    with pytest.raises(Overloaded):
        serve_all(engine, VOICES, SECONDS, [0.0] * 3)
    assert engine.num_listeners == 0
    engine.check()
    assert most_streams(engine, VOICES, SECONDS, 3, lambda streams, underruns: None) <= 2
    assert serve_all(engine, VOICES, SECONDS, [0.0])[0][0].arrivals, "it is free again"
