"""The table of aims at toy size, where nothing but torch, numpy and safetensors is installed."""

import json
import subprocess
import sys

import pytest

from serve_app.synthesis.aims import TTFA_AIMS_MS, Row, deviation_rows, step_rows

BARE = """
import sys
absent = "av fastapi fsspec httpx huggingface_hub hyperpyyaml librosa onnxruntime prometheus_client pydantic ray scipy"
absent += " soundfile soxr starlette tiktoken tokenizers torchaudio transformers uvicorn websockets yaml"
sys.modules.update(dict.fromkeys(absent.split()))
from serve_app.synthesis.aims import main
arguments = "--size toy --device cpu --fixed-shapes --part engine --most-streams 2 --seconds 0.6 --left-context 3"
main(arguments.split())
"""


def test_the_engines_part_of_the_table() -> None:
    finished = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr
    *table, last = finished.stdout.splitlines()
    figures = json.loads(last)
    rows = {row["name"]: row for row in figures["rows"]}
    assert set(rows) == {
        "first sound, 1 at once, p50",
        "streams without an underrun (of 2 tried)",
        "requests of 0.6 s, 2 at a time",
        "speed, the same run",
    }
    assert rows["first sound, 1 at once, p50"]["aim"] == TTFA_AIMS_MS[1]
    assert rows["requests of 0.6 s, 2 at a time"]["reached"] > 0
    assert rows["streams without an underrun (of 2 tried)"]["reached"] in (0, 1, 2)
    assert all(any(line.startswith(name) for line in table) for name in rows), "each is shown when it is measured"
    assert "says nothing" in finished.stdout


def test_the_networks_part_of_the_table() -> None:
    times = {"decode_1_ms": 1.4, "decode_64_ms": 3.1, "chunk_1_ms": 9.0, "vocoder_1_ms": 5.0}
    times |= {"chunk_16_ms": 30.0, "vocoder_16_ms": 11.0, "ceiling_tflops": 700.0, "ceiling_gb_per_s": 4000.0}
    shares = ("decode_1_bandwidth", "decode_64_bandwidth", "chunk_1_compute", "chunk_16_compute")
    rows = step_rows(times | {f"{name}_share": 0.5 for name in shares})
    rows += deviation_rows({"bf16_mel_max_absolute": 0.06, "bf16_mel_max": 0.01, "bf16_top1": 0.991, "steps": 2000})
    judged = [(row.reached, row.is_met) for row in rows if row.aim is not None]
    expected = [(1.4, True), (3.1, False), (14.0, True), (41.0, False), (0.06, False), (99.1, True)]
    assert [met for _, met in judged] == [met for _, met in expected]
    assert [reached for reached, _ in judged] == pytest.approx([reached for reached, _ in expected])


def test_more_of_some_things_is_better_and_less_of_others() -> None:
    assert str(Row("speed", 130.0, "x", 120.0, more=True)).endswith("met")
    assert str(Row("speed", 90.0, "x", 120.0, more=True)).endswith("missed")
    assert Row("time", 130.0, "ms", 120.0).is_met is False
    assert Row("time", 130.0, "ms").is_met is None
