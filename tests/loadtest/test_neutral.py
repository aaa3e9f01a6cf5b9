"""The tool against a server that knows nothing of this project: its figures are the delays that were built in."""

import subprocess
import sys
from collections.abc import Iterator
from io import StringIO

import pytest
from rich.console import Console

from serve_app.loadtest.driver import ClosedLoop
from serve_app.loadtest.session import Run, Session
from serve_app.loadtest.target import Target, endpoint_of
from tests.conftest import ROOT
from tests.loadtest.independent_server import CHUNK_S, EVERY_S, FIRST_S, NUM_CHUNKS, STALL_S

SLACK_S = 10.0
"""A busy machine may be late, never early."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    command = [sys.executable, "-m", "tests.loadtest.independent_server"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.terminate()


async def run(url: str, load: ClosedLoop, text: str = "text", voice: str | None = "alloy") -> Run:
    target = Target(endpoint_of(url), voice=voice, audio_format="wav")
    return await Session(target, (text,), 0.0, Console(file=StringIO())).run(load)


async def test_known_delays_are_recovered(url: str) -> None:
    summary = (await run(url, ClosedLoop(1, 5, 60))).summary
    assert (summary.requests, summary.errors) == (5, 0)
    assert summary.ttfb_ms and summary.ttfp_ms and summary.audible_ttfa_ms and summary.e2e_ms
    assert summary.ttfb_ms.p50 < summary.ttfp_ms.p50
    last_s = FIRST_S + (NUM_CHUNKS - 1) * EVERY_S
    assert 1000 * FIRST_S <= summary.ttfp_ms.p50 < 1000 * (FIRST_S + SLACK_S)
    assert 1000 * FIRST_S <= summary.audible_ttfa_ms.p50 < 1000 * (FIRST_S + SLACK_S)
    assert 1000 * last_s <= summary.e2e_ms.p50 < 1000 * (last_s + SLACK_S)
    audio_s = NUM_CHUNKS * CHUNK_S
    assert summary.audio_s == pytest.approx(5 * audio_s)
    assert summary.rtf == pytest.approx(summary.e2e_ms.mean / 1000 / audio_s, rel=0.01)


async def test_a_known_stall_is_an_underrun_for_every_player(url: str) -> None:
    summary = (await run(url, ClosedLoop(2, 2, 60), "stall")).summary
    for player in summary.players:
        # A busy machine may hand over the sound before the stall late, and it then seems shorter; by half at most.
        assert player.underruns >= 2 and player.continuity == 0.0
        assert player.stall_s >= STALL_S


async def test_what_the_server_asks_for_is_not_made_up(url: str) -> None:
    """Its own refusal is shown, not worked around."""
    summary = (await run(url, ClosedLoop(1, 2, 60), voice=None)).summary
    assert summary.errors_by_kind == {"status_400": 2}
