"""The drift command tells growth from standing still."""

from collections.abc import Iterator

import pytest

from serve_app.model.checkpoint import Checkpoint
from serve_app.synthesis import drift
from serve_app.synthesis.engine import StreamingEngine


def test_one_request_is_spoken_to_its_end(engine: StreamingEngine, checkpoint: Checkpoint) -> None:
    assert 0 < drift.first_audio_s(engine, 0, 0.5) < 60
    assert engine.wait_s() is None
    engine.check()
    assert drift.resident_mib() > 50


def test_the_medians_of_the_early_and_the_last_hundred_are_compared(
    engine: StreamingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: Iterator[float] = iter([9.0] * 10 + [0.1] * 100 + [5.0] * 40 + [0.15] * 100)
    monkeypatch.setattr(drift, "first_audio_s", lambda *_: next(times))
    figures = drift.measure(engine, 250, 1.0)
    assert (figures["early_p50_ms"], figures["late_p50_ms"], figures["drift"]) == (100.0, 150.0, 0.5)
    with pytest.raises(ValueError, match="210"):
        drift.measure(engine, 100, 1.0)
