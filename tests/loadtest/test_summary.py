"""From records to figures, to JSON, to CSV and plots, and two runs side by side."""

import csv
import json
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from serve_app.loadtest.compare import comparison_table, differences, read_run
from serve_app.loadtest.driver import ClosedLoop
from serve_app.loadtest.faults import LoadTestError
from serve_app.loadtest.measures import StreamFigures
from serve_app.loadtest.playback import Playback
from serve_app.loadtest.plots import in_flight, write_plots
from serve_app.loadtest.report import remarks, run_table, write_csv
from serve_app.loadtest.schedule import Arrival, replay
from serve_app.loadtest.session import Run
from serve_app.loadtest.speech_client import RequestRecord
from serve_app.loadtest.summary import summarise
from serve_app.loadtest.target import Target, endpoint_of


def heard(index: int, due_s: float, ttfp_s: float, audible_s: float | None = 0.5, gaps: int = 0) -> RequestRecord:
    players = (Playback(0.0, gaps, gaps * 0.1), Playback(0.1, 0, 0.0), Playback(0.2, 0, 0.0))
    figures = StreamFigures(ttfp_s / 2, ttfp_s, audible_s, 1.0, 2.0, players)
    return RequestRecord(index, "你好, you", due_s, due_s + 0.001, 1.0, 200, figures=figures)


RECORDS = (
    heard(1, 1.0, 0.2, gaps=2),
    heard(0, 0.0, 0.1),
    RequestRecord(2, "x", 3.0, 3.0, 0.5, 503, "status_503", "not ready"),
    heard(3, 3.0, 0.3, audible_s=None, gaps=1),
)


def run_of(records: tuple[RequestRecord, ...]) -> Run:
    summary = summarise(records, lags_s=[0.001, 0.003], machine_cpu_percent=[10, 90, 20], client_cpu_percent=[7])
    return Run(Target("http://user:pw@host/v1/audio/speech?k=v"), ClosedLoop(1, 4, 30), "now", False, summary, records)


def test_figures_of_a_run() -> None:
    summary = run_of(RECORDS).summary
    assert (summary.requests, summary.errors, summary.errors_by_kind, summary.silent) == (4, 1, {"status_503": 1}, 1)
    assert summary.ttfp_ms is not None and summary.audible_ttfa_ms is not None and summary.client_lag_ms is not None
    assert summary.ttfp_ms.mean == summary.ttfp_ms.p50 == pytest.approx(200)
    assert summary.ttfp_ms.p95 == pytest.approx(290)
    assert summary.ttfp_ms.p99 == pytest.approx(298)
    assert summary.audible_ttfa_ms.p99 == pytest.approx(500)
    assert summary.rtf == pytest.approx(0.5)
    # from the first that was due to the last that ended
    assert summary.wall_s == pytest.approx(4.0)
    assert summary.audio_s_per_s == pytest.approx(1.5)
    assert summary.requests_per_s == pytest.approx(1.0)
    assert [player.underruns for player in summary.players] == [3, 0, 0]
    # one of four without a gap; with a prebuffer three, since the failed one was not heard
    assert [player.continuity for player in summary.players] == [0.25, 0.75, 0.75]
    assert summarise(RECORDS, prebuffer_ms=200).player.prebuffer_ms == 200
    assert summary.client_lag_ms.mean == pytest.approx(2.0)
    assert (summary.cpu_peak, summary.client_cpu_peak) == (90, 7)


def test_json_has_the_keys_that_others_read() -> None:
    report = json.loads(json.dumps(run_of(RECORDS).to_json(), allow_nan=False))
    names = (
        "requests errors ttfp_ms audible_ttfa_ms underruns continuity rtf audio_s_per_s cpu_peak client_lag_ms detail"
    )
    assert list(report) == names.split()
    for spread in ("ttfp_ms", "audible_ttfa_ms", "client_lag_ms"):
        assert list(report[spread]) == ["mean", "p50", "p95", "p99"]
    assert (report["requests"], report["errors"], report["underruns"], report["continuity"]) == (4, 1, 3, 0.25)
    assert report["detail"]["endpoint"] == "http://host/v1/audio/speech"


def test_a_run_without_sound_has_no_figures_instead_of_zeros() -> None:
    for records in ((), RECORDS[2:3]):
        summary = summarise(records)
        report = run_of(records).to_json()
        assert [report[name] for name in ("ttfp_ms", "audible_ttfa_ms", "rtf")] == [None] * 3
        assert summary.cpu_peak is None
        console = Console(width=140, file=StringIO(), record=True)
        console.print(run_table(run_of(records)))
        assert "nan" not in console.export_text()


def test_the_table_says_what_happened() -> None:
    console = Console(width=140, file=StringIO(), record=True)
    console.print(run_table(run_of(RECORDS)))
    text = console.export_text()
    for expected in (
        "200.0",
        "290.0",
        "298.0",
        "3 underruns",
        "25.0% gapless",
        "1 status_503",
        "1.50 s/s",
        "90 %",
    ):
        assert expected in text, expected
    assert remarks(run_of(RECORDS))[0] == "status_503: not ready"
    assert "1 answers held no audible sound" in remarks(run_of(RECORDS))[1]


def test_the_csv_has_a_line_for_each_request_and_can_be_replayed(tmp_path: Path) -> None:
    file = tmp_path / "requests.csv"
    write_csv(file, RECORDS)
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["index"] for row in rows] == ["0", "1", "2", "3"]
    assert (rows[1]["ttfp_ms"], rows[1]["underruns_0ms"], rows[1]["stall_ms_0ms"]) == ("200.000", "2", "200.000")
    assert (rows[1]["sent_late_ms"], rows[1]["ended_ms"], rows[1]["rtf"]) == ("1.000", "1000.000", "0.5000")
    assert (rows[2]["status"], rows[2]["error"], rows[2]["ttfp_ms"], rows[2]["text"]) == ("503", "status_503", "", "x")
    assert rows[3]["audible_ttfa_ms"] == ""
    recorded = [Arrival(0.0, "你好, you"), Arrival(1.0, "你好, you"), Arrival(3.0, "x"), Arrival(3.0, "你好, you")]
    assert replay(file, 60, 100) == tuple(recorded)


def test_open_requests_are_counted_over_time() -> None:
    times_s, counts = in_flight(RECORDS)
    assert times_s == pytest.approx([0.001, 1.0, 1.001, 2.0, 3.0, 3.001, 3.5, 4.0])
    assert counts == [1, 0, 1, 0, 1, 2, 1, 0]


@pytest.mark.parametrize("records", [RECORDS, ()])
def test_plots_are_png_files(tmp_path: Path, records: tuple[RequestRecord, ...]) -> None:
    paths = write_plots(tmp_path / "plots", records)
    assert sorted(path.name for path in paths) == ["distribution.png", "in_flight.png", "latency.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_plots_without_matplotlib_name_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(LoadTestError, match=r"cosyvoice-serve\[plots\]"):
        write_plots(tmp_path, RECORDS)


def test_two_runs_are_compared(tmp_path: Path) -> None:
    files = [tmp_path / "before.json", tmp_path / "after.json"]
    files[0].write_text(json.dumps(run_of(RECORDS).to_json()), encoding="utf-8")
    files[1].write_text(json.dumps(run_of(RECORDS[:2]).to_json()), encoding="utf-8")
    before, after = (read_run(file) for file in files)
    found = {difference.name: difference for difference in differences(before, after)}
    ttfp = found["ttfp_ms.mean"]
    assert [ttfp.before, ttfp.after, ttfp.change] == pytest.approx([200, 150, -0.25])
    assert ttfp.better is True
    assert (found["continuity"].before, found["continuity"].after, found["continuity"].better) == (0.25, 0.5, True)
    assert (found["rtf"].better, found["requests"].better) == (None, None)
    assert (found["errors"].after, found["errors"].better) == (0, True)
    assert found["audio_s_per_s"].better is True
    console = Console(width=140, file=StringIO(), record=True)
    console.print(comparison_table(before, after))
    assert "-25.0%" in console.export_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not JSON"), ("[]", "not the JSON of a run"), ('{"requests": 1}', "it has no 'client_lag_ms'")],
)
def test_a_file_that_is_no_run_is_said(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "run.json"
    file.write_text(content)
    with pytest.raises(LoadTestError, match=message):
        read_run(file)


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://h:8000", "http://h:8000/v1/audio/speech"),
        ("http://h:8000/", "http://h:8000/v1/audio/speech"),
        ("https://h/v1/", "https://h/v1/audio/speech"),
        ("https://h/tts", "https://h/tts/v1/audio/speech"),
        ("https://h/x/audio/speech?a=b", "https://h/x/audio/speech?a=b"),
    ],
)
def test_a_server_is_named_in_any_usual_way(url: str, endpoint: str) -> None:
    assert endpoint_of(url) == endpoint


@pytest.mark.parametrize("url", ["", "h:8000", "127.0.0.1:8000", "ftp://h", "http://", "http://h:port", "http://[::1"])
def test_what_is_no_url_is_said(url: str) -> None:
    with pytest.raises(LoadTestError, match="URL"):
        endpoint_of(url)
