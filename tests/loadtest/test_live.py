"""Against a real server on loopback: what the tester reports is what the server did."""

import asyncio
import os
import signal
import socket
import time
from io import StringIO

import pytest
from rich.console import Console
from starlette.types import Send

from serve_app.loadtest import driver, machine
from serve_app.loadtest.driver import ClosedLoop, Load, OpenLoop
from serve_app.loadtest.schedule import Arrival
from serve_app.loadtest.session import Run, Session
from serve_app.loadtest.target import Target, endpoint_of
from tests.loadtest.fake_server import WAV_HEADER, Answer, FakeServer, listening, silence, tone


async def run_against(
    server: FakeServer,
    load: Load | None = None,
    *,
    texts: tuple[str, ...] = ("text",),
    audio_format: str = "pcm",
    timeout_s: float = 10.0,
) -> Run:
    async with listening(server) as url:
        target = Target(endpoint_of(url), audio_format=audio_format, timeout_s=timeout_s)
        session = Session(target, texts, 0.0, Console(file=StringIO()))
        return await session.run(load or ClosedLoop(1, 1, 30))


def fixed(answer: Answer) -> FakeServer:
    return FakeServer(lambda text: answer)


async def test_a_paced_stream_is_measured_as_it_was_sent() -> None:
    # 0.15 s until the header, 0.15 s more until 0.2 s of silence and 0.3 s of sound, then sound in good time
    parts = ((0.15, WAV_HEADER), (0.15, silence(0.2) + tone(0.3)), (0.05, tone(0.5)), (0.05, tone(0.5)))
    began_s = time.monotonic()
    run = await run_against(fixed(Answer(parts, content_type="audio/wav")), audio_format="wav")
    took_s = time.monotonic() - began_s
    figures = run.records[0].figures
    assert figures is not None
    assert figures.audio_s == pytest.approx(1.5)
    # A busy machine may be late, never early.
    assert 0.15 <= figures.ttfb_s < figures.ttfp_s < took_s
    assert figures.ttfp_s >= 0.3
    assert figures.audible_ttfa_s == pytest.approx(figures.ttfp_s + 0.2)
    assert max(0.4, figures.ttfp_s) <= figures.e2e_s < took_s
    assert figures.rtf == pytest.approx(figures.e2e_s / 1.5)
    assert [playback.num_underruns for playback in figures.players] == [0, 0, 0]
    assert (run.summary.requests, run.summary.errors, run.summary.player.continuity) == (1, 0, 1.0)


async def test_a_stall_is_an_underrun_of_its_length() -> None:
    # 0.1 s of sound at once, then 0.7 s of nothing: every player runs dry once, for about 0.6 s
    parts = ((0.0, tone(0.1)), (0.7, tone(0.1)))
    began_s = time.monotonic()
    run = await run_against(fixed(Answer(parts)), ClosedLoop(2, 2, 30))
    took_s = time.monotonic() - began_s
    unbuffered, _, long = run.summary.players
    assert (unbuffered.underruns, unbuffered.continuity) == (2, 0.0)
    assert 1.0 <= unbuffered.stall_s < 2 * took_s
    # with 200 ms it starts only after the stall
    assert (long.underruns, long.stall_s, long.continuity) == (0, 0.0, 1.0)


ANSWERS: dict[str, tuple[Answer, str]] = {
    "broken": (Answer(breaks=True), "broken_body"),
    "busy": (Answer(status=429, parts=((0.0, b'{"error": {"message": "come back later"}}'),)), "status_429"),
    "moved": (Answer(status=307, parts=(), headers=((b"location", b"/elsewhere"),)), "status_307"),
    "page": (Answer(content_type="text/html"), "bad_audio"),
    "odd": (Answer(((0.0, b"abc"),)), "bad_audio"),
    "empty": (Answer(()), "bad_audio"),
    "late": (Answer(((5.0, tone(0.1)),)), "timeout"),
    "stuck": (Answer(((0.0, tone(0.1)), (5.0, tone(0.1)))), "timeout"),
}


async def test_every_failure_has_its_kind_and_counts_against_continuity() -> None:
    texts = ("fine", *ANSWERS)
    server = FakeServer(lambda text: ANSWERS[text][0] if text in ANSWERS else Answer())
    arrivals = tuple(Arrival(0.0, text) for text in texts)
    run = await run_against(server, OpenLoop(arrivals, "all at once"), timeout_s=1.5)
    assert {record.text: record.error for record in run.records} == {
        "fine": "",
        **{text: kind for text, (_, kind) in ANSWERS.items()},
    }
    summary = run.summary
    assert (summary.requests, summary.errors) == (9, 8)
    assert summary.player.continuity == pytest.approx(1 / 9)
    assert summary.errors_by_kind == {
        "bad_audio": 3,
        "broken_body": 1,
        "status_307": 1,
        "status_429": 1,
        "timeout": 2,
    }
    assert "come back later" in summary.error_examples["status_429"]
    assert all((record.figures is None) == bool(record.error) for record in run.records)


async def test_nobody_listening_is_an_error_of_every_request() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        target = Target(endpoint_of(f"http://127.0.0.1:{unused.getsockname()[1]}"))
        run = await Session(target, ("text",), 0.0, Console(file=StringIO())).run(ClosedLoop(1, 2, 30))
    assert run.summary.errors_by_kind == {"connect": 2}
    assert run.summary.ttfp_ms is None


async def test_a_closed_loop_keeps_its_clients_busy_and_stops_at_its_count() -> None:
    server = fixed(Answer(((0.05, tone(0.1)),)))
    run = await run_against(server, ClosedLoop(3, 10, 30), texts=("a", "b"))
    assert server.most_open == 3
    assert [record.index for record in sorted(run.records, key=lambda record: record.index)] == list(range(10))
    assert sorted(body["input"] for body in server.bodies) == ["a"] * 5 + ["b"] * 5
    assert run.summary.audio_s == pytest.approx(1.0)


async def test_a_closed_loop_stops_at_its_time() -> None:
    run = await run_against(fixed(Answer(((0.1, tone(0.1)),))), ClosedLoop(1, 1000, 0.35))
    assert 1 <= run.summary.requests <= 4


async def test_an_open_loop_does_not_wait_for_a_slow_server_and_counts_its_queue() -> None:
    # One worker that takes 0.2 s each, and six requests due at once. A tester that waited for answers, or counted from
    # when it got round to sending, would report 0.2 s for all of them; the last listener waited for 1.2 s.
    turn = asyncio.Lock()

    class OneAtATime(FakeServer):
        async def send_answer(self, answer: Answer, send: Send) -> None:
            async with turn:
                await super().send_answer(answer, send)

    server = OneAtATime(lambda text: Answer(((0.2, tone(0.1)),)))
    run = await run_against(server, OpenLoop(tuple(Arrival(0.0) for _ in range(6)), "burst"))
    assert server.most_open == 6
    waits = sorted(record.figures.ttfp_s for record in run.records if record.figures is not None)
    assert len(waits) == 6
    for place, wait_s in enumerate(waits, 1):
        assert wait_s >= 0.2 * place - 0.01


async def test_latency_counts_from_when_a_request_was_due() -> None:
    # the first answer blocks the loop that tester and server share here, while the second request is due
    def answer(text: str) -> Answer:
        if text == "block":
            time.sleep(1.0)
        return Answer()

    run = await run_against(FakeServer(answer), OpenLoop((Arrival(0.0, "block"), Arrival(0.3, "late")), "two"))
    late = next(record for record in run.records if record.text == "late")
    assert late.figures is not None
    assert late.sent_s - late.due_s > 0.2
    assert late.figures.ttfp_s > late.sent_s - late.due_s
    lag = run.summary.client_lag_ms
    assert lag is not None and lag.p99 > 200


async def test_more_open_streams_than_the_tester_can_hold_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "MAX_IN_FLIGHT", 3)
    server = fixed(Answer(((0.3, tone(0.1)),)))
    run = await run_against(server, OpenLoop(tuple(Arrival(0.0) for _ in range(5)), "burst"))
    assert run.summary.errors_by_kind == {"client_full": 2}
    assert len(server.bodies) == 3


async def test_ctrl_c_reports_what_ran() -> None:
    def answer(text: str) -> Answer:
        if text == "slow":
            asyncio.get_running_loop().call_later(0.3, os.kill, os.getpid(), signal.SIGINT)
            return Answer(((20.0, tone(0.1)),))
        return Answer()

    arrivals = (Arrival(0.0, "quick"), Arrival(0.3, "slow"), Arrival(60.0, "never"))
    run = await run_against(FakeServer(answer), OpenLoop(arrivals, "three"))
    assert run.interrupted
    assert [record.text for record in run.records] == ["quick"]
    assert (run.summary.requests, run.summary.errors, run.summary.cancelled) == (1, 0, 1)


async def test_what_is_sent_is_what_openai_expects() -> None:
    server = FakeServer()
    async with listening(server) as url:
        plain = Target(endpoint_of(url + "/v1"), model="m")
        full = Target(
            endpoint_of(url + "/v1/audio/speech"),
            voice="v",
            api_key="secret",
            reference=b"RIFF",
            reference_text="words",
            instructions="calm",
        )
        for target in (plain, full):
            run = await Session(target, ("你好",), 0.0, Console(file=StringIO())).run(ClosedLoop(1, 1, 30))
            assert run.summary.errors == 0
            assert "secret" not in str(run.to_json())
    assert server.bodies[0] == {"model": "m", "input": "你好", "response_format": "pcm"}
    assert b"authorization" not in server.headers[0]
    assert server.headers[0][b"content-type"] == b"application/json"
    assert b"transfer-encoding" not in server.headers[0]
    assert server.bodies[1] == {
        "model": "tts-1",
        "input": "你好",
        "response_format": "pcm",
        "voice": "v",
        "instructions": "calm",
        "ref_audio": "data:audio/wav;base64,UklGRg==",
        "ref_text": "words",
    }
    assert server.headers[1][b"authorization"] == b"Bearer secret"


async def test_a_long_clip_is_sent_without_a_warning() -> None:
    server = FakeServer()
    async with listening(server) as url:
        target = Target(endpoint_of(url), reference=bytes(3_000_000))
        run = await Session(target, ("a",), 0.0, Console(file=StringIO())).run(ClosedLoop(1, 2, 30))
    assert run.summary.errors == 0
    assert [len(body["ref_audio"]) for body in server.bodies] == [4_000_022] * 2


@pytest.mark.parametrize(
    ("content_type", "headers", "seconds"),
    [
        ("audio/pcm;rate=8000;channels=1", (), 0.6),
        ("audio/pcm", ((b"x-sample-rate", b"48000"),), 0.1),
        ("audio/pcm", ((b"x-sample-rate", b"fast"),), 0.2),
    ],
)
async def test_the_rate_of_pcm_is_the_one_stated(
    content_type: str, headers: tuple[tuple[bytes, bytes], ...], seconds: float
) -> None:
    run = await run_against(fixed(Answer(content_type=content_type, headers=headers)))
    assert run.summary.audio_s == pytest.approx(seconds)


async def test_64_streams_at_once_come_through_whole() -> None:
    parts = tuple((0.05, tone(0.05)) for _ in range(8))
    run = await run_against(fixed(Answer(parts)), ClosedLoop(64, 64, 30))
    assert (run.summary.requests, run.summary.errors) == (64, 0)
    assert run.summary.audio_s == pytest.approx(64 * 0.4)
    lag = run.summary.client_lag_ms
    assert lag is not None and 0 <= lag.p50 <= lag.p99


async def test_the_cpu_is_watched_where_psutil_is_installed() -> None:
    run = await run_against(fixed(Answer(((1.2, tone(0.1)),))))
    assert run.summary.cpu_peak is not None and 0 <= run.summary.cpu_peak <= 100
    assert run.summary.client_cpu_peak is not None


async def test_without_psutil_the_cpu_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "load_psutil", lambda: None)
    run = await run_against(fixed(Answer(((0.7, tone(0.1)),))))
    assert (run.summary.errors, run.summary.cpu_peak, run.summary.client_cpu_peak) == (0, None, None)
