"""The benchmark at toy size: every key that is promised, in the last line."""

import json

import pytest

from serve_app.synthesis.bench import main

SHORT = ["--size", "toy", "--threads", "1", "--streams", "1", "2", "--repeat", "1", "--seconds", "1.2"]


def test_figures_of_engine_and_networks_end_in_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    figures = main([*SHORT, "--networks", "--left-context", "1", "--device", "cpu"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == figures
    assert {"ttfa_ms", "audible_ttfa_ms", "rtf", "underruns", "streams", "tokens_per_s", "peak_rss_mib"} <= set(figures)
    assert {"device", "driver", "precision", "prefix_bytes"} <= set(figures)
    assert figures["precision"] == "float32"
    networks, deviations = figures["networks"], figures["deviations"]
    assert isinstance(networks, dict)
    assert isinstance(deviations, dict)
    timed = {"decode_1_ms", "decode_64_ms", "chunk_1_ms", "chunk_16_ms", "ceiling_tflops", "ceiling_gb_per_s"}
    assert all(networks[name] > 0 for name in timed)
    assert 0 < deviations["bf16_mel_max"] < 0.05
    assert deviations["bf16_top1"] > 0.9
    assert deviations["left_context_mel_max"] > 0


def test_json_alone_is_one_line_of_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--size", "toy", "--threads", "1", "--streams", "1", "--seconds", "0.6", "--compare", "reference", "--json"])
    (line,) = capsys.readouterr().out.splitlines()
    assert {"ttfa_ratio", "total_ratio", "chunk_cost_growth", "1_streams_ratio"} <= json.loads(line).keys()
