"""Sends the requests of a run and keeps what became of each."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.loadtest.schedule import Arrival
from serve_app.loadtest.speech_client import RequestRecord, SpeechClient

MAX_IN_FLIGHT = 900
"""Below the 1024 open files that most systems allow a process."""
ERROR_PAUSE_S = 0.25
"""A client of the closed loop waits this long after a failure: people do not ask again within a millisecond."""
HEAD_START_S = 0.05
"""Between making the tasks and the first request, so that none is late already."""


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """`num_clients` listeners, each asking again as soon as its answer is over, within both bounds."""

    num_clients: int
    max_requests: int
    max_seconds: float

    @property
    def name(self) -> str:
        return f"closed loop, {self.num_clients} client{'s' if self.num_clients > 1 else ''}"


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Requests that are sent when they are due, whatever became of those before. Bounded by its own end.

    pattern: how the arrivals were made, for reports.
    """

    arrivals: tuple[Arrival, ...]
    pattern: str

    @property
    def name(self) -> str:
        return f"open loop, {self.pattern}"


Load = ClosedLoop | OpenLoop


class Driver:
    """One run. Cancelling `run` ends it at once; `records` then holds what was over, `in_flight` counts the rest."""

    def __init__(self, client: SpeechClient, texts: Sequence[str]) -> None:
        self.client = client
        self.texts = texts
        self.records: list[RequestRecord] = []
        self.in_flight = 0
        self.started_s = time.monotonic()
        self._num_begun = 0

    async def run(self, load: Load) -> None:
        """Send everything, and wait until everything is over."""
        self.started_s = time.monotonic() + HEAD_START_S
        tasks: list[asyncio.Task[None]] = []
        try:
            if isinstance(load, ClosedLoop):
                tasks.extend(asyncio.create_task(self._listen(load)) for _ in range(load.num_clients))
            else:
                await self._send_when_due(load.arrivals, tasks)
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def elapsed_s(self) -> float:
        """Since the first request could be due."""
        return max(0.0, time.monotonic() - self.started_s)

    async def _listen(self, load: ClosedLoop) -> None:
        """One client of the closed loop."""
        await asyncio.sleep(HEAD_START_S)
        while self._num_begun < load.max_requests and self.elapsed_s() < load.max_seconds:
            index = self._begin()
            await self._speak(index, self._text(index), self.elapsed_s())
            if self.records[-1].error:
                await asyncio.sleep(ERROR_PAUSE_S)

    async def _send_when_due(self, arrivals: Sequence[Arrival], tasks: list[asyncio.Task[None]]) -> None:
        """Start one task for each arrival; they are added to `tasks`."""
        for arrival in arrivals:
            delay_s = self.started_s + arrival.at_s - time.monotonic()
            if delay_s > 0:
                await asyncio.sleep(delay_s)
            index = self._begin()
            text = self._text(index) if arrival.text is None else arrival.text
            if self.in_flight > MAX_IN_FLIGHT:
                # a request held back here would make the load depend on the server; one left out is counted
                skipped = RequestRecord(index, text, arrival.at_s, self.elapsed_s(), 0.0, error="client_full")
                self._end(skipped)
            else:
                tasks.append(asyncio.create_task(self._speak(index, text, arrival.at_s)))

    async def _speak(self, index: int, text: str, due_s: float) -> None:
        self._end(await self.client.speak(index, text, self.started_s, due_s))

    def _begin(self) -> int:
        """Index of the next request."""
        self._num_begun += 1
        self.in_flight += 1
        return self._num_begun - 1

    def _end(self, record: RequestRecord) -> None:
        self.in_flight -= 1
        self.records.append(record)

    def _text(self, index: int) -> str:
        return self.texts[index % len(self.texts)]
