"""`GET /v1/status`, and the ledger that an ingress replica keeps for it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import numpy as np
import pytest

from serve_app.api.ledger import Ledger
from serve_app.api.status import MAX_AGE_S, StatusEndpoint, status_object
from serve_app.config import ApiConfig
from serve_app.errors import EmptyInput, GenerationFailed, NotReady, Overloaded, SpeechError
from serve_app.figures import IngressFigures, PreprocessFigures, ServiceFigures, SynthesisFigures
from serve_app.messages import AudioChunk, PreparedSpeech, SpeechRequest
from serve_app.metrics import SILENT
from tests.api.live import assert_error, client_of
from tests.fakes import FakeService

FIGURES = ServiceFigures(
    (
        IngressFigures("a", 3, 2, 1, {"spoken": 5, "underruns": 1}, {"0": 9}, {"35": 1}),
        IngressFigures("b", 0, 0, 4, {"spoken": 1, "refused": 2}, {"35": 1}),
    ),
    (PreprocessFigures("c", 1), PreprocessFigures("d", 1)),
    (SynthesisFigures("f", 5, 3), SynthesisFigures("e", 2, 6)),
)


async def test_figures_of_all_replicas_add_up() -> None:
    async with client_of(FakeService(known_figures=FIGURES)) as client:
        response = await client.get("/v1/status")
    assert response.status_code == 200 and response.headers["cache-control"] == "no-store"
    assert response.json() == {
        "ready": True,
        "window_s": 300,
        "recent": {"spoken": 6, "left": 0, "invalid": 0, "refused": 2, "failed": 0, "underruns": 1},
        "ttfa_ms": {"count": 10, "p50": 1000.0, "p95": 1999.9, "p99": 1999.9},
        "audible_ttfa_ms": {"count": 1, "p50": 1999.9, "p95": 1999.9, "p99": 1999.9},
        "stages": {
            "ingress": {"replicas": 2, "requests": 10},
            "preprocess": {"replicas": 2, "preparing": 2, "waiting": 1},
            "synthesis": {"replicas": 2, "waiting_for_sound": 2, "streams": 7, "spare": 9},
        },
        "replicas": [{"id": "e", "streams": 2, "spare": 6}, {"id": "f", "streams": 5, "spare": 3}],
    }


def test_a_stage_that_does_not_answer_is_null() -> None:
    status = status_object(ServiceFigures(ingress=(), preprocess=None, synthesis=None))
    assert status["stages"] == {"ingress": {"replicas": 0, "requests": 0}, "preprocess": None, "synthesis": None}
    assert status["ready"] is False and status["replicas"] == []
    assert status["ttfa_ms"] == {"count": 0, "p50": None, "p95": None, "p99": None}


async def test_figures_need_a_key_where_there_are_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATUS_KEYS", "alpha")
    async with client_of(FakeService(), ApiConfig(api_keys_variable="STATUS_KEYS")) as client:
        assert_error(await client.get("/v1/status"), 401, "invalid_api_key")
        assert (await client.get("/v1/status", headers={"authorization": "Bearer alpha"})).status_code == 200


async def test_replicas_are_asked_once_a_second_however_many_ask() -> None:
    class Counting(FakeService):
        asked = 0

        async def figures(self) -> ServiceFigures:
            self.asked += 1
            await asyncio.sleep(0)
            return replace(FIGURES, synthesis=None)

    service, now_s = Counting(), 0.0
    endpoint = StatusEndpoint(service, clock=lambda: now_s)
    await asyncio.gather(*(endpoint.current() for _ in range(5)))
    assert service.asked == 1
    now_s += MAX_AGE_S
    await endpoint.current()
    assert service.asked == 2


async def spoken(ledger: Ledger, service: FakeService, voice: str = "default") -> AsyncGenerator[AudioChunk, None]:
    """What the ingress does with one request."""
    prepared = await ledger.prepared("r", service.prepare(SpeechRequest("r", "Hello.", voice)))
    async with aclosing(ledger.heard(prepared, service.speak(prepared))) as chunks:
        async for chunk in chunks:
            yield chunk


async def test_the_ledger_follows_a_request_through_its_stages() -> None:
    ledger = Ledger(SILENT)
    service = FakeService(prepare_gate=asyncio.Semaphore(0), gate=asyncio.Semaphore(0), chunk_samples=6_000)
    assert service.prepare_gate is not None and service.gate is not None

    heard = asyncio.Event()

    async def listen() -> None:
        async for _ in spoken(ledger, service):
            heard.set()

    def now() -> tuple[int, int, int]:
        figures = ledger.figures("x")
        return figures.preparing, figures.unheard, figures.speaking

    listening = asyncio.create_task(listen())
    await service.until_open(0, prepares=1)
    assert now() == (1, 0, 0)
    service.prepare_gate.release()
    await service.until_open(1)
    assert now() == (0, 1, 0)
    service.gate.release()
    await heard.wait()
    assert now() == (0, 0, 1)
    service.gate.release()
    await listening
    assert now() == (0, 0, 0)
    figures = ledger.figures("x")
    assert figures.recent == {"spoken": 1}
    assert sum(figures.ttfa.values()) == sum(figures.audible_ttfa.values()) == 1


@pytest.mark.parametrize(
    ("error", "after", "end"),
    [
        (Overloaded("full"), 0, "refused"),
        (NotReady("gone"), 0, "refused"),
        (NotReady("gone"), 1, "failed"),
        (GenerationFailed("no end"), 0, "failed"),
        (KeyError("bug"), 1, "failed"),
    ],
)
async def test_how_streams_end(error: Exception, after: int, end: str) -> None:
    ledger = Ledger(SILENT)
    with pytest.raises(type(error)):
        async for _ in spoken(ledger, FakeService(speak_error=error, error_after=after)):
            pass
    figures = ledger.figures("x")
    assert figures.recent == {end: 1}
    assert (figures.preparing, figures.unheard, figures.speaking) == (0, 0, 0)


@pytest.mark.parametrize(("error", "end"), [(EmptyInput("no"), "invalid"), (Overloaded("full"), "refused")])
async def test_how_preparing_ends(error: SpeechError, end: str) -> None:
    ledger = Ledger(SILENT)
    with pytest.raises(type(error)):
        async for _ in spoken(ledger, FakeService(prepare_error=error)):
            pass
    assert ledger.figures("x").recent == {end: 1} and ledger.figures("x").preparing == 0


async def test_a_listener_that_leaves() -> None:
    ledger = Ledger(SILENT)
    async with aclosing(spoken(ledger, FakeService())) as chunks:
        await anext(chunks)
    assert ledger.figures("x").recent == {"left": 1} and ledger.figures("x").speaking == 0


async def test_underruns_are_those_of_who_plays_at_once() -> None:
    async def late(prepared: PreparedSpeech) -> AsyncGenerator[AudioChunk, None]:
        for _ in range(3):
            yield AudioChunk(np.full(240, 0.5, np.float32), 0, 1)  # 10 ms of sound
            await asyncio.sleep(0.05)

    ledger, service = Ledger(SILENT), FakeService()
    prepared = await ledger.prepared("r", service.prepare(SpeechRequest("r", "Hello.")))
    async with aclosing(ledger.heard(prepared, late(prepared))) as chunks:
        assert len([chunk async for chunk in chunks]) == 3
    assert ledger.figures("x").recent == {"spoken": 1, "underruns": 2}
