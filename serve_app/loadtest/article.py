"""The scenario of a published benchmark: one short sentence, a reference clip of 5 s, one client and then two."""

import io
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from serve_app.loadtest.driver import ClosedLoop
from serve_app.loadtest.faults import LoadTestError
from serve_app.loadtest.report import percent
from serve_app.loadtest.session import Run, Session

TEXT = "你好，我是你的AI助手"
NUM_REQUESTS = 100
REFERENCE_S = 5.0
DEFAULT_CLIP = Path("configs/voices/clara.wav")
"""A built-in voice's, where the command is started in the repository."""


@dataclass(frozen=True, slots=True)
class ArticleRuns:
    """The same requests by one client, then by two. two_clients is None if the first was interrupted."""

    one_client: Run
    two_clients: Run | None


async def run_article(session: Session, num_requests: int, max_seconds: float) -> ArticleRuns:
    """`num_requests` one after the other, then a fifth as many by two clients; each at most `max_seconds` long."""
    one_client = await session.run(ClosedLoop(1, num_requests, max_seconds))
    if one_client.interrupted:
        return ArticleRuns(one_client, None)
    return ArticleRuns(one_client, await session.run(ClosedLoop(2, max(2, num_requests // 5), max_seconds)))


def article_figures(runs: ArticleRuns) -> dict[str, float | None]:
    """What the article reports, of our runs. Times in milliseconds, CPU in percent of the machine the tester is on.

    two_client_ratio: of the mean first packets, two clients' to one's.
    """
    one, two = runs.one_client.summary, runs.two_clients.summary if runs.two_clients else None
    peaks = [summary.cpu_peak for summary in (one, two) if summary is not None and summary.cpu_peak is not None]
    alone_ms = one.ttfp_ms.mean if one.ttfp_ms else None
    shared_ms = two.ttfp_ms.mean if two and two.ttfp_ms else None
    return {
        "first_packet_mean_ms": alone_ms,
        "first_packet_p95_ms": one.ttfp_ms.p95 if one.ttfp_ms else None,
        "total_mean_ms": one.e2e_ms.mean if one.e2e_ms else None,
        "two_client_first_packet_mean_ms": shared_ms,
        "two_client_ratio": shared_ms / alone_ms if shared_ms and alone_ms else None,
        "cpu_peak": max(peaks, default=None),
    }


def article_table(runs: ArticleRuns) -> Table:
    """Our figures beside those published for an A10, of which only some were."""
    published = ("2840; tuned 1420", "1680", "", "1500-1700", "", "")
    names = (
        "first packet, mean",
        "first packet, P95",
        "total, mean",
        "first packet with two clients, mean",
        "the same against one client",
        "CPU peak",
    )
    table = Table("", title=f"{runs.one_client.summary.requests} requests for {TEXT!r}", title_justify="left")
    table.add_column("this run", justify="right")
    table.add_column("the article (A10)", justify="right")
    for name, theirs, (key, value) in zip(names, published, article_figures(runs).items(), strict=True):
        table.add_row(name, told(key, value), theirs and f"{theirs} ms")
    return table


def told(key: str, value: float | None) -> str:
    """One of `article_figures` with its unit."""
    if key == "cpu_peak":
        return percent(value)
    if value is None:
        return "-"
    return f"{value:.2f}x" if key == "two_client_ratio" else f"{value:.1f} ms"


def article_json(runs: ArticleRuns) -> dict[str, Any]:
    """The one-client run's JSON, with the article's figures and the second run beside it."""
    two_clients = runs.two_clients.to_json() if runs.two_clients else None
    return runs.one_client.to_json({"article": article_figures(runs), "two_clients": two_clients})


def reference_clip(path: Path) -> bytes:
    """A wav file of `REFERENCE_S` seconds: the clip, cut or repeated. Errors: `LoadTestError`."""
    try:
        with wave.open(str(path), "rb") as source:
            parameters = source.getparams()
            frames = source.readframes(parameters.nframes)
    except (OSError, EOFError, wave.Error) as error:
        raise LoadTestError(f"cannot read {path} as a wav clip ({error}); name another with --ref-audio") from error
    if not frames:
        raise LoadTestError(f"{path} holds no sound; name another clip with --ref-audio")
    num_bytes = round(REFERENCE_S * parameters.framerate) * parameters.nchannels * parameters.sampwidth
    whole = frames * (num_bytes // len(frames) + 1)
    written = io.BytesIO()
    with wave.open(written, "wb") as clip:
        clip.setparams(parameters)
        clip.writeframes(whole[:num_bytes])
    return written.getvalue()
