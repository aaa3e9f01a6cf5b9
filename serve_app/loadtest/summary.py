"""The figures of a run, from its records; and the JSON that keeps them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from serve_app.loadtest.measures import PREBUFFERS_S, StreamFigures
from serve_app.loadtest.speech_client import RequestRecord


@dataclass(frozen=True, slots=True)
class Spread:
    """Of a set of times, in milliseconds; percentiles are interpolated linearly, as numpy's are."""

    mean: float
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class PlayerFigures:
    """All streams of a run on one player. continuity: as in `Summary`."""

    prebuffer_ms: float
    underruns: int
    stall_s: float
    continuity: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """A run. Latencies are of the requests that succeeded, from when each was due; None where there is none.

    requests: all that ended, failed ones included. continuity: share of them that a listener heard whole and without a
    gap, 0..1, so a failed request counts against it. underruns, continuity: of the player with the prebuffer that was
    chosen for the run. rtf: mean of the requests'. audio_s_per_s: seconds of sound received in a second of the run.
    client_lag_ms: how late the tester itself was. cpu_peak: of the whole machine the tester runs on, in percent.
    """

    requests: int
    errors: int
    errors_by_kind: dict[str, int]
    error_examples: dict[str, str]
    cancelled: int
    silent: int
    wall_s: float
    audio_s: float
    ttfb_ms: Spread | None
    ttfp_ms: Spread | None
    audible_ttfa_ms: Spread | None
    e2e_ms: Spread | None
    rtf_spread: Spread | None
    client_lag_ms: Spread | None
    prebuffer_ms: float
    players: tuple[PlayerFigures, ...]
    cpu_peak: float | None = None
    client_cpu_peak: float | None = None

    @property
    def audio_s_per_s(self) -> float:
        return self.audio_s / self.wall_s if self.wall_s else 0.0

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.wall_s if self.wall_s else 0.0

    @property
    def rtf(self) -> float | None:
        return self.rtf_spread.mean if self.rtf_spread else None

    @property
    def player(self) -> PlayerFigures:
        """The one with the prebuffer chosen for the run."""
        return next(player for player in self.players if player.prebuffer_ms == self.prebuffer_ms)


def spread(values: Sequence[float], scale: float = 1000.0) -> Spread | None:
    """Of values times `scale`; None of none."""
    if not values:
        return None
    scaled = np.asarray(values, np.float64) * scale
    return Spread(float(scaled.mean()), *(float(np.percentile(scaled, share)) for share in (50, 95, 99)))


def summarise(
    records: Sequence[RequestRecord],
    *,
    prebuffer_ms: float = 0.0,
    cancelled: int = 0,
    lags_s: Sequence[float] = (),
    machine_cpu_percent: Sequence[float] = (),
    client_cpu_percent: Sequence[float] = (),
) -> Summary:
    """The figures of a run. prebuffer_ms: one of those in `PREBUFFERS_S`."""
    heard = [record.figures for record in records if record.figures is not None]
    failed = [record for record in records if record.error]
    first_s = min((record.due_s for record in records), default=0.0)
    last_s = max((record.due_s + record.ended_s for record in records), default=0.0)
    return Summary(
        requests=len(records),
        errors=len(failed),
        errors_by_kind=dict(sorted(Counter(record.error for record in failed).items())),
        error_examples={record.error: record.error_detail for record in reversed(failed)},
        cancelled=cancelled,
        silent=sum(figures.audible_ttfa_s is None for figures in heard),
        wall_s=last_s - first_s,
        audio_s=sum(figures.audio_s for figures in heard),
        ttfb_ms=spread([figures.ttfb_s for figures in heard]),
        ttfp_ms=spread([figures.ttfp_s for figures in heard]),
        audible_ttfa_ms=spread([f.audible_ttfa_s for f in heard if f.audible_ttfa_s is not None]),
        e2e_ms=spread([figures.e2e_s for figures in heard]),
        rtf_spread=spread([figures.rtf for figures in heard], scale=1.0),
        client_lag_ms=spread(lags_s),
        prebuffer_ms=prebuffer_ms,
        players=tuple(_player_figures(heard, index, len(records)) for index in range(len(PREBUFFERS_S))),
        cpu_peak=max(machine_cpu_percent, default=None),
        client_cpu_peak=max(client_cpu_percent, default=None),
    )


def to_json(summary: Summary, detail: dict[str, Any]) -> dict[str, Any]:
    """What `--json` prints. Everything below `detail` may grow; the rest is what other programs read."""
    return {
        "requests": summary.requests,
        "errors": summary.errors,
        "ttfp_ms": _plain(summary.ttfp_ms),
        "audible_ttfa_ms": _plain(summary.audible_ttfa_ms),
        "underruns": summary.player.underruns,
        "continuity": summary.player.continuity,
        "rtf": summary.rtf,
        "audio_s_per_s": summary.audio_s_per_s,
        "cpu_peak": summary.cpu_peak,
        "client_lag_ms": _plain(summary.client_lag_ms),
        "detail": {
            "ttfb_ms": _plain(summary.ttfb_ms),
            "e2e_ms": _plain(summary.e2e_ms),
            "rtf": _plain(summary.rtf_spread),
            "prebuffer_ms": summary.prebuffer_ms,
            "players": [asdict(player) for player in summary.players],
            "errors_by_kind": summary.errors_by_kind,
            "silent": summary.silent,
            "cancelled": summary.cancelled,
            "wall_s": summary.wall_s,
            "audio_s": summary.audio_s,
            "requests_per_s": summary.requests_per_s,
            "client_cpu_peak": summary.client_cpu_peak,
            **detail,
        },
    }


def _player_figures(heard: Sequence[StreamFigures], index: int, num_requests: int) -> PlayerFigures:
    playbacks = [figures.players[index] for figures in heard]
    gapless = sum(playback.num_underruns == 0 for playback in playbacks)
    return PlayerFigures(
        prebuffer_ms=PREBUFFERS_S[index] * 1000,
        underruns=sum(playback.num_underruns for playback in playbacks),
        stall_s=sum(playback.stall_s for playback in playbacks),
        continuity=gapless / num_requests if num_requests else None,
    )


def _plain(value: Spread | None) -> dict[str, float] | None:
    return None if value is None else asdict(value)
