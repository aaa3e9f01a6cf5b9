"""The benchmark at toy size: every key that is promised, in the last line; and how little it needs installed."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.config import SynthesisConfig
from serve_app.synthesis.aims import deviation_rows, step_rows
from serve_app.synthesis.bench import main
from serve_app.synthesis.device_figures import _cuda_driver
from serve_app.synthesis.made_up import BenchSettings

SHORT = ["--size", "toy", "--threads", "1", "--streams", "1", "2", "--repeat", "1", "--seconds", "1.2"]


def test_figures_of_engine_and_networks_end_in_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    figures = main([*SHORT, "--networks", "--left-context", "1", "--device", "cpu", "--most-streams", "2"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == figures
    assert {"ttfa_ms", "audible_ttfa_ms", "rtf", "underruns", "streams", "tokens_per_s", "peak_rss_mib"} <= set(figures)
    assert {"device", "driver", "precision", "prefix_bytes"} <= set(figures)
    assert figures["precision"] == "float32"
    assert figures["most_streams"] in (0, 1, 2)
    networks, deviations = figures["networks"], figures["deviations"]
    assert isinstance(networks, dict)
    assert isinstance(deviations, dict)
    timed = {"decode_1_ms", "decode_64_ms", "chunk_1_ms", "chunk_16_ms", "ceiling_tflops", "ceiling_gb_per_s"}
    assert all(networks[name] > 0 for name in timed)
    assert all(row.reached > 0 for row in (*step_rows(networks), *deviation_rows(deviations))), "the table of aims"
    assert networks["decode_64_mb"] > networks["decode_1_mb"], "every stream has keys and values of its own"
    assert networks["chunk_16_gflop"] == pytest.approx(16 * networks["chunk_1_gflop"], rel=1e-2)
    assert 0 < deviations["bf16_mel_max"] < 0.05
    assert deviations["bf16_top1"] > 0.9
    assert deviations["left_context_mel_max"] > 0


def test_json_alone_is_one_line_of_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--size", "toy", "--threads", "1", "--streams", "1", "--seconds", "0.6", "--compare", "reference", "--json"])
    (line,) = capsys.readouterr().out.splitlines()
    assert {"ttfa_ratio", "total_ratio", "chunk_cost_growth", "1_streams_ratio"} <= json.loads(line).keys()


ALONE = """
import sys
import numpy.random, safetensors.torch, torch
before = set(sys.modules)
from serve_app.synthesis.bench import main
main(["--size", "toy", "--threads", "1", "--streams", "1", "--repeat", "1", "--seconds", "0.6", "--device", "cpu"])
new = {name.split(".")[0] for name in set(sys.modules) - before}
known = set(sys.stdlib_module_names) | {"numpy", "safetensors", "serve_app", "torch"}
print(sorted(name for name in new - known if not name.startswith("__editable__")))
"""


def test_it_needs_torch_numpy_and_safetensors_alone() -> None:
    finished = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True, timeout=300)
    assert finished.stdout.splitlines()[-1] == "[]"


def test_its_settings_are_the_defaults_of_the_service() -> None:
    given = {"min_token_text_ratio", "max_token_text_ratio"}
    ours, defaults = dataclasses.asdict(BenchSettings()), SynthesisConfig().model_dump()
    for name in given:
        assert ours.pop(name) == 5
    assert ours == {name: defaults[name] for name in ours}


def test_the_driver_is_told_where_it_says_who_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _cuda_driver() == "unknown"
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 570.86.15\necho 570.86.15\n")
    program.chmod(0o755)
    assert _cuda_driver() == "570.86.15", "one line for each card"
