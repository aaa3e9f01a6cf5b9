"""`GET /v1/status`: what the service is doing, for operators. Figures of all replicas, added up; nothing of a request.

Asking costs one small call to every replica, and at most one a second however many ask. With keys configured it needs
one.

    ready             a warmed synthesis replica answers
    window_s          what "recent" means below
    recent            requests by how they ended (`spoken`, `left` by their client, `invalid`, `refused`, `failed`), and
                      `underruns`: gaps that listeners heard
    ttfa_ms           of those recent requests: `count`, `p50`, `p95`, `p99`; null where there is none
    audible_ttfa_ms   the same, to the first 20 ms that can be heard
    stages            per stage `replicas` and what waits in it or is worked on; null while a stage does not answer
    replicas          of synthesis: `id`, `streams` it speaks, and how many more it could take (`spare`)
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serve_app.api.service import SpeechService
from serve_app.figures import WINDOW_S, ServiceFigures, percentile_s

MAX_AGE_S = 1.0
ENDS = ("spoken", "left", "invalid", "refused", "failed")


class StatusEndpoint:
    """The route. clock: seconds; an argument so that tests own time."""

    def __init__(self, service: SpeechService, clock: Callable[[], float] = time.monotonic) -> None:
        self.service = service
        self.clock = clock
        self.asking = asyncio.Lock()
        self.asked_at_s = -MAX_AGE_S
        self.answer: dict[str, Any] = {}

    async def status(self, request: Request) -> Response:
        return JSONResponse(await self.current(), headers={"cache-control": "no-store"})

    async def current(self) -> dict[str, Any]:
        """The JSON, at most `MAX_AGE_S` old."""
        async with self.asking:
            if self.clock() - self.asked_at_s >= MAX_AGE_S:
                self.answer = status_object(await self.service.figures())
                self.asked_at_s = self.clock()
        return self.answer


def status_object(figures: ServiceFigures) -> dict[str, Any]:
    """The JSON."""
    ingress, preprocess, synthesis = figures.ingress, figures.preprocess, figures.synthesis
    edges = ingress or ()
    recent = added(edge.recent for edge in edges)
    waiting = sum(edge.preparing for edge in edges)
    prepared_now = sum(replica.preparing for replica in preprocess or ())
    unheard = sum(edge.unheard for edge in edges)
    speaking = sum(edge.speaking for edge in edges)
    return {
        "ready": bool(synthesis),
        "window_s": WINDOW_S,
        "recent": {name: recent[name] for name in (*ENDS, "underruns")},
        "ttfa_ms": percentiles_ms(added(edge.ttfa for edge in edges)),
        "audible_ttfa_ms": percentiles_ms(added(edge.audible_ttfa for edge in edges)),
        "stages": {
            "ingress": None
            if ingress is None
            else {"replicas": len(ingress), "requests": waiting + unheard + speaking},
            "preprocess": None
            if preprocess is None
            else {
                "replicas": len(preprocess),
                "preparing": prepared_now,
                # the replicas are not asked at the very same moment
                "waiting": max(0, waiting - prepared_now),
            },
            "synthesis": None
            if synthesis is None
            else {
                "replicas": len(synthesis),
                "waiting_for_sound": unheard,
                "streams": sum(replica.streams for replica in synthesis),
                "spare": sum(replica.spare for replica in synthesis),
            },
        },
        "replicas": [
            {"id": replica.replica, "streams": replica.streams, "spare": replica.spare}
            for replica in sorted(synthesis or (), key=lambda replica: replica.replica)
        ],
    }


def added(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for part in counts:
        total.update(part)
    return total


def percentiles_ms(bins: Mapping[str, int]) -> dict[str, float | int | None]:
    """The figures of `RecentTimes.counts`, in milliseconds."""
    found: dict[str, float | int | None] = {"count": sum(bins.values())}
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        seconds = percentile_s(bins, share)
        found[name] = None if seconds is None else round(1000 * seconds, 1)
    return found
