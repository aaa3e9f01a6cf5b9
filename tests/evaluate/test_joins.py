"""A click is found where there is one, and only there."""

import numpy as np

from serve_app.evaluate.joins import FRAME, JoinStatistic
from serve_app.evaluate.report import Report, is_silent
from serve_app.messages import SAMPLE_RATE_HZ, Float32Array

JOINS = tuple(FRAME * n for n in (25, 75, 125, 175))


def speech_like(seed: int) -> Float32Array:
    """Four seconds of noise whose colour and level change all the time."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(4 * SAMPLE_RATE_HZ)
    smooth = np.convolve(noise, np.hanning(24) / 12, "same")
    level = np.interp(np.arange(len(noise)), np.arange(0, len(noise), 2400), rng.uniform(0.01, 0.2, 40))
    return (smooth * level).astype(np.float32)


def test_joins_like_everything_else_are_no_clicks() -> None:
    statistic = JoinStatistic()
    for seed in range(20):
        statistic.add(speech_like(seed), JOINS)
    assert len(statistic.at_joins) == 80
    assert not statistic.clicks
    assert statistic.above_p99 is not None and statistic.above_p99 < 0.05


def test_a_small_step_at_a_tenth_of_the_joins_is_a_click() -> None:
    statistic = JoinStatistic()
    for seed in range(20):
        samples = speech_like(seed)
        if seed % 3 == 0:
            samples[JOINS[1] :] += 0.1
        statistic.add(samples, JOINS)
    assert statistic.clicks
    assert statistic.worst is not None and statistic.worst > 1


def test_nothing_is_said_of_speech_in_one_chunk() -> None:
    statistic = JoinStatistic()
    statistic.add(speech_like(0), ())
    assert statistic.above_p99 is None and statistic.worst is None and not statistic.clicks


def test_silence_is_what_has_no_audible_window() -> None:
    assert is_silent(np.zeros(0, np.float32)) and is_silent(np.full(SAMPLE_RATE_HZ, 0.003, np.float32))
    burst = np.zeros(SAMPLE_RATE_HZ, np.float32)
    burst[4800:6000] = 0.02
    assert not is_silent(burst)


def test_an_empty_report_has_every_figure_and_no_fault() -> None:
    figures = Report().figures()
    assert {"wer_en", "wer_en_by_voice", "per_zh", "conditioning_top1", "rtf"} <= set(figures)
    assert figures["wer_en"] is None and figures["faults"] == []
