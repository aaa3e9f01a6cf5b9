"""The commands as a user types them, against a fake server on loopback."""

import asyncio
import json
import wave
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from serve_app.loadtest.article import reference_clip
from serve_app.loadtest.command import loadtest, loadtest_compare
from serve_app.loadtest.faults import LoadTestError
from tests.loadtest.fake_server import Answer, FakeServer, listening, tone

app = typer.Typer()
app.command("loadtest")(loadtest)
app.command("loadtest-compare")(loadtest_compare)
CLIP = Path(__file__).resolve().parent.parent.parent / "configs/voices/clara.wav"


@dataclass
class Running:
    """A fake server in a thread of its own: the command runs an event loop itself."""

    url: str
    app: FakeServer


@pytest.fixture
def server() -> Iterator[Running]:
    """It refuses a third client at once."""
    app = FakeServer()
    app.answer = lambda text: Answer(((0.1, tone(0.2)),), status=200 if app.open <= 2 else 429)
    loop = asyncio.new_event_loop()
    end = asyncio.Event()
    started: Future[str] = Future()

    async def serve() -> None:
        async with listening(app) as url:
            started.set_result(url)
            await end.wait()

    thread = Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    try:
        yield Running(started.result(timeout=20), app)
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(timeout=20)
        loop.close()


def invoke(*arguments: str, status: int = 0) -> tuple[str, str]:
    """What it printed on stdout and stderr."""
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160"})
    assert result.exit_code == status, result.output
    return result.stdout, result.stderr


def invoke_json(*arguments: str, status: int = 0) -> dict[str, Any]:
    out, err = invoke(*arguments, "--json", status=status)
    report = json.loads(out)
    assert isinstance(report, dict) and len(out.splitlines()) == 1
    assert "audible TTFA" in err
    return report


def test_loads_searches_and_compares(server: Running, tmp_path: Path) -> None:
    url = server.url
    closed = invoke_json(
        "loadtest", url, "--clients", "2", "-n", "6", "--warmup", "1", "--csv", str(tmp_path / "r.csv")
    )
    assert (closed["requests"], closed["errors"], closed["continuity"], closed["underruns"]) == (6, 0, 1.0, 0)
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 7

    out, _ = invoke("loadtest", url, "--rate", "50", "-n", "2", "--goal", "errors < 1, p95 e2e < 1ms", status=1)
    assert "open loop, Poisson, 50 requests/s" in out
    assert "p95 e2e < 1ms" in out

    replayed = invoke_json("loadtest", url, "--replay", str(tmp_path / "r.csv"), "-n", "2")
    assert replayed["requests"] == 2
    for name, report in (("a", closed), ("b", replayed)):
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    out, _ = invoke("loadtest-compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"))
    assert "audible_ttfa_ms.p95" in out

    found = invoke_json("loadtest", url, "-n", "6", "--search", "--goal", "errors < 1", "--prebuffer-ms", "100")
    search = found["detail"]["search"]
    assert (search["highest"], search["broke"], search["unit"]) == (2, 3, "clients")
    assert [(probe["level"], probe["held"]) for probe in search["probes"]] == [
        (1, True),
        (2, True),
        (4, False),
        (3, False),
    ]
    assert (found["errors"], found["detail"]["prebuffer_ms"], found["detail"]["load"]) == (
        0,
        100,
        "closed loop, 2 clients",
    )
    assert len(server.app.bodies) == 7 + 2 + 2 + 4 * 6


def test_a_search_that_nothing_holds_ends_where_no_request_would_be_due(server: Running) -> None:
    arguments = ("--rate", "4", "--seconds", "1", "--search", "--goal", "p95 e2e < 1ms")
    found = invoke_json("loadtest", server.url, *arguments, status=1)
    search = found["detail"]["search"]
    assert search["highest"] is None
    assert [probe["held"] for probe in search["probes"]] == [False] * len(search["probes"])
    assert search["broke"] == search["probes"][-1]["level"] < 4
    _, err = invoke("loadtest", server.url, "--rate", "0.001", *arguments[2:], status=1)
    assert "no request is due within 1 s" in err


def test_the_article_is_reproduced(server: Running) -> None:
    url = server.url
    report = invoke_json("loadtest", url, "--preset", "article", "--requests", "10", "--ref-audio", str(CLIP))
    figures = report["detail"]["article"]
    assert report["requests"] == 10
    assert report["detail"]["two_clients"]["requests"] == 2
    assert figures["first_packet_mean_ms"] == report["ttfp_ms"]["mean"]
    assert figures["first_packet_p95_ms"] == report["ttfp_ms"]["p95"]
    assert figures["total_mean_ms"] == report["detail"]["e2e_ms"]["mean"]
    assert figures["two_client_first_packet_mean_ms"] == report["detail"]["two_clients"]["ttfp_ms"]["mean"]
    two_clients_ms = report["detail"]["two_clients"]["ttfp_ms"]["mean"]
    assert figures["two_client_ratio"] == two_clients_ms / report["ttfp_ms"]["mean"]
    asked = server.app.bodies
    assert len(asked) == 12
    assert {body["input"] for body in asked} == {"你好，我是你的AI助手"}
    # 5 s of 24 kHz s16 and a header of 44 bytes, four characters for each three bytes
    assert {len(body["ref_audio"]) for body in asked} == {
        len("data:audio/wav;base64,") + (5 * 48_000 + 44 + 2) // 3 * 4
    }


def test_the_reference_clip_is_five_seconds_of_the_voice() -> None:
    with wave.open(str(CLIP)) as source:
        original = source.readframes(source.getnframes())
    with wave.open(BytesIO(reference_clip(CLIP))) as clip:
        frames = clip.readframes(clip.getnframes())
        assert clip.getnframes() == 5 * clip.getframerate()
    assert frames == (original * 2)[: len(frames)]


def test_a_clip_that_cannot_be_read_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "clip.wav").write_bytes(b"no wav")
    for path in (tmp_path / "none.wav", tmp_path / "clip.wav"):
        with pytest.raises(LoadTestError, match="--ref-audio"):
            reference_clip(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["localhost:8000"], "is no URL"),
        (["http://h", "--clients", "2", "--rate", "3"], "--clients and --rate exclude each other"),
        (["http://h", "--burst", "2"], "--rate, which is missing"),
        (["http://h", "--rate", "2", "--burst", "2", "--ramp-to", "3"], "--burst and --ramp-to exclude"),
        (["http://h", "--rate", "0"], "a rate lies above 0"),
        (["http://h", "--rate", "0.001", "--seconds", "0.1"], "no request is due"),
        (["http://h", "--seconds", "0"], "--seconds is above 0"),
        (["http://h", "--clients", "901"], "--clients is at most 900"),
        (["http://h", "--search"], "--search needs a --goal"),
        (["http://h", "--search", "--goal", "rtf < 1", "--replay", "x"], "--search varies"),
        (["http://h", "--goal", "quick"], "cannot read the goal 'quick'"),
        (["http://h", "--preset", "article", "--text", "x"], "--preset has its own"),
        (["http://h", "--text", "x", "--text-file", "y"], "--text and --text-file exclude"),
        (["http://h", "--text-file", "/none/texts"], "cannot read"),
        (["http://h", "--ref-text", "x"], "--ref-audio, which is missing"),
        (["http://h", "--ref-audio", "/none/clip.wav"], "cannot read"),
    ],
)
def test_options_that_make_no_sense_are_said_in_one_line(arguments: list[str], message: str) -> None:
    out, err = invoke("loadtest", *arguments, status=1)
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1


def test_nobody_there_is_an_exit_status() -> None:
    out, _ = invoke("loadtest", "http://127.0.0.1:9", "-n", "1", status=1)
    assert "1 connect" in out
